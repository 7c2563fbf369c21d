"""A real headless Chromium, driven through chromedriver over plain HTTP (W3C WebDriver), without another dependency."""

import shutil
import tempfile
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from tests.loopback import LOOPBACK
from tests.ports import free_port
from tests.processes import Processes

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    # No proxy of the machine's may see loopback.
    "--no-proxy-server",
    "--hide-scrollbars",
]
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
DESKTOP, PHONE = (1280, 900), (390, 844)
MOST_PAINTS = 50
"""So often an element may be gone again before it is asked; then it is no live page that paints."""


class StaleError(LookupError):
    """The page has another element in the place of the one that was found."""


def missing() -> str | None:
    """Why there can be no browser here, or None."""
    names = [name for name in ("chromedriver",) if shutil.which(name) is None]
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        names.insert(0, "chromium")
    return f"there is no {' and no '.join(names)} on this machine" if names else None


class Element:
    """An element that is found anew where the page has painted it anew since: a live page does so every few seconds."""

    def __init__(self, browser: "Browser", using: str, value: str) -> None:
        self._browser, self._wanted = browser, {"using": using, "value": value}
        self._reference = self._found()

    def _found(self) -> str:
        return str(self._browser.post("element", self._wanted)[ELEMENT])

    def _ask(self, ask: Callable[[str], Any]) -> Any:
        """Nothing was done to an element that is stale, so that it is asked again."""
        for _ in range(MOST_PAINTS):
            with suppress(StaleError):
                return ask(f"element/{self._reference}")
            self._reference = self._found()
        return ask(f"element/{self._reference}")

    @property
    def text(self) -> str:
        """What a person sees of it."""
        return str(self._ask(lambda element: self._browser.get(f"{element}/text")))

    def attribute(self, name: str) -> str | None:
        found = self._ask(lambda element: self._browser.get(f"{element}/attribute/{name}"))
        return None if found is None else str(found)

    def click(self) -> None:
        self._ask(lambda element: self._browser.post(f"{element}/click", {}))

    def type(self, text: str) -> None:
        self._ask(lambda element: self._browser.post(f"{element}/value", {"text": text}))


class Browser:
    """One window. Waits for nothing by itself but the loading of pages; tests say what they wait for."""

    def __init__(self, driver: httpx.Client, session: str) -> None:
        self._driver, self._session = driver, session

    def get(self, what: str) -> Any:
        return self._value(self._driver.get(f"/session/{self._session}/{what}"))

    def post(self, what: str, body: dict[str, Any]) -> Any:
        return self._value(self._driver.post(f"/session/{self._session}/{what}", json=body))

    @staticmethod
    def _value(answer: httpx.Response) -> Any:
        value = answer.json()["value"]
        if answer.status_code >= 400:
            error = StaleError if value["error"] == "stale element reference" else LookupError
            raise error(f"{value['error']}: {value['message'].splitlines()[0]}")
        return value

    def open(self, url: str) -> None:
        self.post("url", {"url": url})

    @property
    def address(self) -> str:
        return str(self.get("url"))

    def find(self, selector: str) -> Element:
        """The first element of a CSS selector; LookupError if there is none."""
        return Element(self, "css selector", selector)

    def link(self, text: str) -> Element:
        return Element(self, "partial link text", text)

    def text(self, selector: str = "main") -> str:
        """What can be read there now; empty where there is nothing, or not any more."""
        with suppress(LookupError):
            return self.find(selector).text
        return ""

    def run(self, script: str, *arguments: Any) -> Any:
        """JavaScript in the page."""
        return self.post("execute/sync", {"script": script, "args": list(arguments)})

    def devtools(self, command: str, **parameters: Any) -> Any:
        return self.post("goog/cdp/execute", {"cmd": command, "params": parameters})

    def press(self, *keys: str) -> None:
        """Keys, one after the other, to whatever has the focus."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.post("actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def look(self, size: tuple[int, int], scheme: str) -> None:
        """See the page as on a screen of that size, `light` or `dark`."""
        width, height = size
        phone = width < 600
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.devtools("Emulation.setEmulatedMedia", features=features)

    def said(self) -> list[str]:
        """What the browser complained of since it was asked last: errors of scripts, what the policy refused."""
        return [entry["message"] for entry in self.post("se/log", {"type": "browser"})]

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """A PNG of what is seen, or of the whole page."""
        shot = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(b64decode(shot["data"]))


@contextmanager
def browsing() -> Iterator[Browser]:
    """A browser with a profile of its own that is gone afterwards."""
    started, port = Processes(), free_port()
    profile = tempfile.mkdtemp(prefix="redraft-browser-")
    driver = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, **LOOPBACK)
    session = None
    try:
        process = started.start(["chromedriver"], f"--port={port}")
        process.says("started successfully", within=30)
        options: dict[str, Any] = {"args": [*ARGUMENTS, f"--user-data-dir={profile}"]}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        answer = driver.post("/session", json={"capabilities": {"alwaysMatch": wanted}})
        assert answer.status_code == 200, answer.text
        session = answer.json()["value"]["sessionId"]
        yield Browser(driver, session)
    finally:
        if session is not None:
            with suppress(httpx.HTTPError):
                driver.delete(f"/session/{session}")
        driver.close()
        started.close()
        shutil.rmtree(profile, ignore_errors=True)
