"""The operators' page in a real headless Chromium, as an operator uses it."""

from hashlib import md5
from typing import Any

import pytest
from sqlalchemy import text

from shared.domain.ids import new_id
from tests import factories
from tests.api.ops.browser import DESKTOP, PHONE, Browser, missing
from tests.factories import FAILED
from tests.stack import Running
from tests.waiting import eventually

ABSENT = missing()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        ABSENT is not None,
        reason=f"LEFT OUT: the operators' page in a real browser was not tested, since {ABSENT} "
        "(Debian: apt-get install chromium chromium-driver)",
    ),
]
TAB, ENTER = "\ue004", "\ue007"

# The colours as they are painted: each text's, against the nearest ground that is not transparent.
LOW_CONTRAST = """
const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
const luminance = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const ground = (one) => {
    for (let at = one; at; at = at.parentElement) {
        const colour = parts(getComputedStyle(at).backgroundColor);
        if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
};
const low = [];
let seen = 0;
for (const one of document.querySelectorAll('body *')) {
    const written = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!written || !one.checkVisibility() || one.closest('svg, .unseen, .skip')) continue;
    seen += 1;
    const [ink, paper] = [luminance(parts(getComputedStyle(one).color)), luminance(ground(one))];
    const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    if (ratio < 4.5) low.push(`${one.tagName} ${one.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
}
return [seen, low];
"""
UNNAMED = """
return [...document.querySelectorAll('a, button, input:not([type=hidden]), select, progress, svg, summary')]
    .filter((one) => !(one.textContent.trim() || one.getAttribute('aria-label')
        || (one.labels && [...one.labels].some((label) => label.textContent.trim()))))
    .map((one) => one.outerHTML.slice(0, 120));
"""
OVERFLOWING = """
return [...document.querySelectorAll('.card table')]
    .filter((one) => one.checkVisibility())
    .filter((one) => one.getBoundingClientRect().right > one.closest('.card').getBoundingClientRect().right)
    .map((one) => one.textContent.trim().slice(0, 80));
"""
OVER = """
return [...document.querySelectorAll('.card')].filter((one) => one.scrollWidth > one.clientWidth + 1)
    .map((one) => one.textContent.trim().slice(0, 80));
"""
WIDE = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"


def url(stack: Running, path: str) -> str:
    assert stack.api is not None
    return stack.api.url + path


def failed_edit(stack: Running, post_id: str, changes: dict[str, Any]) -> str:
    with stack.engine.begin() as tx:
        edit_id = factories.edit(tx, post_id, changes)
        tx.execute(text(f"UPDATE edits SET {FAILED} WHERE id = :id"), {"id": edit_id})
    return edit_id


def dead_event(stack: Running, post_id: str) -> str:
    """An event that was given up after long words, with an id as long as real ones are."""
    with stack.engine.begin() as tx:
        event_id = new_id("evt")
        tx.execute(
            text("""
                WITH made AS (
                    INSERT INTO webhook_events (id, workspace_id, post_id, type, data, status, tries, finished_at)
                    VALUES (:id, 'ws_test', :post, 'reschedule.finished', '{}', 'dead', 132, now()) RETURNING seq)
                INSERT INTO webhook_tries (event_seq, number, workspace_id, outcome, message)
                SELECT seq, 132, 'ws_test', 'never_started', :words FROM made"""),
            {"id": event_id, "post": post_id, "words": f"certificate_verify_failed: {'self-signed ' * 12}"},
        )
    return event_id


# What a live page does when it has news, for each element that is about to be used.
PAINTED_ANEW = "for (const one of document.querySelectorAll('[data-live]')) one.innerHTML = one.innerHTML + ' ';"


def test_what_is_painted_anew_between_look_and_click_is_found_again(stack: Running, browser: Browser) -> None:
    failed = failed_edit(stack, stack.post(), {"caption": "painted"})
    browser.open(url(stack, "/ops/edits?status=failed"))
    link, card = browser.link(failed), browser.find("#edits h2, #edits th")
    seen = card.text
    browser.run(PAINTED_ANEW)
    assert card.text == seen != ""
    browser.run(PAINTED_ANEW)
    link.click()
    eventually(lambda: browser.address == url(stack, f"/ops/edits/{failed}"), within=30)
    gone = browser.find("#requeue")
    browser.run("document.getElementById('requeue').remove()")
    with pytest.raises(LookupError, match="no such element"):
        gone.click()


