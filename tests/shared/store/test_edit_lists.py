"""Operators' lists of edits: each filter, page by page to the end, each edit once, and a cut is told."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import md5
from typing import Any

import pytest
from pydantic_core import to_json
from sqlalchemy import Engine, text

from shared.domain.ids import new_id
from shared.domain.reschedule_jobs import audit_id
from shared.store import edit_lists
from shared.store.db import transaction
from shared.store.edit_lists import EditFilter, EditPage
from tests import factories

NOW = datetime.now(UTC)
# The number g of an edit is its age in minutes, and so its place in a list. Every state and every filter comes often
# enough to fill several pages.
_EDITS = text("""
    INSERT INTO edits (id, post_id, workspace_id, changes, api_key_id, requested_by, request_id, reschedule_id,
        created_at, status, finalized_at, revision, error_code, error_message)
    SELECT r.id, 'post_' || abs(r.g) % 7, CASE r.g % 3 WHEN 0 THEN 'ws_small' ELSE 'ws_large' END, '{}',
        'key_' || r.g % 4, 'name_' || r.g % 4, 'req_' || r.g % 5, r.job,
        r.at, r.status, CASE WHEN r.status <> 'queued' THEN r.at END, CASE WHEN r.status = 'applied' THEN 1 END,
        CASE r.status WHEN 'failed' THEN 'internal' WHEN 'rejected' THEN 'cannot_edit' END,
        CASE r.status WHEN 'failed' THEN 'Boom ' || r.g % 2 WHEN 'rejected' THEN 'Only posts' END
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(id text, g int, at timestamptz, status text, job text)
    ORDER BY r.g DESC""")
STATES = ("applied", "applied", "failed", "rejected", "queued")
COUNT = 120


def made(number: int) -> str:
    at = NOW - timedelta(minutes=number)
    return new_id("edit", at.timestamp())


JOB = new_id("rsch", NOW.timestamp() + 1)
IDS = {number: made(number) for number in range(COUNT)}


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, database_url: str) -> Iterator[Engine]:
    """120 edits of five states, and 300 moves of a bulk job that came after them."""
    rows = [
        {
            "id": IDS[number],
            "g": number,
            "at": (NOW - timedelta(minutes=number)).isoformat(),
            "status": STATES[number % 5],
            "job": None,
        }
        for number in range(COUNT)
    ]
    moves = [
        {
            "id": audit_id(JOB, n),
            "g": -1 - n,
            "at": NOW.isoformat(),
            "status": "applied",
            "job": JOB,
        }
        for n in range(300)
    ]
    with factories.set_up(monkeypatch, database_url) as engine:
        with engine.begin() as tx:
            for number in range(7):
                account = factories.TIKTOK if number % 2 else factories.INSTAGRAM
                factories.post(tx, f"post_{number}", account_id=account)

            tx.execute(_EDITS, {"rows": to_json(rows + moves).decode()})
        yield engine


def walk(wanted: EditFilter, limit: int = 7) -> list[EditPage]:
    """A list's pages, each in a transaction of its own."""
    pages: list[EditPage] = []
    place = None
    while True:
        with transaction() as tx:
            page = edit_lists.page(tx, wanted, place, limit)
        pages.append(page)
        assert len(page.edits) <= limit
        if page.next_place is None:
            return pages
        place = page.next_place


def numbers(wanted: EditFilter) -> list[int]:
    by_id = {edit_id: number for number, edit_id in IDS.items()}
    return [by_id[edit.id] for page in walk(wanted) for edit in page.edits]


FILTERS: list[tuple[dict[str, Any], Any]] = [
    ({}, lambda _: True),
    ({"status": "applied"}, lambda g: STATES[g % 5] == "applied"),
    ({"status": "failed"}, lambda g: g % 5 == 2),
    ({"status": "rejected"}, lambda g: g % 5 == 3),
    ({"status": "queued"}, lambda g: g % 5 == 4),
    ({"workspace_id": "ws_small"}, lambda g: g % 3 == 0),
    ({"workspace_id": "ws_none"}, lambda _: False),
    ({"accounts": (factories.TIKTOK,)}, lambda g: g % 7 % 2 == 1),
    ({"accounts": ()}, lambda _: False),
    ({"key": "key_3"}, lambda g: g % 4 == 3),
    ({"key": "name_2"}, lambda g: g % 4 == 2),
    ({"request_id": "req_1"}, lambda g: g % 5 == 1),
    ({"error": "BOOM 1"}, lambda g: g % 5 == 2 and g % 2 == 1),
    ({"error": "cannot_edit: only"}, lambda g: g % 5 == 3),
    ({"group": md5(b"internal\x1fBoom 0", usedforsecurity=False).hexdigest()}, lambda g: g % 5 == 2 and g % 2 == 0),
    ({"since": NOW - timedelta(minutes=50)}, lambda g: g <= 50),
    ({"until": NOW - timedelta(minutes=50)}, lambda g: g > 50),
    ({"since": NOW - timedelta(minutes=90), "until": NOW - timedelta(minutes=80)}, lambda g: 80 < g <= 90),
    ({"workspace_id": "ws_small", "since": NOW - timedelta(minutes=50)}, lambda g: g % 3 == 0 and g <= 50),
    ({"workspace_id": "ws_small", "until": NOW - timedelta(minutes=50)}, lambda g: g % 3 == 0 and g > 50),
    ({"status": "failed", "workspace_id": "ws_small", "key": "key_0"}, lambda g: g % 5 == 2 and g % 12 == 0),
    ({"status": "queued", "workspace_id": "ws_small"}, lambda g: g % 5 == 4 and g % 3 == 0),
]


