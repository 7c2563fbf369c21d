"""The bulk lane of two workspaces: one with many jobs gets one turn in two, as does one with a single job."""

from collections import Counter, deque
from typing import Any

import pytest
from sqlalchemy import Engine, text

from shared.broker import queue
from shared.store import reschedule_turns, reschedules
from shared.store.db import transaction
from tests import factories, jobs
from tests.worker.bulk import ALL, chunks_of_three, moved_once, posts
from worker import reschedule, tasks

__all__ = ["chunks_of_three"]

pytestmark = pytest.mark.usefixtures("chunks_of_three")

SHIFT = {"filter": ALL, "shift": "P1D"}
DRY = SHIFT | {"dryRun": True}


class Lane:
    """The messages of the lane, in Redis's order, and which jobs were worked on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.messages: deque[str] = deque()
        self.worked: list[str] = []
        self.steps: Counter[str] = Counter()
        run_chunk = reschedule.run_chunk

        def counted(job_id: str) -> Any:
            ran = run_chunk(job_id)
            if ran.outcome in reschedule.STEPS:
                self.worked.append(job_id)
                self.steps[ran.outcome] += 1
            return ran

        monkeypatch.setattr(reschedule, "run_chunk", counted)
        monkeypatch.setattr(queue, "ring_reschedule", self.ring)

    def ring(self, job_id: str, *_: Any) -> bool:
        self.messages.append(job_id)
        return True

    def start(self, body: dict[str, Any], workspace: str) -> str:
        job = jobs.make(body, workspace)
        self.ring(job)
        return job

    def run(self, most: int = 500) -> int:
        """Serve messages until there are none; how many there were."""
        for served in range(most):
            if not self.messages:
                return served
            tasks.run_chunk(self.messages.popleft())
        raise AssertionError(f"still going on: {self.messages}")


@pytest.fixture
def lane(monkeypatch: pytest.MonkeyPatch) -> Lane:
    return Lane(monkeypatch)


@pytest.fixture(autouse=True)
def _other_workspaces(engine: Engine) -> None:
    with engine.begin() as tx:
        for name in ("quiet", "third"):
            factories.workspace(tx, f"ws_{name}", f"_{name}", f"sk_{name}_0123456789")


def posts_of(engine: Engine, workspace: str, count: int) -> list[str]:
    return posts(engine, count, workspace_id=workspace, account_id=factories.TIKTOK + workspace.removeprefix("ws"))


def test_a_job_of_one_post_does_not_wait_behind_twenty_dry_runs_of_another_workspace(
    engine: Engine, lane: Lane
) -> None:
    posts(engine, 12)
    ours = posts_of(engine, "ws_quiet", 1)
    for _ in range(20):
        lane.start(DRY, factories.WORKSPACE)
    for _ in range(25):
        tasks.run_chunk(lane.messages.popleft())
    job = lane.start(SHIFT, "ws_quiet")
    before = len(lane.worked)
    for _ in range(6):
        tasks.run_chunk(lane.messages.popleft())
    assert jobs.job(job, "ws_quiet").status == "done"
    assert lane.worked[before:].index(job) <= 1, "its first turn is the next but one at the latest"
    lane.run()
    assert moved_once(engine, job, ours)
    assert lane.steps["planned"] == 20 * 4
    assert lane.steps["frozen"] == 21


def test_two_workspaces_have_every_other_turn_whatever_the_number_of_their_jobs(engine: Engine, lane: Lane) -> None:
    posts(engine, 9)
    posts_of(engine, "ws_quiet", 60)
    for _ in range(10):
        lane.start(DRY, factories.WORKSPACE)
    job = lane.start(SHIFT, "ws_quiet")
    lane.run()
    ended = len(lane.worked) - lane.worked[::-1].index(job)
    assert lane.worked.count(job) == 21
    assert 40 <= ended <= 44, "twenty chunks and the freezing of the one, as many of the others, in turn"
    assert len(lane.worked) == 21 + 10 * 4


def test_three_workspaces_take_turns_and_every_message_ends(engine: Engine, lane: Lane) -> None:
    posts(engine, 9)
    posts_of(engine, "ws_quiet", 9)
    posts_of(engine, "ws_third", 9)
    started = [
        lane.start(SHIFT, workspace) for workspace in (factories.WORKSPACE, "ws_quiet", "ws_third") for _ in "ab"
    ]
    lane.run()
    assert lane.steps == {"frozen": 6, "moved": 18}
    for turn in range(0, 12, 3):
        assert len({jobs_workspace(engine, job) for job in lane.worked[turn : turn + 3]}) >= 2
    assert {status(engine, job) for job in started} == {"done"}


def jobs_workspace(engine: Engine, job: str) -> str:
    return str(factories.row(engine, "reschedules", job).workspace_id)


def status(engine: Engine, job: str) -> str:
    return str(factories.row(engine, "reschedules", job).status)


def test_a_message_whose_own_job_was_lost_by_redis_is_made_up_for_by_the_others(engine: Engine, lane: Lane) -> None:
    posts(engine, 9)
    posts_of(engine, "ws_quiet", 3)
    lane.start(SHIFT, factories.WORKSPACE)
    lost = jobs.make(SHIFT, "ws_quiet")
    lane.run()
    assert status(engine, lost) == "done"


def test_a_workspace_alone_goes_on_as_if_there_were_no_turns(engine: Engine, lane: Lane) -> None:
    ids = posts(engine, 9)
    job = lane.start(SHIFT, factories.WORKSPACE)
    assert lane.run() == 4 + 1, "the freezing, three chunks, and the second of two side by side finds nothing"
    assert moved_once(engine, job, ids)


def test_one_job_of_a_workspace_is_frozen_at_a_time_and_another_workspaces_beside_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    posts(engine, 3)
    posts_of(engine, "ws_quiet", 3)
    first, second = (jobs.make(SHIFT) for _ in "ab")
    other = jobs.make(SHIFT, "ws_quiet")
    freeze: Any = reschedule._freeze
    seen: list[Any] = []

    def meanwhile(*args: Any) -> None:
        if not seen:
            seen.append(None)
            seen[:] = [reschedule.run_chunk(second), reschedule.run_chunk(other)]
        freeze(*args)

    monkeypatch.setattr(reschedule, "_freeze", meanwhile)
    assert reschedule.run_chunk(first).outcome == "frozen"
    assert [(one.outcome, one.messages) for one in seen] == [("waits", 1), ("frozen", 1)]
    for job in (first, second):
        jobs.run(job)
        assert status(engine, job) == "done"


def test_whose_turn_it_is(engine: Engine) -> None:
    posts(engine, 9)
    mine, others = jobs.make(SHIFT), [jobs.make(SHIFT, workspace) for workspace in ("ws_quiet", "ws_third")]

    def touched(job: str, seconds: float) -> None:
        with engine.begin() as tx:
            statement = "UPDATE reschedules SET touched_at = created_at + make_interval(secs => :s) WHERE id = :id"
            tx.execute(text(statement), {"id": job, "s": seconds})

    def turn(job: str) -> str | None:
        with transaction() as tx:
            return reschedule_turns.longer_without_a_turn(tx, job)

    assert turn(mine) is None, "nobody has had one yet"
    touched(mine, 10)
    assert turn(mine) == others[0]
    assert turn(others[0]) is None
    touched(others[0], 20)
    assert turn(mine) == others[1]
    touched(others[1], 5)
    assert turn(mine) == others[1]
    touched(others[1], 30)
    assert turn(mine) is None
    assert turn(others[1]) == mine
    assert turn("rsch_of_nobody") is None
    with transaction() as tx:
        reschedules.cancel(tx, factories.WORKSPACE, mine)
    assert turn(mine) is None, "a message for a job that has ended does nothing"
    assert turn(others[1]) == others[0]


def test_a_workspace_keeps_its_last_turn_when_the_job_that_had_it_has_ended(engine: Engine) -> None:
    posts(engine, 3)
    waits = jobs.make(SHIFT)
    other = jobs.make(SHIFT, "ws_quiet")
    done = jobs.make(SHIFT)
    jobs.run(done)
    with transaction() as tx:
        assert reschedule_turns.longer_without_a_turn(tx, other) is None
        assert reschedule_turns.longer_without_a_turn(tx, waits) == other
