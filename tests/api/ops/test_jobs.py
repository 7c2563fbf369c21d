"""A bulk job's page: what it means, what was not moved and why, its results, cancel and revert."""

import re
from collections.abc import Iterator

import httpx
import pytest
from sqlalchemy import text

from shared.local.postgres import PostgreSQL
from shared.local.valkey import Valkey
from tests import factories
from tests.api.ops.test_pages import OURS, read
from tests.conftest import TEMPLATE, empty_database
from tests.loopback import LOOPBACK
from tests.stack import Running, running
from tests.waiting import eventually

PASSWORD = "operators-only"


@pytest.fixture(scope="module")
def stack(postgres: PostgreSQL, valkey: Valkey) -> Iterator[Running]:
    url = postgres.create_database("api_ops_jobs", template=TEMPLATE)
    with running(url, empty_database(valkey), REDRAFT_OPS_PASSWORD=PASSWORD) as stack:
        yield stack


@pytest.fixture(scope="module")
def ops(stack: Running) -> Iterator[httpx.Client]:
    assert stack.api is not None
    with httpx.Client(base_url=stack.api.url, auth=("ops", PASSWORD), **LOOPBACK, timeout=10) as client:
        yield client


@pytest.fixture(scope="module")
def done(stack: Running) -> tuple[str, str, str]:
    """A job that has moved one post and not another one: their ids."""
    moved, posted = stack.post(), stack.post(status="posted", posted_at=factories.soon(-60))
    job = started(stack, [moved, posted, "post_unknown"])
    stack.start_worker("bulk")
    eventually(lambda: stack.http.get(f"/v1/reschedules/{job}").json()["status"] == "done", within=30)
    stack.workers["bulk"].close()
    return job, moved, posted


def started(stack: Running, posts: list[str]) -> str:
    made = stack.http.post("/v1/reschedules", json={"filter": {"postIds": posts}, "shift": "P1D"})
    assert made.status_code == 202, made.text
    return str(made.json()["id"])


def form(ops: httpx.Client, job: str, act: str) -> dict[str, str]:
    page = read(ops, f"/ops/jobs/{job}")
    found = re.search(rf'action="/ops/jobs/{job}/{act}">(.*?)</form>', page, re.DOTALL)
    assert found, page
    return dict(re.findall(r'name="(\w+)" value="([^"]*)"', found[1]))


def has(ops: httpx.Client, job: str, act: str) -> bool:
    return f"/ops/jobs/{job}/{act}" in read(ops, f"/ops/jobs/{job}")


def test_what_was_not_moved_stands_there_with_its_reason(
    stack: Running, ops: httpx.Client, done: tuple[str, str, str]
) -> None:
    job, moved, posted = done
    page = " ".join(read(ops, f"/ops/jobs/{job}").split())
    assert f"3 posts by id: {moved}, {posted}, post_unknown" in page
    for sentence, post in (("it has been posted already", posted), ("there is no such post", "post_unknown")):
        assert re.search(rf"{sentence}</span></td> <td [^>]*><span><a class=\"id\" href=\"/ops/posts/{post}\"", page)


def test_posts_that_had_their_times_already_are_no_moves(
    stack: Running, ops: httpx.Client, done: tuple[str, str, str]
) -> None:
    job = done[0]
    counted = "UPDATE reschedules SET unchanged = :many WHERE id = :job RETURNING applied"
    with stack.engine.begin() as tx:
        assert tx.execute(text(counted), {"many": 1, "job": job}).scalar() == 1
    page = " ".join(read(ops, f"/ops/jobs/{job}").split())
    assert '<span class="figure">0</span> moved' in page
    assert '<span class="figure">1</span> had its time already' in page
    assert not has(ops, job, "revert"), "it moved nothing"
    with stack.engine.begin() as tx:
        tx.execute(text(counted), {"many": 0, "job": job})
    assert has(ops, job, "revert")


