"""The API's page in a real browser: it loads nothing from other hosts, can be read by all, and edits a post."""

from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import httpx
import pytest

from tests import factories
from tests.api.ops.browser import DESKTOP, PHONE, Browser, browsing, missing
from tests.loopback import LOOPBACK
from tests.stack import Running
from tests.waiting import eventually

AXE = (files("axe_core_python") / "axe.min.js").read_text()
# Of what passes one element a rule is looked up: to name each of thousands takes seconds.
# axe-core 4.4. Later ones do not have the rule about ids: WCAG 2.2 dropped it.
RUN_AXE = """
const done = arguments[arguments.length - 1];
const options = {preload: false, resultTypes: ["violations"], rules: {"duplicate-id-active": {enabled: false}}};
axe.run(options).then(({violations, passes}) => done([
    passes.length, violations.flatMap(({id, nodes}) => nodes.map(({html}) => `${id}: ${html}`))]));
"""
EDIT = "#operations-posts-editPost"
ANSWER = f"{EDIT} .live-responses-table .response"
ABSENT = missing()
in_browser = pytest.mark.skipif(
    ABSENT is not None,
    reason=f"LEFT OUT: the API's page in a real browser was not tested, since {ABSENT} "
    "(Debian: apt-get install chromium chromium-driver)",
)


def test_the_root_leads_to_the_page_and_the_page_needs_no_key(stack: Running) -> None:
    answer = httpx.get(f"{stack.http.base_url}/", follow_redirects=True, **LOOPBACK)
    assert (answer.status_code, answer.url.path) == (200, "/docs")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "http" not in policy


@pytest.mark.parametrize("name", ["swagger-ui-bundle.js", "swagger-ui.css", "docs.js", "docs.css"])
def test_what_the_page_loads_comes_from_the_api(stack: Running, name: str) -> None:
    answer = stack.http.get(f"/docs/{name}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].partition(";")[0] == (
        "text/css" if name.endswith("css") else "text/javascript"
    )
    assert answer.headers["cache-control"] == "public, max-age=3600"


@pytest.mark.parametrize("name", ["docs.html", "docs.py", "..%2fapp.py", "redoc.standalone.js"])
def test_no_other_file_is_served(stack: Running, name: str) -> None:
    assert stack.http.get(f"/docs/{name}").status_code == 404


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as browser:
        # axe-core takes ten seconds for an operation that is open.
        browser.post("timeouts", {"script": 55_000})
        yield browser


def there(browser: Browser, selector: str) -> Any:
    # Each look is work for the browser, which has enough to do.
    return eventually(
        lambda: browser.run("return !!document.querySelector(arguments[0])", selector), within=30, every=0.2
    )


def click(browser: Browser, selector: str) -> None:
    there(browser, selector)
    browser.run("document.querySelector(arguments[0]).click()", selector)


def accessible(browser: Browser) -> None:
    """axe-core finds nothing, and nothing is wider than the screen."""
    browser.devtools("Runtime.evaluate", expression=AXE)
    seen, wrong = browser.post("execute/async", {"script": RUN_AXE, "args": []})
    assert seen > 20
    assert wrong == []
    assert browser.run("return document.documentElement.scrollWidth - innerWidth") <= 0


@in_browser
@pytest.mark.browser
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_post_is_edited_from_the_page(stack: Running, browser: Browser, size: tuple[int, int]) -> None:
    if not stack.http.get("/v1/posts/post_abc123").is_success:
        stack.post(post_id="post_abc123")
    browser.look(size, "light")
    browser.open(f"{stack.http.base_url}/docs")
    there(browser, EDIT)
    accessible(browser)
    click(browser, ".btn.authorize")
    there(browser, ".auth-container input")
    accessible(browser)
    browser.find(".auth-container input").type(factories.SECRET)
    click(browser, ".auth-btn-wrapper .authorize")
    click(browser, ".auth-btn-wrapper .btn-done")
    click(browser, f"{EDIT} .opblock-summary-control")
    # The button is there a second or two before the fields that it sends.
    there(browser, f"{EDIT} input[value=post_abc123]")
    there(browser, f"{EDIT} .body-param textarea")
    click(browser, f"{EDIT} .execute")
    there(browser, ANSWER)
    assert "200" in browser.text(f"{ANSWER} .response-col_status")
    assert '"caption": "Live at noon, Eastern!"' in browser.text(f"{ANSWER} .response-col_description")
    accessible(browser)
    assert browser.said() == [], "what the policy refused, too"
