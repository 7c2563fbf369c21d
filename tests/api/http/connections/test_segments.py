"""Over real sockets: a request that offers an upgrade, with its body in later segments, with a key and without one."""

import json
import sys

import pytest

from tests.api.http.connections.driven import pieces
from tests.api.http.connections.peers import NOBODY, ONE, OTHER, Peer, Tenant
from tests.stack import Running

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux says in /proc when a server has read a segment"
)

OFFER = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")


@pytest.fixture
def port(stack: Running) -> int:
    assert stack.api is not None
    return stack.api.port or 0


def patched(tenant: Tenant, post: str, body: bytes, *more: str, chunked: bool) -> tuple[bytes, bytes]:
    """Head and body of a PATCH that offers an upgrade."""
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    head = tenant.head("PATCH", f"/v1/posts/{post}", *OFFER, "Content-Type: application/json", framing, *more) + b"\r\n"
    return head, b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if chunked else body


@pytest.mark.parametrize("chunked", [False, True], ids=["counted", "chunked"])
@pytest.mark.parametrize("size", [1_000_000, 40, 9])
def test_a_patch_that_offers_an_upgrade_is_applied(stack: Running, port: int, chunked: bool, size: int) -> None:
    post = stack.post()
    head, body = patched(ONE, post, json.dumps({"caption": f"{size} {chunked}"}).encode(), chunked=chunked)
    with Peer(port) as peer:
        answer = peer.send(head, *pieces(body, size), ONE.head("GET", "/v1/accounts") + b"\r\n").answer()
        assert (answer.status, answer.json["caption"]) == (200, f"{size} {chunked}")
        after = peer.answer()
        assert {account["accountId"] for account in after.json["data"]} == ONE.accounts


@pytest.mark.parametrize("chunked", [False, True], ids=["counted", "chunked"])
@pytest.mark.parametrize("tenant", [ONE, NOBODY], ids=["a key", "no key"])
@pytest.mark.parametrize("size", [1_000_000, 7])
def test_what_stands_in_a_body_is_no_request(
    stack: Running, port: int, tenant: Tenant, chunked: bool, size: int
) -> None:
    inner = OTHER.head("GET", "/v1/accounts", "X-Request-Id: smuggled") + b"\r\n"
    head, body = patched(tenant, "post_none", inner, "X-Request-Id: outer", chunked=chunked)
    with Peer(port) as peer:
        peer.send(head, *pieces(body, size), ONE.head("GET", "/v1/accounts", "X-Request-Id: next") + b"\r\n")
        outer, after = peer.answer(), peer.answer()
        assert (outer.status, outer.headers["x-request-id"]) == (401 if tenant is NOBODY else 400, "outer")
        assert (after.status, after.headers["x-request-id"]) == (200, "next")
        assert {account["accountId"] for account in after.json["data"]} == ONE.accounts