def test_posts_of_one_minute_are_told_with_one_of_them(stack: Running, ops: httpx.Client) -> None:
    first, second = (stack.post(scheduled_time=f"2030-05-01T09:00:{number}0Z") for number in (1, 2))
    body = {"filter": {"postIds": [first, second]}, "shift": "P1D", "dryRun": True}
    ids = [stack.http.post("/v1/reschedules", json=body | more).json()["id"] for more in ({}, {"minGap": "PT30M"})]
    stack.start_worker("bulk")
    eventually(
        lambda: all(stack.http.get(f"/v1/reschedules/{one}").json()["status"] == "done" for one in ids), within=30
    )
    stack.workers["bulk"].close()
    warned, apart = (" ".join(read(ops, f"/ops/jobs/{one}").split()) for one in ids)
    assert "2 posts go out in the same minute as another post of their account" in warned
    assert "nearer than <code>PT30M</code>" not in warned
    assert "no two posts of an account nearer than <code>PT30M</code>" in apart
    assert "it would be too near to another post of its account" in apart
    assert "same minute" not in apart


def test_its_results_are_those_that_a_client_gets(
    stack: Running, ops: httpx.Client, done: tuple[str, str, str]
) -> None:
    job, *_ = done
    theirs = stack.http.get(f"/v1/reschedules/{job}/results", headers={"Accept": "text/csv"})
    ours = ops.get(f"/ops/jobs/{job}/results.csv")
    assert ours.content == theirs.content
    assert ours.content.count(b"\r\n") == 4
    assert ours.headers["content-disposition"] == f'attachment; filename="{job}.csv"'
    assert ours.headers["x-content-type-options"] == "nosniff"
    assert ops.get("/ops/jobs/rsch_unknown/results.csv").status_code == 404


def test_a_job_that_waits_is_canceled_once_and_by_name(stack: Running, ops: httpx.Client) -> None:
    job = started(stack, [stack.post()])
    agreed = form(ops, job, "cancel")
    first = ops.post(f"/ops/jobs/{job}/cancel", data=agreed, headers=OURS)
    assert (first.status_code, first.headers["location"]) == (303, f"/ops/jobs/{job}?done=canceled")
    assert stack.row("reschedules", job).status == "canceled"
    assert "canceled by ops; before: queued" in read(ops, first.headers["location"])
    second = ops.post(f"/ops/jobs/{job}/cancel", data=agreed, headers=OURS)
    assert second.status_code == 409
    assert "It has changed since you looked" in second.text
    assert stack.scalar("SELECT count(*) FROM acts WHERE subject_id = :id", id=job) == 1
    assert not has(ops, job, "cancel")
    assert not has(ops, job, "revert"), "it moved nothing"


def test_a_job_is_reverted_once_by_a_job_of_the_operators(
    stack: Running, ops: httpx.Client, done: tuple[str, str, str]
) -> None:
    job, moved, _ = done
    agreed = form(ops, job, "revert")
    assert not has(ops, job, "cancel")
    answer = ops.post(f"/ops/jobs/{job}/revert", data=agreed, headers=OURS)
    assert answer.status_code == 303
    made = answer.headers["location"].removeprefix("/ops/jobs/").partition("?")[0]
    row = stack.row("reschedules", made)
    assert (row.reverts, row.requested_by, row.workspace_id, row.api_key_id) == (job, "ops", "ws_test", "key_test")
    again = ops.post(f"/ops/jobs/{job}/revert", data=agreed, headers=OURS)
    assert again.status_code == 409
    assert f"reverted already, by {made}" in again.text
    assert f'reverted by</dt><dd><a class="id" href="/ops/jobs/{made}"' in read(ops, f"/ops/jobs/{job}")
    assert not has(ops, job, "revert")
    before = stack.row("posts", moved).scheduled_time
    stack.start_worker("bulk")
    eventually(lambda: stack.http.get(f"/v1/reschedules/{made}").json()["status"] == "done", within=30)
    stack.workers["bulk"].close()
    assert stack.row("posts", moved).scheduled_time < before


@pytest.mark.parametrize("act", ["cancel", "revert"])
def test_a_form_from_elsewhere_does_nothing(stack: Running, ops: httpx.Client, act: str) -> None:
    job = started(stack, [stack.post()])
    for data, headers in (({"token": "1.x"}, OURS), (form(ops, job, "cancel"), {"Sec-Fetch-Site": "cross-site"})):
        assert ops.post(f"/ops/jobs/{job}/{act}", data=data, headers=headers).status_code == 403
    assert stack.row("reschedules", job).status == "queued"
    with stack.engine.begin() as tx:
        tx.execute(text("UPDATE reschedules SET status = 'canceled', finished_at = now() WHERE id = :id"), {"id": job})


def test_unknown_jobs_are_told_of(ops: httpx.Client) -> None:
    page = read(ops, "/ops/jobs/rsch_unknown", 404)
    assert "There is no bulk job rsch_unknown." in page
