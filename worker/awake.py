"""An awake worker: woken by one Celery message, it empties the list of doorbells before it sleeps again.

shared/broker/doorbells.py holds the list, shared/broker/hands.py what each worker has in hand. A task stays awake for a
short time only: so Flower sees it live, a warm shutdown waits for it, and its time limit holds.
"""

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import structlog

from shared import task_names
from shared.broker import answers, contended_posts, doorbells, hands, queue, worker_metrics
from shared.broker.answers import Announcement
from shared.broker.doorbells import Bell
from shared.broker.hands import AT_ONCE, Hand
from shared.broker.queue import DOORBELL_POSTS
from shared.domain.queued_edits import EditResult
from shared.settings import settings
from shared.store import StaleWriteError, db
from shared.store import edits as edits_store
from shared.telemetry import tracing
from worker.apply import Applied, apply_edits
from worker.follow_ups import FollowUps

LINGER = 0.05
"""Seconds that a worker waits for the next doorbell."""

WORKS_FOR = 1.0
"""Seconds after which a task takes the last doorbells and ends."""

DEAD_AFTER = 60.0
"""Seconds, or the grace where that is longer: longer than the time limit of a task."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Served:
    """What a task did, in small numbers for Flower: `{"applied": 412, "doorbells": 31}`."""

    counts: Counter[str] = field(default_factory=Counter)
    doorbells: int = 0

    def summary(self) -> dict[str, int]:
        """As the task returns it. A lone doorbell is not worth a number."""
        return dict(self.counts) | ({"doorbells": self.doorbells} if self.doorbells > 1 else {})


def serve(first: Bell, hand: Hand | None = None) -> dict[str, int | str]:
    """Apply what this doorbell stands for, and then what the list holds, until it is empty for a moment.

    An error ends the task: the doorbells in hand are sent again, a second or two later, as messages. A fault of our own
    is raised, and has cost its edits an attempt (worker/attempts.py).
    """
    hand, served = hand or own_hand(), Served()
    until = time.monotonic() + WORKS_FOR
    bells, others = hand.take_up(first)
    # Without Redis nothing is on record: the attempts are counted before the work instead, and the task ends after it.
    # It takes back its sign all the same: perhaps only the reply was lost.
    awake, on_record = True, bool(bells)
    until += 0.0 if on_record else -WORKS_FOR
    bells = bells or [first]
    try:
        # Celery hands a message out again when the process that had it is dead.
        for process in filter(worker_metrics.is_dead, others):
            _recover(Hand(process))
        while bells:
            due = _apply(bells, served, until, on_record=on_record)
            if awake and time.monotonic() < until and not hand.messages_wait:
                bells = hand.answer_and_take(due, LINGER)
                if not bells:
                    awake, bells = False, _fall_asleep(hand)
            elif awake:
                awake, bells = False, _fall_asleep(hand, due)
            else:
                bells = []
                hand.drop(due)
    except Exception as error:
        # Doorbells of other processes may be in hand beside the one at fault.
        _leave_to_others(bells, 1 + random.random())  # noqa: S311  -- spread only
        _stop(hand)
        if not (db.is_transient(error) or isinstance(error, StaleWriteError)):
            raise
        log.warning("task_put_off", task=task_names.EDITS_APPLY, error=type(error).__name__)
        return {**served.summary(), "put_off": type(error).__name__}
    return {**served.summary()}


def _fall_asleep(hand: Hand, due: Sequence[Announcement] = ()) -> list[Bell]:
    """The last doorbells of this task. What is more than it takes at once is left to other tasks."""
    bells = hand.fall_asleep(due)
    _leave_to_others(bells[AT_ONCE:])
    return bells[:AT_ONCE]


def _stop(hand: Hand) -> None:
    """An error ends this task. What came into the list for this worker must not wait there: other tasks do it."""
    _leave_to_others(hand.fall_asleep())
    hand.drop()


def _leave_to_others(bells: Sequence[Bell], seconds: float = 0) -> None:
    follow_ups = FollowUps()
    follow_ups.snooze(seconds, *bells)
    follow_ups.send()


def own_hand() -> Hand:
    """The hand of this process."""
    return Hand(worker_metrics.process_name())


def recover_dead() -> int:
    """Find what dead workers had in hand, for those that no worker of the same name follows. Returned: how many.

    Where a death cannot be seen, a worker is dead when nothing moved in its hand for DEAD_AFTER.
    """
    dead, patience = 0, max(DEAD_AFTER, settings().grace)
    for process, idle in hands.by_idle_time().items():
        if worker_metrics.is_dead(process) or idle > patience:
            _recover(Hand(process))
            dead += 1
    return dead


def _recover(hand: Hand) -> None:
    """Count an attempt for each edit behind a dead worker's doorbells that was not tried yet, and ring for their posts.

    An edit that was tried before is counted before each of its runs. A death right here counts nothing twice, since
    only edits without an attempt are counted, and rings twice at most.
    """
    posts = doorbells.posts_of(hand.left())
    if posts:
        with db.autocommit_relaxed() as relaxed:
            counted = edits_store.count_deaths(relaxed, list(posts), hand.idle())
        log.warning("worker_died", process=hand.process, posts=queue.readable(list(posts)), edits=counted)
        FollowUps(edits=list(posts)).send(posts)
    hand.drop()


def _apply(bells: Sequence[Bell], served: Served, until: float, *, on_record: bool) -> list[Announcement]:
    """Apply what these doorbells stand for. Returned: the answers that are still to be given.

    A slow batch may use up the time of the task, and each of several would bring it nearer to its time limit. So once
    the time is over (`until`, in monotonic seconds), the other batches are left to other tasks.
    """
    due: list[Announcement] = []
    for number, batch in enumerate(_batches(bells)):
        if number and time.monotonic() >= until:
            _leave_to_others(batch)
            continue
        answers.announce(due)
        addresses = doorbells.posts_of(batch)
        with tracing.doorbells(task_names.EDITS_APPLY, [trace for bell in batch for trace in bell.traces]):
            applied = apply_edits(
                addresses,
                partial(_announce, batch),
                contended_posts.known,
                on_record=on_record,
            )
            due = _answers(batch, applied, applied.results[applied.announced :])
            if applied.follow_ups:
                # The answers come first: their clients wait.
                answers.announce(due)
                due = []
                applied.follow_ups.send(addresses)
        served.counts.update(applied.summary())
        served.doorbells += len(batch)
    return due


def _announce(batch: Sequence[Bell], so_far: Applied) -> None:
    answers.announce(_answers(batch, so_far, so_far.results, more=True))


def _batches(bells: Sequence[Bell]) -> Iterator[list[Bell]]:
    """Doorbells that are applied together: as many as name the posts of one full doorbell."""
    batch: list[Bell] = []
    posts = 0
    for bell in bells:
        if batch and posts + len(bell.post_ids) > DOORBELL_POSTS:
            yield batch
            batch, posts = [], 0
        batch.append(bell)
        posts += len(bell.post_ids)
    if batch:
        yield batch


def _answers(
    batch: Sequence[Bell], applied: Applied, results: Sequence[EditResult], *, more: bool = False
) -> list[Announcement]:
    """One answer for each doorbell, with the results of its posts."""
    if len(batch) == 1:
        made = [answers.announcement(batch[0].reply_to, results, more=more)]
    else:
        post_of = {edit.id: edit.post_id for edit in applied.read}
        of_posts = [(set(bell.post_ids), bell) for bell in batch]
        made = [
            answers.announcement(bell.reply_to, [one for one in results if post_of[one.id] in posts], more=more)
            for posts, bell in of_posts
        ]
    return [answer for answer in made if answer]
