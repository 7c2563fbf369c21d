"""Keeps the posts of an account apart that a bulk job moves: which of a pass's decisions hold (docs/bulk.md)."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection

from shared.domain import reschedule_gaps
from shared.domain.lifecycle import Status
from shared.domain.reschedule_gaps import Mover
from shared.domain.reschedules import Move, Outcome, Reason, ScheduleFacts
from shared.domain.times import Duration
from shared.store import reschedule_neighbours as neighbours_store
from shared.store.reschedule_chunks import Chunk, Work

WAITS = frozenset({Status.PENDING_RENDER.value, Status.GENERATED.value})


class Decision(NamedTuple):
    """What was decided of one post of a chunk."""

    chunk_index: int
    post: ScheduleFacts
    goal: Move | Reason


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """A chunk of a job with a gap, and the account of each of its posts."""

    job: Work
    chunk: Chunk
    gap: Duration
    accounts: Mapping[str, str]


def line_up(tx: Connection, job: Work, chunk: Chunk) -> Neighbourhood | None:
    """Before the posts of a chunk are locked: wait for other jobs with a gap. None for a job without one.

    A dry run waits for no other job: it changes nothing, so no other job has to see it.
    """
    if job.gap is None:
        return None
    accounts = neighbours_store.accounts_of(tx, chunk.post_ids)
    if not job.dry_run:
        neighbours_store.line_up(tx, accounts.values())
    return Neighbourhood(job, chunk, job.gap, accounts)


def keep_apart(
    tx: Connection, around: Neighbourhood, decisions: Sequence[Decision], undecided: Collection[int]
) -> tuple[list[Decision], list[int]]:
    """The decisions of a pass that hold beside the accounts' other posts, and the indexes that must wait.

    `undecided`: indexes of the chunk's posts that this pass does not decide.
    """
    job, chunk, accounts = around.job, around.chunk, around.accounts
    movers, taken, unsure = defaultdict[str, list[Mover]](list), _places(), _places()
    own = {one.post.id for one in decisions}
    for _, post, goal in decisions:
        if isinstance(goal, Move) and goal.at != post.scheduled_time:
            movers[accounts[post.id]].append(Mover(post.id, post.scheduled_time, goal.at))
        elif post.status in WAITS and not post.deleted:
            taken[accounts[post.id]].append(post.scheduled_time)
    planned = _planned(job, chunk)
    for post_id, at in planned.items():
        taken[accounts[post_id]].append(at)
    later = {chunk.post_ids[index] for index in undecided}
    width = reschedule_gaps.gap_of(around.gap)
    windows = {
        account: reschedule_gaps.windows((mover.goal for mover in some), width) for account, some in movers.items()
    }
    for found in neighbours_store.neighbours(tx, job.workspace_id, windows):
        if found.id not in own and found.id not in planned:
            (unsure if found.id in later else taken)[found.account_id].append(found.at)
    too_close, wait = set[str](), set[str]()
    for account, some in movers.items():
        apart = reschedule_gaps.keep_apart(some, taken[account], unsure[account], width)
        too_close |= apart.too_close
        wait |= apart.undecided
    hold = [
        one._replace(goal=Reason.TOO_CLOSE) if one.post.id in too_close else one
        for one in decisions
        if one.post.id not in wait
    ]
    return hold, [one.chunk_index for one in decisions if one.post.id in wait]


def _places() -> defaultdict[str, list[datetime]]:
    return defaultdict(list)


def _planned(job: Work, chunk: Chunk) -> dict[str, datetime]:
    """Where a dry run's earlier passes over the chunk would have put posts, which stand where they stood."""
    if not job.dry_run:
        return {}
    return {
        chunk.post_ids[index]: datetime.fromisoformat(after)
        for index, outcome, _, after, *_ in chunk.outcomes
        if outcome == Outcome.APPLIED
    }
