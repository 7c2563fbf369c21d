"""Lists of edits on the operators' pages: what they hold, what they leave out, and that a cut is told."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from html import unescape
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from shared.domain.ids import new_id
from shared.domain.reschedule_jobs import audit_id
from shared.local.postgres import PostgreSQL
from shared.local.valkey import Valkey
from shared.store import edit_lists
from tests import factories
from tests.conftest import TEMPLATE, empty_database
from tests.factories import FAILED
from tests.loopback import LOOPBACK
from tests.processes import Process
from tests.stack import Running, running

PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def stack(postgres: PostgreSQL, valkey: Valkey) -> Iterator[Running]:
    """Without any worker, so that rows stay as they are put."""
    url = postgres.create_database("api_ops_edits", template=TEMPLATE)
    with running(url, empty_database(valkey), REDRAFT_OPS_PASSWORD=PASSWORD) as stack:
        yield stack


LOOKED_AT = 200
"""Rows that one statement looks at, where `short_looks` says so."""
assert LOOKED_AT * 100 == edit_lists.LOOKED_AT


@pytest.fixture(scope="module")
def short_looks(stack: Running) -> Process:
    """An API beside the other that looks at a hundredth of the rows."""
    return stack.start_planted("tests.api.ops.short_looks", TEST_LOOKED_AT=str(LOOKED_AT))


@pytest.fixture
def few_looked_at(ops: httpx.Client, short_looks: Process) -> Iterator[httpx.Client]:
    """As `ops`, on the API that looks at few rows."""
    with httpx.Client(base_url=short_looks.url, auth=("ops", PASSWORD), **LOOPBACK, timeout=20) as client:
        yield client


@pytest.fixture
def ops(stack: Running) -> Iterator[httpx.Client]:
    assert stack.api is not None
    with stack.engine.begin() as tx:
        tx.execute(text("TRUNCATE posts, edits, acts, reschedules"))
    with httpx.Client(base_url=stack.api.url, auth=("ops", PASSWORD), **LOOPBACK, timeout=20) as client:
        yield client


def change(stack: Running, statement: str, **given: Any) -> None:
    with stack.engine.begin() as tx:
        tx.execute(text(statement), given)


def edit(stack: Running, post_id: str, changes: dict[str, Any], state: str = FAILED) -> str:
    with stack.engine.begin() as tx:
        edit_id = factories.edit(tx, post_id, changes)
        tx.execute(text(f"UPDATE edits SET {state} WHERE id = :id"), {"id": edit_id})
    return edit_id


JOB = new_id("rsch")


def moves(stack: Running, count: int) -> None:
    """The moves of a bulk job, which came after everything."""
    change(
        stack,
        """INSERT INTO edits (id, post_id, workspace_id, changes, requested_by, reschedule_id, status, finalized_at,
               revision)
           SELECT :prefix || lpad(CAST(g AS text), 7, '0'), 'post_1', 'ws_test', '{"move": {}}', 'tests', :job,
               'applied', now(), 2
           FROM generate_series(1, :count) g""",
        job=JOB,
        prefix=audit_id(JOB, 0)[:-7],
        count=count,
    )


def read(ops: httpx.Client, path: str, status: int = 200) -> str:
    answer = ops.get(path)
    assert answer.status_code == status, answer.text
    return " ".join(unescape(answer.text).split())


def listed(page: str) -> list[str]:
    return re.findall(r'<td role="cell" data-label="edit"><span><a class="id" href="/ops/edits/(\w+)"', page)


def test_after_a_large_bulk_job_the_single_edits_are_there(stack: Running, few_looked_at: httpx.Client) -> None:
    ops = few_looked_at
    single = edit(stack, stack.post(), {"caption": "single"})
    # More than all looks of a page together.
    moves(stack, LOOKED_AT * edit_lists.LOOKS * 5 + 1)
    page = read(ops, "/ops/edits")
    assert listed(page) == [single]
    assert "There are no such edits" not in page
    assert "Moves by bulk jobs are left out" in page
    assert len(listed(read(ops, f"/ops/edits?job={JOB}"))) == 50


def test_a_list_that_is_not_at_its_end_says_so_and_goes_on_to_it(stack: Running, few_looked_at: httpx.Client) -> None:
    """So many moves of this workspace that one page does not look behind them."""
    ops = few_looked_at
    single = edit(stack, stack.post(), {"caption": "single"})
    moves(stack, LOOKED_AT * edit_lists.LOOKS + 10)
    page = read(ops, "/ops/edits?workspace=ws_test")
    assert "There is no such edit among the 2,000 that were looked at" in page
    assert "The list is not at its end" in page
    [further] = re.findall(r'<a class="button" href="(/ops/edits\?[^"]*)">Look further back</a>', page)
    after = read(ops, further)
    assert listed(after) == [single]
    assert "not at its end" not in after
    assert "Look further back" not in after


def test_a_count_that_is_exact_has_no_plus(stack: Running, ops: httpx.Client) -> None:
    change(
        stack,
        """INSERT INTO reschedules (id, workspace_id, api_key_id, requested_by, plan, status, finished_at, total,
               chunks, applied, skipped)
           VALUES ('rsch_1', 'ws_test', 'key', 'tests', '{"shift": "P1D"}', 'done', now(), 70000, 70, 60000, 10000)""",
    )
    page = read(ops, "/ops/jobs/rsch_1")
    assert '<span class="figure">60,000</span> <a href="/ops/edits?job=rsch_1">moved</a>' in page
    assert '<span class="figure">10,000</span> skipped' in page


@pytest.mark.parametrize(("count", "shown"), [(10_000, "10,000"), (10_001, "10,000+")])
def test_a_count_that_ends_early_has_a_plus(stack: Running, ops: httpx.Client, count: int, shown: str) -> None:
    change(
        stack,
        """INSERT INTO edits (id, post_id, workspace_id, changes, requested_by, status, finalized_at, error_code)
           SELECT 'edit_' || g, 'post_1', 'ws_test', '{}', 'tests', 'failed', now(), 'internal'
           FROM generate_series(1, :count) g""",
        count=count,
    )
    assert f'<span class="figure">{shown}</span> failed edits' in read(ops, "/ops")


def test_each_field_of_the_filter_finds_its_edits_and_the_address_keeps_them(stack: Running, ops: httpx.Client) -> None:
    tiktok = edit(stack, stack.post(), {"caption": "a"})
    instagram = edit(stack, stack.post(account_id=factories.INSTAGRAM, platform="instagram"), {"caption": "b"})
    accepted = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    [old, tiktok] = [tiktok, new_id("edit", accepted.timestamp())]
    change(
        stack,
        """UPDATE edits SET request_id = 'trace/7', requested_by = 'studio', api_key_id = 'key_7',
               error_code = 'oddity', error_message = 'Out of memory', created_at = :at, id = :new WHERE id = :id""",
        id=old,
        new=tiktok,
        at=accepted,
    )
    for query in (
        f"account={factories.TIKTOK}",
        "key=studio",
        "key=key_7",
        "request=trace%2F7",
        "error=OUT+of",
        "error=oddity",
        "until=2026-01-02T03:05&since=2026-01-01T00:00",
        "until=2026-01-02T03:05Z&since=2026-01-02T03:04:05Z",
        "status=failed&key=studio",
    ):
        assert listed(read(ops, f"/ops/edits?{query}")) == [tiktok], query
    assert listed(read(ops, "/ops/edits?since=2026-01-02T03:05&status=failed")) == [instagram]
    assert set(listed(read(ops, "/ops/edits?workspace=ws_test"))) == {tiktok, instagram}
    page = read(ops, "/ops/edits?status=failed&key=studio")
    assert "<option selected>failed</option>" in page
    assert 'name="key" value="studio"' in page


def test_a_filter_that_names_nothing_says_so_and_lists_nothing(stack: Running, ops: httpx.Client) -> None:
    edit(stack, stack.post(), {"caption": "a"})
    for query, said in (
        ("workspace=nobody", "There is no workspace nobody."),
        ("account=nobody", "There is no account nobody."),
        ("since=yesterday", "yesterday is no time in UTC, as 2026-03-01T12:00 is."),
        ("status=lost", "There is no status lost."),
        ("key=%00", "No key is \\x00."),
        (f"error={'x' * 256}", "No error is xxx"),
    ):
        page = read(ops, f"/ops/edits?{query}")
        assert said in page
        assert listed(page) == []


def test_the_id_of_a_request_leads_to_its_edits_and_to_its_job(stack: Running, ops: httpx.Client) -> None:
    post = stack.post()
    one, two, three = (edit(stack, post, {"caption": "a"}) for _ in range(3))
    change(stack, "UPDATE edits SET request_id = '8d0c1b6e-6f0c-4b6e-9d2e-0f7a1c2b3d4e' WHERE id = :id", id=one)
    change(stack, "UPDATE edits SET request_id = 'req_several' WHERE id = ANY(:ids)", ids=[two, three])
    change(
        stack,
        """INSERT INTO reschedules (id, workspace_id, api_key_id, requested_by, request_id, plan)
           VALUES ('rsch_7', 'ws_test', 'key', 'tests', 'req_job', '{"shift": "P1D"}')""",
    )
    for given, address in (
        ("8d0c1b6e-6f0c-4b6e-9d2e-0f7a1c2b3d4e", f"/ops/edits/{one}"),
        ('"requestId": "8d0c1b6e-6f0c-4b6e-9d2e-0f7a1c2b3d4e"', f"/ops/edits/{one}"),
        ("req_several", "/ops/edits?request=req_several"),
        ("req_job", "/ops/jobs/rsch_7"),
    ):
        assert ops.get("/ops/search", params={"q": given}).headers["location"] == address
    assert set(listed(read(ops, "/ops/edits?request=req_several"))) == {two, three}
    assert 'href="/ops/edits?request=req_several"' in read(ops, f"/ops/edits/{two}")


def test_an_account_stands_with_its_name_and_a_time_in_the_posts_zone(stack: Running, ops: httpx.Client) -> None:
    change(stack, "UPDATE accounts SET name = 'Coffee & Co' WHERE id = :id", id=factories.TIKTOK)
    at = datetime(2026, 7, 1, 19, 0, tzinfo=UTC)
    post = stack.post(timezone="America/New_York", scheduled_time=at)
    applied = """status = 'applied', finalized_at = now(), revision = 2, before = '{"scheduledTime":
        "2026-12-01T20:00:00Z"}', after = '{"scheduledTime": "2026-07-01T19:00:00Z"}'"""
    moved = edit(stack, post, {"scheduledTime": "2026-07-01T15:00", "timezone": "America/New_York"}, applied)
    page = read(ops, f"/ops/posts/{post}")
    assert f'<span class="id">{factories.TIKTOK}</span> <span class="muted">(Coffee & Co)</span>' in page
    assert "(2026-07-01 15:00 America/New_York)" in page
    stack.post(timezone="Asia/Tokyo", scheduled_time=datetime(2026, 1, 1, 3, 0, tzinfo=UTC))
    assert "(2026-01-01 12:00 Asia/Tokyo)" in read(ops, "/ops/late")
    page = read(ops, f"/ops/edits/{moved}")
    assert "(Coffee & Co)" in page
    for local in ("(2026-12-01 15:00 America/New_York)", "(2026-07-01 15:00 America/New_York)"):
        assert local in page
