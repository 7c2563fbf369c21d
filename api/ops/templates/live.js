"use strict";
// Asks for this page again every few seconds and puts in the parts that have changed. Without it a page is as it was
// when it was loaded; nothing else needs a script.
const PERIOD = 3000;
const button = document.getElementById("live");
const said = document.getElementById("live-said");
// A page opened as https://user:password@… may not ask for itself under that name.
const here = new URL(location.href);
here.username = "";
here.password = "";
let paused = sessionStorage.getItem("paused") === "yes";

function show() {
  button.textContent = paused ? "Resume live view" : "Pause live view";
  said.textContent = paused ? "Paused." : "Live, every 3 seconds.";
}

function replace(old, fresh) {
  if (old.innerHTML === fresh.innerHTML) return;
  // Whoever is in the middle of selecting text keeps it.
  const selection = document.getSelection();
  if (selection && !selection.isCollapsed && old.contains(selection.anchorNode)) return;
  const open = [...old.querySelectorAll("details")].map((one) => one.open);
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  const place = focused ? [...old.querySelectorAll("a, button, input, select, summary")].indexOf(focused) : -1;
  if (focused && focused.form) return; // nobody's form changes under the hand
  old.innerHTML = fresh.innerHTML;
  old.querySelectorAll("details").forEach((one, number) => { one.open = Boolean(open[number]); });
  const again = old.querySelectorAll("a, button, input, select, summary")[place];
  if (again) again.focus({ preventScroll: true });
}

async function look() {
  if (paused || document.hidden) return;
  try {
    const answer = await fetch(here, { headers: { accept: "text/html" }, signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error(String(answer.status));
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const old of document.querySelectorAll("[data-live]")) {
      const fresh = page.getElementById(old.id);
      if (fresh) replace(old, fresh);
    }
    if (!paused) show();
  } catch {
    said.textContent = "The server did not answer; trying again.";
  }
}

if (button && document.querySelector("[data-live]")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    paused = !paused;
    sessionStorage.setItem("paused", paused ? "yes" : "no");
    show();
    look();
  });
  show();
  (async () => {
    for (;;) {
      await new Promise((wake) => { setTimeout(wake, PERIOD); });
      await look();
    }
  })();
}
