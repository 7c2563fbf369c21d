"""Cursors tell nothing and nobody else can make one; nothing that the API gives shows what other workspaces do."""

import json
import re
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from api.http.cursors import CURSOR_MAX, Seal
from shared.store import secrets as secrets_store
from tests import factories
from tests.api.answers import client, error, fields
from tests.stack import Running

SEAL, OTHER = Seal(bytes(range(32))), Seal(bytes(range(1, 33)))
AT = datetime(2026, 4, 22, 15, 0, 7, 123_456, tzinfo=UTC)
PLACES: list[tuple[Any, ...]] = [(1,), (2,), (9_223_372_036_854_775_807,), (AT, "post_1"), (AT, "post_2")]


def kinds(place: tuple[Any, ...]) -> list[type]:
    return [type(value) for value in place]


def raw(cursor: str) -> bytes:
    return b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)


def written(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.mark.parametrize("place", PLACES)
def test_a_cursor_is_opened_by_its_seal_for_what_it_was_made_for_and_by_no_other(place: tuple[Any, ...]) -> None:
    cursor = SEAL.close(place, b"list")
    assert SEAL.open(cursor, b"list", kinds(place)) == place
    assert SEAL.open(cursor, b"list2", kinds(place)) is None
    assert OTHER.open(cursor, b"list", kinds(place)) is None
    for wrong in ([*kinds(place), int], [str], [datetime, int], []):
        assert SEAL.open(cursor, b"list", wrong) is None
    data = raw(cursor)
    for at in range(len(data)):
        flipped = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        assert SEAL.open(written(flipped), b"list", kinds(place)) is None
    for strange in (cursor + "=", cursor + "A", cursor[:-1], cursor.replace(cursor[3], "+"), "", "A", "\u00e9"):
        assert SEAL.open(strange, b"list", kinds(place)) is None


@given(st.text(max_size=300) | st.binary(max_size=300).map(written))
def test_no_text_is_more_than_no_cursor(given_text: str) -> None:
    assert SEAL.open(given_text, b"list", [int]) is None


def test_a_cursor_shows_neither_its_place_nor_how_large_that_is() -> None:
    cursors = [SEAL.close((10**power + more,), b"list") for power in range(19) for more in (0, 1)]
    assert len({len(cursor) for cursor in cursors}) == 1
    assert len(cursors[0]) < CURSOR_MAX / 4
    for one, next_one in pairwise(cursors):
        same = sum(a == b for a, b in zip(raw(one), raw(next_one), strict=True))
        assert same < 20, "of 112 bytes chance makes less than one equal"


@pytest.fixture(scope="module")
def tenant(stack: Running) -> Iterator[httpx.Client]:
    with stack.engine.begin() as tx:
        factories.workspace(tx, "ws_alone", "_alone", "sk_alone")
        tx.execute(text("UPDATE api_keys SET rate_limit = 100000 WHERE id = :id"), {"id": f"{factories.KEY_ID}_alone"})
    with client(stack, "sk_alone") as http:
        yield http


def test_every_process_has_the_same_seal_and_its_key_is_in_no_answer(stack: Running, tenant: httpx.Client) -> None:
    with stack.engine.connect() as tx:
        key = secrets_store.secret(tx, secrets_store.CURSORS)
    assert len(key) == 32
    everything = record(tenant)
    cursor = everything.json_at("/v1/edits")["nextCursor"]
    stack.start_api()
    with client(stack, "sk_alone") as elsewhere:
        assert elsewhere.get("/v1/edits", params={"cursor": cursor}).status_code == 200
    for string in everything.strings():
        assert not any(key in decoded or key.hex().encode() in decoded for decoded in decodings(string))


# What an earlier version would have taken: the check had no key, and anybody could work it out.
FORGED = [
    [1],
    [True],
    ["post_1"],
    [None],
    [1.5],
    [10**400],
    [{"t": 1}, "post_1"],
    [{"t": 10**30}, "p"],
    {},
    [[1]],
    [1, 2],
]


@pytest.mark.parametrize("plain", FORGED)
def test_a_forged_cursor_is_a_400(tenant: httpx.Client, plain: Any) -> None:
    data = json.dumps(plain).encode()
    for path in ("/v1/posts", "/v1/edits", "/v1/reschedules"):
        bound = json.dumps(["ws_alone", path, []], separators=(",", ":")).encode()
        check = blake2b(len(bound).to_bytes(4) + bound + data, digest_size=12).digest()
        for forged in (written(check + data), written(data), written(bytes(16) + data)):
            answer = tenant.get(path, params={"cursor": forged})
            assert error(answer, 400)["code"] == "invalid_request"
            assert fields(answer) == ["cursor"]


class Recording:
    """All that the API gave a tenant who did the same things once more."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, httpx.Response]] = []

    def json_at(self, path: str) -> Any:
        return next(answer.json() for asked, answer in self.answers if asked == path)

    def strings(self) -> Iterator[str]:
        """Every value of a header, and every string and number of a body."""
        for _, answer in self.answers:
            yield from answer.headers.values()
            yield from _leaves(answer.json()) if answer.content else ()

    def shape(self) -> list[Any]:
        """The same with the tenant's own ids, times and cursors left out: what must not change with other tenants."""
        return [
            (asked, answer.status_code, _plain(sorted(answer.headers.items())), _plain(answer.text))
            for asked, answer in self.answers
        ]


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for below in value.values():
            yield from _leaves(below)
    elif isinstance(value, list):
        for below in value:
            yield from _leaves(below)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def _plain(value: Any) -> str:
    shown = re.sub(r"\b(post|edit|rsch|req)_[0-9a-z]{26}", r"\1_ID", str(value))
    shown = re.sub(
        r"20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:]{5,8}Z?|\w{3}, [0-9]{2} \w{3} 20[0-9]{2} [0-9:]{8} GMT", "TIME", shown
    )
    shown = re.sub(r'("default");r=[0-9]+;t=[0-9]+', r"\1", shown)
    return re.sub(r'("nextCursor":)"[A-Za-z0-9_-]+"', r"\1CURSOR", shown)


def record(http: httpx.Client) -> Recording:
    recorded = Recording()

    def ask(method: str, path: str, shown: str = "", **given: Any) -> Any:
        answer = http.request(method, path, **given)
        recorded.answers.append((shown or path, answer))
        return answer.json() if answer.content else None

    def page(path: str, shown: str = "") -> None:
        ask("GET", path, shown, params={"limit": "1"})

    accounts = [f"{factories.TIKTOK}_alone", f"{factories.INSTAGRAM}_alone"]
    when = (datetime.now(UTC) + timedelta(days=2)).strftime("%Y-%m-%dT12:00")
    new = {"contentUrl": "https://a.example/b.mp4", "scheduledTime": when, "timezone": "Asia/Tokyo"}
    # One by one: of two that are made together chance says which is listed first.
    posts = [
        ask("POST", "/v1/posts/video", json=new | {"accountIds": [account]})["posts"][0]["postId"]
        for account in accounts
    ]
    one = f"/v1/posts/{posts[0]}"
    for caption in ("a", "b"):
        ask("PATCH", one, "edit", json={"caption": caption})
    ask("PATCH", one, "stale", json={"caption": "c"}, headers={"If-Match": '"1"'})
    queued = ask("PATCH", one, "queued", json={"caption": "d"}, headers={"Prefer": "respond-async"})
    ask("GET", f"/v1/edits/{queued['editId']}", "edit again", headers={"Prefer": "wait=10"})
    ask("GET", one, "post")
    page("/v1/edits")
    page("/v1/posts")
    page(f"{one}/edits", "trail")
    job = {"filter": {"postIds": posts}, "shift": "P1D", "dryRun": True}
    jobs = [ask("POST", "/v1/reschedules", json=job)["id"] for _ in range(2)]
    page("/v1/reschedules", "jobs")
    ask("GET", f"/v1/reschedules/{jobs[0]}/results", "results")
    for job_id in jobs:
        ask("POST", f"/v1/reschedules/{job_id}/cancel", "cancel")
    ask("GET", "/v1/posts", "bad", params={"limit": "0"})
    ask("PATCH", "/v1/posts/post_nowhere", json={"caption": "x"})
    ask("DELETE", "/v1/posts", json={"postIds": posts})
    ask("GET", "/v1/accounts")
    return recorded


def test_nothing_that_the_api_gives_shows_what_other_workspaces_do(stack: Running, tenant: httpx.Client) -> None:
    before = record(tenant)
    # Another workspace works hard: the numbers that all share go up by a trillion.
    with stack.engine.begin() as tx:
        busy = factories.post(tx)
        for number in range(50):
            factories.edit(tx, busy, {"caption": f"secret {number}"})
        tx.execute(text("ALTER TABLE edits ALTER COLUMN seq RESTART WITH 1000000000000"))
    for _ in range(20):
        stack.patch(busy, {"caption": "theirs"})
        stack.http.post("/v1/reschedules", json={"filter": {"postIds": [busy]}, "shift": "P1D", "dryRun": True})
    after = record(tenant)
    assert after.shape() == before.shape()
    assert [len(answer.content) for _, answer in after.answers if "nextCursor" in answer.text] == [
        len(answer.content) for _, answer in before.answers if "nextCursor" in answer.text
    ], "not even the length of a cursor"
    shared = range(1_000_000_000_000, stack.scalar("SELECT max(seq) FROM edits") + 1)
    assert len(shared) >= 20
    tokens = {string for recorded in (before, after) for string in recorded.strings()}
    for token in tokens:
        for decoded in decodings(token):
            for number in shared:
                assert str(number).encode() not in decoded, (token, number)
                assert number.to_bytes(8) not in decoded, (token, number)
                assert number.to_bytes(8, "little") not in decoded, (token, number)
            assert busy.encode() not in decoded
            assert b"ws_test" not in decoded
    # Ids say when they were made, and the rest is chance: no counter that others move too.
    tails = sorted(tail(token) for token in tokens if re.fullmatch(r"(post|edit|rsch|req)_[0-9a-z]{26}", token))
    assert len(tails) > 40
    assert min(b - a for a, b in pairwise(tails)) > 2**40


def decodings(token: str) -> Iterator[bytes]:
    yield token.encode()
    for alphabet in (b"-_", b"+/"):
        try:
            yield b64decode(token + "=" * (-len(token) % 4), altchars=alphabet, validate=True)
        except ValueError:
            continue
    try:
        yield bytes.fromhex(token)
    except ValueError:
        return


def tail(made_id: str) -> int:
    number = 0
    for letter in made_id.rpartition("_")[2]:
        number = number * 32 + "0123456789abcdefghjkmnpqrstvwxyz".index(letter)
    return number & (2**82 - 1)
