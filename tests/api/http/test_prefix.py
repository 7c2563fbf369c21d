"""Behind a proxy that strips a prefix: what an answer points at is found, and the client is who the proxy says."""

import re
from collections.abc import Iterator

import httpx
import pytest

from shared.local.postgres import PostgreSQL
from shared.local.valkey import Valkey
from shared.settings import Settings
from tests import factories
from tests.conftest import TEMPLATE, empty_database
from tests.loopback import LOOPBACK
from tests.stack import Running, running
from tests.stripping_proxy import PREFIX, stripping

ROOT = {"REDRAFT_ROOT_PATH": PREFIX, "REDRAFT_TRUSTED_PROXIES": "127.0.0.1", "REDRAFT_OPS_PASSWORD": "right one"}
OPERATOR = ("ops", "right one")


@pytest.fixture(scope="module")
def stack(postgres: PostgreSQL, valkey: Valkey) -> Iterator[Running]:
    url = postgres.create_database("prefix", template=TEMPLATE)
    with running(url, empty_database(valkey), **ROOT, REDRAFT_LOG_FORMAT="json") as stack:
        yield stack
    postgres.drop_database("prefix")


@pytest.fixture(scope="module")
def proxy(stack: Running) -> Iterator[str]:
    """The URL of the proxy's host, without the prefix."""
    assert stack.api is not None
    with stripping(stack.api.url) as url:
        yield url.removesuffix(PREFIX)


def queued(stack: Running, proxy: str) -> httpx.Response:
    """The answer to a PATCH that waits for nothing."""
    headers = {"Authorization": f"Bearer {factories.SECRET}", "Prefer": "respond-async"}
    url = f"{proxy}{PREFIX}/v1/posts/{stack.post()}"
    return httpx.patch(url, json={"caption": "through"}, headers=headers, **LOOPBACK)


def test_location_leads_to_the_edit(stack: Running, proxy: str) -> None:
    answer = queued(stack, proxy)
    assert answer.status_code == 202
    key = {"Authorization": f"Bearer {factories.SECRET}"}
    shown = httpx.get(f"{proxy}{answer.headers['location']}", headers=key, **LOOPBACK)
    assert (shown.status_code, shown.json()["editId"]) == (200, answer.json()["editId"])


def test_every_link_and_form_of_the_operators_pages_leads_on(stack: Running, proxy: str) -> None:
    edit = queued(stack, proxy).json()
    waiting = [f"{PREFIX}/ops", f"{PREFIX}/ops/edits/{edit['editId']}"]
    seen, actions = set[str](), set[str]()
    with httpx.Client(base_url=proxy, auth=OPERATOR, **LOOPBACK, timeout=20) as http:
        while waiting:
            path = waiting.pop()
            seen.add(path)
            answer = http.get(path)
            assert answer.status_code == 200, path
            if not answer.headers["content-type"].startswith("text/html"):
                continue
            assert int(answer.headers["content-length"]) == len(answer.content)
            found = re.findall(r'(href|src|action)="(/[^"#]*)', answer.text)
            assert all(link.startswith(f"{PREFIX}/ops") for _, link in found), found
            actions |= {link for kind, link in found if kind == "action"}
            links = {link.replace("&amp;", "&") for kind, link in found if kind != "action"}
            waiting += links - {*seen, *waiting}
        assert {f"{PREFIX}/ops/late", f"{PREFIX}/ops/edits/{edit['editId']}"} <= seen
        assert any("style.css" in path for path in seen)
        assert f"{PREFIX}/ops/edits/{edit['editId']}/discard" in actions
        found_one = http.get(f"{PREFIX}/ops/search", params={"q": edit["postId"]})
        assert found_one.headers["location"] == f"{PREFIX}/ops/posts/{edit['postId']}"
        assert http.get(f"{PREFIX}/ops/").headers["location"] == f"{PREFIX}/ops"


def test_the_pass_is_sent_back_to_the_pages_alone(proxy: str) -> None:
    cookie = httpx.get(f"{proxy}{PREFIX}/ops", auth=OPERATOR, **LOOPBACK).headers["set-cookie"].lower()
    assert f"path={PREFIX}/ops;" in cookie


def test_the_document_says_where_its_api_is(proxy: str) -> None:
    with httpx.Client(base_url=proxy, follow_redirects=True, **LOOPBACK) as http:
        page = http.get(f"{PREFIX}/")
        assert (page.status_code, page.url.path) == (200, f"{PREFIX}/docs")
        for name in re.findall(r'(?:href|src)="([^":]+)"', page.text):
            assert http.get(str(page.url.join(name))).status_code == 200, name
        assert http.get(f"{PREFIX}/openapi.json").json()["servers"] == [{"url": PREFIX}]


def test_the_client_is_who_a_trusted_proxy_says(stack: Running, proxy: str) -> None:
    assert stack.api is not None
    assert httpx.get(f"{proxy}{PREFIX}/ops", auth=("ops", "wrong"), **LOOPBACK).status_code == 401
    assert '"client":"203.0.113.9"' in stack.api.output()


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("GET", "/v1/nope", f"There is nothing at {PREFIX}/v1/nope; see {PREFIX}/docs"),
        ("GET", "/v1/accounts/", f"leave out the slash at its end: {PREFIX}/v1/accounts"),
        ("POST", "/v1/posts", f"POST to {PREFIX}/v1/posts/video or {PREFIX}/v1/posts/slideshow"),
        ("GET", "/v1/posts?/v1/x=1", '"/v1/x" is not a field here'),
    ],
)
def test_a_message_names_paths_as_the_client_asks_for_them(proxy: str, method: str, path: str, words: str) -> None:
    headers = {"Authorization": f"Bearer {factories.SECRET}"}
    said = httpx.request(method, f"{proxy}{PREFIX}{path}", headers=headers, **LOOPBACK).json()["error"]["message"]
    assert words in said


@pytest.mark.parametrize(
    "wrong", ["redraft", "/redraft/", "/", "//host", "/re draft", '/"onclick="', "/a\n", "/..", "/a/./b"]
)
def test_a_prefix_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="it begins with /"):
        Settings(root_path=wrong)