def test_a_failed_edit_is_found_its_story_read_requeued_and_seen_applied(stack: Running, browser: Browser) -> None:
    post = stack.post()
    failed = failed_edit(stack, post, {"caption": "Second pour"})
    stack.patch(post, {"caption": "Third pour"})
    browser.open(url(stack, "/ops"))
    browser.link(failed).click()
    timeline = eventually(lambda: browser.text("#story"), within=30)
    for word in ("accepted", "failed", "It never took effect", "Second pour", "attempts"):
        assert word in timeline
    assert browser.text("#requeue") == "Requeue, overwriting 1 later change"
    assert "Third pour" in browser.text("#decide")
    browser.find("#requeue").click()
    eventually(lambda: "It is queued again" in browser.text(".notice"), within=30)
    # Nobody reloads: the page looks again by itself.
    eventually(lambda: "it took effect" in browser.text("#story"), within=30, every=0.2)
    assert stack.row("posts", post).caption == "Second pour"
    eventually(lambda: browser.text("#deciding") == "", within=30, every=0.2)
    assert browser.said() == []


def test_it_is_done_with_the_keyboard_alone(stack: Running, browser: Browser) -> None:
    failed = failed_edit(stack, stack.post(), {"caption": "by keys"})
    browser.open(url(stack, "/ops"))
    browser.press(TAB)
    assert browser.run("return document.activeElement.textContent") == "Skip to content"
    assert browser.run("return document.activeElement.getBoundingClientRect().left") >= 0
    focus = "return document.activeElement.id || document.activeElement.getAttribute('href') || ''"

    def reach(wanted: str) -> None:
        for _ in range(80):
            if browser.run(focus) == wanted:
                ring = browser.run("return getComputedStyle(document.activeElement).outlineStyle")
                assert ring != "none"
                return
            browser.press(TAB)
        raise AssertionError(f"no way to {wanted} with Tab")

    reach(f"/ops/edits/{failed}")
    browser.press(ENTER)
    eventually(lambda: browser.address.endswith(failed), within=30)
    reach("requeue")
    browser.press(ENTER)
    eventually(lambda: stack.row("edits", failed).status == "applied", within=30)


def test_an_edit_is_discarded_in_two_steps(stack: Running, browser: Browser) -> None:
    failed = failed_edit(stack, stack.post(), {"caption": "unwanted"})
    browser.open(url(stack, f"/ops/edits/{failed}"))
    assert browser.text("#discard") == ""
    browser.find("#decide summary").click()
    browser.find("#discard").click()
    eventually(lambda: "discarded, for good" in browser.text(".notice"), within=30)
    assert stack.row("edits", failed).error_code == "discarded"


def test_posts_that_failed_are_found_by_their_reason_and_put_back(stack: Running, browser: Browser) -> None:
    refused = {"status": "failed", "failed_at": factories.soon(-9), "failure_reason": "suspended", "caption": "out"}
    posts = [stack.post(**refused) for _ in range(2)]
    browser.open(url(stack, "/ops"))
    assert "failed posts" in browser.text("#standing")
    browser.link("failed posts").click()
    eventually(lambda: "suspended" in browser.text("#reasons"), within=30)
    browser.link("Retry").click()
    eventually(lambda: browser.text("#retry") == "Retry 2 posts", within=30)
    assert browser.text("#live") == "", "a page that is not looked at again has no button to pause that"
    browser.find("#retry").click()
    eventually(lambda: "2 posts are tried again" in browser.text(".notice"), within=30)
    assert [stack.row("posts", post).status for post in posts] == ["generated"] * 2
    browser.open(url(stack, f"/ops/posts/{posts[0]}"))
    assert "put back by ops; before: failed, suspended" in browser.text("#story")
    assert browser.said() == []


def test_an_id_from_flower_is_found_in_the_search_box(stack: Running, browser: Browser) -> None:
    post = stack.post()
    browser.open(url(stack, "/ops"))
    browser.find("#q").type(f"({post} +3){ENTER}")
    eventually(lambda: browser.address == url(stack, f"/ops/posts/{post}"), within=30)
    assert post in browser.text("h1")


