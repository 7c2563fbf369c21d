"""The bulk lane is shared by workspaces: each message of a bulk job is a turn (docs/fairness.md)."""

import time
from dataclasses import dataclass, field
from typing import Any

import structlog

from shared.store import reschedule_turns as turns_store
from shared.store.db import transaction
from worker import reschedule
from worker.follow_ups import SNOOZE, FollowUps, JobStep
from worker.reschedule import STEPS, Ran

log = structlog.get_logger(__name__)

LEFT_ALONE = 5.0
"""Seconds for which this process gives no turn to a job of which a step failed: each may wait for a lock for long."""

_left_alone: dict[str, float] = {}
"""Those jobs, and until when."""


@dataclass(slots=True)
class Turn:
    """What came of one message: what was done, and what must be rung for."""

    done: list[Ran] = field(default_factory=list)
    follow_ups: FollowUps = field(default_factory=FollowUps)

    def summary(self) -> dict[str, Any]:
        """Of what was done last, for Flower."""
        return self.done[-1].summary()

    def run(self, job_id: str) -> Ran:
        ran = reschedule.run_chunk(job_id)
        self.done.append(ran)
        self.follow_ups.add(ran.follow_ups)
        return ran


def take_turn(job_id: str) -> Turn:
    """One step of this job; or of another workspace's, if that has been without a step for longer.

    A message is a turn, whichever job it names. There are as many messages as jobs, but a workspace with many jobs must
    not get as many turns. A message that gave its turn away goes on at once, or after the rest that single edits get.
    """
    turn, now = Turn(), time.monotonic()
    for one in [one for one, until in _left_alone.items() if until < now]:
        del _left_alone[one]
    with transaction() as tx:
        other = turns_store.longer_without_a_turn(tx, job_id, list(_left_alone))
    if other is not None:
        ran = _run_for_another(other, turn)
        if ran.outcome in STEPS and ran.decided:
            # The other job's own message is still on its way, so only those beyond it are new.
            turn.follow_ups.snooze(ran.delay, *[JobStep(other, ran.shown)] * (ran.messages - 1))
            own_step = JobStep(job_id, f"{job_id} let another workspace go first")
            turn.follow_ups.snooze(SNOOZE if ran.room else 0.0, own_step)
            return turn
    ran = turn.run(job_id)
    turn.follow_ups.snooze(ran.delay, *[JobStep(job_id, ran.shown)] * ran.messages)
    return turn


def _run_for_another(job_id: str, turn: Turn) -> Ran:
    """A step of a job that this message does not name. What is wrong with it is left to its own message, which meets it
    too: here it would stop the jobs of all others, one turn after the other.
    """
    try:
        return turn.run(job_id)
    except Exception as error:  # noqa: BLE001 -- whatever it is, it is not the fault of the job that gave its turn
        log.warning("turn_failed", reschedule_id=job_id, error=type(error).__name__)
        _left_alone[job_id] = time.monotonic() + LEFT_ALONE
        return Ran()