@pytest.mark.parametrize("looked_at", [20_000, 8])
@pytest.mark.parametrize(("given", "meant"), FILTERS, ids=[" ".join(map(str, given)) or "all" for given, _ in FILTERS])
def test_a_list_holds_what_its_filter_means_each_once_and_no_moves(
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, Any],
    meant: Any,
    looked_at: int,
) -> None:
    """However little one look sees: a bulk job wrote more rows than that."""
    monkeypatch.setattr(edit_lists, "LOOKED_AT", looked_at)
    expected = [number for number in range(COUNT) if meant(number)]
    if given.get("status") == "queued":
        expected.reverse()
    assert numbers(EditFilter(**given)) == expected


def test_single_edits_are_listed_although_a_job_has_moved_more_posts_than_are_looked_at(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edit_lists, "LOOKED_AT", 10)
    with transaction() as tx:
        page = edit_lists.page(tx, EditFilter(), limit=3)
    assert [edit.id for edit in page.edits] == [IDS[0], IDS[1], IDS[2]]


def test_the_moves_of_a_job_and_of_a_post_are_listed(engine: Engine) -> None:
    moves = [edit for page in walk(EditFilter(job_id=JOB), 50) for edit in page.edits]
    assert (len(moves), {edit.reschedule_id for edit in moves}) == (300, {JOB})
    assert [edit.id for edit in moves] == sorted((edit.id for edit in moves), reverse=True)
    of_post = [edit for page in walk(EditFilter(post_id="post_3")) for edit in page.edits]
    assert {edit.reschedule_id for edit in of_post} == {None, JOB}
    assert [edit.seq for edit in of_post] == sorted((edit.seq for edit in of_post), reverse=True)


def test_a_page_that_was_cut_says_so_and_goes_on(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edit_lists, "LOOKED_AT", 5)
    monkeypatch.setattr(edit_lists, "LOOKS", 2)
    first, *others = walk(EditFilter(error="boom 1"), 50)
    # The first of both looks met the job's moves, and jumped over them.
    assert (first.edits, first.looked_at, first.back_to) == ([], 10, NOW - timedelta(minutes=4))
    assert [edit.id for page in others for edit in page.edits] == [IDS[number] for number in range(7, COUNT, 10)]
    assert {page.looked_at for page in others[:-1]} == {10}
    assert (others[-1].back_to, others[-1].next_place) == (None, None)


def test_a_list_since_a_time_ends_there(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not look through all that is older: 110 edits lie behind."""
    monkeypatch.setattr(edit_lists, "LOOKED_AT", 8)
    monkeypatch.setattr(edit_lists, "LOOKS", 1)
    monkeypatch.setattr(edit_lists, "CLOCKS_APART", 120.0)
    for workspace in (None, "ws_large"):
        pages = walk(EditFilter(since=NOW - timedelta(minutes=10), error="nothing", workspace_id=workspace))
        assert len(pages) <= (200 // 8 if workspace else 0) + 4
        assert pages[-1].edits == []


def test_an_edit_that_comes_in_between_doubles_none(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second statement of a look sees the edit, the first did not."""
    monkeypatch.setattr(edit_lists, "LOOKED_AT", 10)
    looked = edit_lists._end_statement

    def comes_in(*given: Any) -> Any:
        with engine.begin() as other:
            edit_id = factories.edit(other, "post_1", {"caption": "in between"})
            other.execute(text("UPDATE edits SET id = :new WHERE id = :id"), {"id": edit_id, "new": new_id("edit")})
        return looked(*given)

    monkeypatch.setattr(edit_lists, "_end_statement", comes_in)
    found = [edit.id for page in walk(EditFilter(key="key_3"), 50) for edit in page.edits]
    assert found == [IDS[number] for number in range(COUNT) if number % 4 == 3]


def test_a_queue_that_is_longer_than_what_is_put_in_order_says_so(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = COUNT // 5
    for most, told in ((waiting, 0), (waiting - 1, waiting - 1)):
        monkeypatch.setattr(edit_lists, "QUEUE_LOOKED_AT", most)
        with transaction() as tx:
            page = edit_lists.page(tx, EditFilter(status="queued"), limit=100)
        assert (len(page.edits), page.looked_at, page.back_to) == (most, told, None)


@pytest.mark.parametrize("year", [1, 9999])
def test_times_beyond_those_of_any_edit_are_no_error(engine: Engine, year: int) -> None:
    at = datetime(year, 6, 1, tzinfo=UTC)
    assert numbers(EditFilter(since=at)) == ([] if year == 9999 else list(range(COUNT)))
    assert numbers(EditFilter(until=at)) == ([] if year == 1 else list(range(COUNT)))


def test_edits_that_were_requeued_do_not_end_a_list_since_a_time(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are old, and stand among newer ones in the order of a workspace."""
    monkeypatch.setattr(edit_lists, "LOOKED_AT", 8)
    with engine.begin() as tx:
        for number in range(60, 90):
            tx.execute(
                text("UPDATE edits SET seq = DEFAULT WHERE id = :id"),
                {"id": IDS[number]},
            )
    wanted = EditFilter(workspace_id="ws_small", since=NOW - timedelta(minutes=30))
    assert numbers(wanted) == [number for number in range(31) if number % 3 == 0]
