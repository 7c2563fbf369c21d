"""Requests that wait for a bulk job: one look-up for all, a share for each workspace, and an answer as the API ends."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime

import pytest

from api import job_waiting, reschedules
from api.http.headers import Preference
from api.job_waiting import JobWaiting
from shared.domain.errors import Unavailable
from shared.domain.reschedule_jobs import Job, JobStatus
from tests.waiting import until

Run = Callable[[], Awaitable[None]]


class Jobs:
    """The jobs as the database has them. `looks`: what was asked, once for each look."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ended: set[str] = set()
        self.looks: list[list[str]] = []
        self.fails = 0
        monkeypatch.setattr(job_waiting, "_ended", self.look)
        monkeypatch.setattr(job_waiting, "LOOK", 0.01)

    def look(self, job_ids: Sequence[str]) -> list[str]:
        self.looks.append(list(job_ids))
        if self.fails:
            self.fails -= 1
            raise OSError
        return [one for one in job_ids if one in self.ended]


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    return Jobs(monkeypatch)


async def looked(jobs: Jobs, times: int = 2) -> None:
    """So many more looks are over."""
    aim = len(jobs.looks) + times
    await until(lambda: len(jobs.looks) >= aim)


def test_all_requests_share_one_look_up_and_hold_no_thread(jobs: Jobs) -> None:
    async def run() -> None:
        waiting = JobWaiting(100)
        many = [asyncio.ensure_future(waiting.wait(f"rsch_{number % 7}", 30, "ws")) for number in range(70)]
        await looked(jobs)
        assert sum(thread.name.startswith("jobs") for thread in threading.enumerate()) == 1
        assert sorted(jobs.looks[-1]) == [f"rsch_{number}" for number in range(7)]
        assert len(waiting) == 70
        jobs.ended.add("rsch_3")
        await asyncio.gather(*many[3::7])
        assert len(waiting) == 60
        assert not any(one.done() for one in many[4::7])
        jobs.ended |= {f"rsch_{number}" for number in range(7)}
        await asyncio.gather(*many)
        await until(lambda: waiting._looking is None)
        await waiting.wait("rsch_3", 30, "ws")
        await waiting.close()

    asyncio.run(asyncio.wait_for(run(), 20))


def test_a_wait_ends_with_its_time(jobs: Jobs) -> None:
    async def run() -> None:
        waiting = JobWaiting(100)
        await waiting.wait("rsch_1", 0.05, "ws")
        await waiting.wait("rsch_1", 0, "ws")
        assert len(waiting) == 0
        await waiting.close()

    asyncio.run(asyncio.wait_for(run(), 20))
    assert jobs.looks


def test_a_workspace_takes_its_share_and_is_answered_at_once_beyond_it(jobs: Jobs) -> None:
    async def run() -> None:
        waiting = JobWaiting(8)
        many = [asyncio.ensure_future(waiting.wait("rsch_1", 30, "ws_flood")) for _ in range(20)]
        await looked(jobs)
        assert [one.done() for one in many].count(False) == len(waiting) < 8
        held = len(waiting)
        other = asyncio.ensure_future(waiting.wait("rsch_2", 30, "ws_small"))
        await looked(jobs)
        assert (len(waiting), other.done()) == (held + 1, False)
        jobs.ended |= {"rsch_1", "rsch_2"}
        await asyncio.gather(*many, other)
        assert len(waiting) == 0
        await waiting.close()

    asyncio.run(asyncio.wait_for(run(), 20))


def test_a_look_up_that_fails_is_made_again(jobs: Jobs) -> None:
    async def run() -> None:
        waiting = JobWaiting(8)
        jobs.fails = 3
        one = asyncio.ensure_future(waiting.wait("rsch_1", 30, "ws"))
        await looked(jobs, 4)
        jobs.ended.add("rsch_1")
        await one
        await waiting.close()

    asyncio.run(asyncio.wait_for(run(), 20))


def test_a_request_whose_client_has_gone_gives_its_place_back(jobs: Jobs) -> None:
    async def run() -> None:
        waiting = JobWaiting(8)
        one = asyncio.ensure_future(waiting.wait("rsch_1", 30, "ws"))
        await looked(jobs)
        one.cancel()
        with suppress(asyncio.CancelledError):
            await one
        assert len(waiting) == 0
        await waiting.close()

    asyncio.run(asyncio.wait_for(run(), 20))


class Away:
    """The database is away after the wait."""

    job_waiting = JobWaiting()

    async def read(self, *_: object) -> None:
        raise Unavailable


def test_a_job_is_answered_as_it_was_if_it_cannot_be_read_after_the_wait(jobs: Jobs) -> None:
    """It is recorded: after an error its client would start another one."""
    job = Job("rsch_1", JobStatus.QUEUED, False, None, 0, 0, 0, 0, datetime.now(UTC), None)
    waited = reschedules._waited_for(Away(), "ws", job, Preference(wait=0.05))  # type: ignore[arg-type]
    assert asyncio.run(waited) == job
    assert jobs.looks


def test_as_the_process_ends_all_are_answered_and_no_more_wait(jobs: Jobs) -> None:
    async def run() -> None:
        waiting = JobWaiting(8)
        many = [asyncio.ensure_future(waiting.wait("rsch_1", 30, "ws")) for _ in range(3)]
        await looked(jobs)
        waiting.answer_all()
        await asyncio.gather(*many)
        await waiting.wait("rsch_1", 30, "ws")
        await waiting.close()

    asyncio.run(asyncio.wait_for(run(), 20))