def test_a_bulk_job_is_watched_to_its_end(stack: Running, browser: Browser) -> None:
    with stack.engine.begin() as tx:
        for _ in range(2500):
            factories.post(tx, account_id=factories.INSTAGRAM, platform="instagram", scheduled_time=factories.soon(600))
    made = stack.http.post("/v1/reschedules", json={"filter": {"accountIds": [factories.INSTAGRAM]}, "shift": "P1D"})
    assert made.status_code == 202, made.text
    browser.open(url(stack, "/ops/jobs"))
    browser.link(made.json()["id"]).click()
    eventually(lambda: "It has ended" in browser.text("#story"), within=40, every=0.2)
    assert "2,500 of 2,500" in browser.text("#story")
    assert browser.find("progress").attribute("value") == "2500"


def test_a_page_waits_while_it_is_paused(stack: Running, browser: Browser) -> None:
    post = stack.post()
    browser.open(url(stack, f"/ops/posts/{post}"))
    browser.find("#live").click()
    assert browser.text("#live-said") == "Paused."
    stack.patch(post, {"caption": "unseen"})
    look = "return look()"  # what the page does every three seconds, now and to its end
    browser.run(look)
    assert "edit applied" not in browser.text("#story")
    browser.find("#live").click()
    eventually(lambda: "edit applied" in browser.text("#story"), within=30, every=0.2)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_page_can_be_read_in_both_schemes_and_on_a_phone(
    stack: Running, browser: Browser, size: tuple[int, int], scheme: str
) -> None:
    post = stack.post(scheduled_time=factories.soon(-30), retry_at=factories.soon(30))
    failed = failed_edit(stack, post, {"caption": "long" * 100, "soundId": "7" * 60})
    stack.patch(post, {"soundId": "8" * 200})
    browser.look(size, scheme)
    why, words = "refused " + "at length " * 40, f"log in again at https://auth.example.com/{'renew' * 12}"
    out = stack.post(status="failed", failed_at=factories.soon(-9), failure_reason=why, failure_message=words)
    parts = ("refused", why, words)
    reason = f"/failed/{md5(chr(31).join(parts).encode()).hexdigest()}"  # noqa: S324  -- as PostgreSQL names it
    pages = ["", "/edits", "/edits?status=failed", f"/edits/{failed}", f"/posts/{post}", "/late", "/jobs", "/webhooks"]
    pages += ["/failed", "/failed/refused", reason, f"/posts/{out}"]
    event_id = dead_event(stack, post)
    pages += [f"/webhooks/{event_id}", "/webhooks/resend?since=2020-01-01T00:00", "/webhooks?status=queued"]
    long_id = stack.post(id=new_id("post"))
    with stack.engine.begin() as tx:
        tx.execute(
            text("""UPDATE edits SET id = :new, post_id = :post, error_message = :words,
                        requested_by = 'content-studio',
                        changes = '{"scheduledTime": "2030-01-01T10:00", "timezone": "America/Los_Angeles"}'
                    WHERE id = :id"""),
            {"id": failed_edit(stack, long_id, {}), "new": new_id("edit"), "post": long_id, "words": words},
        )
    mended = ["/edits?status=failed", "/edits?workspace=ws_test&account=acc_tiktok&key=nothing", "/failed-edits"]
    mended += ["/failed-edits/mend", "/failed-edits?act=requeued&done=2&left=1"]
    pages += mended
    for path in [*pages, "/search?q=nothing"]:
        browser.open(url(stack, f"/ops{path}"))
        seen, low = browser.run(LOW_CONTRAST)
        assert seen > 5
        assert low == [], path
        assert browser.run(WIDE) <= 0, f"{path} is wider than the screen"
        assert browser.run(OVERFLOWING) == [], f"a table of {path} is wider than its card"
        assert browser.run(UNNAMED) == [], path
        assert path not in mended or browser.run(OVER) == [], f"a table of {path} is wider than its card"
    [mode] = browser.run("return [matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light']")
    assert mode == scheme
    assert [said for said in browser.said() if "404" not in said] == []
