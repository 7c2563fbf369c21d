"""Holds of accounts and workspaces: to take one, and to end one without a burst (docs/lifecycle.md).

holds.py has the lock and the holds of single posts.
"""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Final

from sqlalchemy import Connection, text

from shared.domain import events
from shared.domain.errors import Unavailable
from shared.domain.holds import WAITING, Hold, Level
from shared.store import acts as acts_store
from shared.store import holds as holds_store
from shared.store import posts as posts_store
from shared.store import webhooks as webhooks_store
from shared.store.acts import Act, Actor
from shared.store.hold_tables import HELD_BY_ITSELF, HELD_BY_SCOPE, NOT_HELD_BY_ITSELF
from shared.store.holds import goes_by

NAMED_AT_MOST: Final = 1000
"""Posts under a claim that the answer to a hold names; it counts all of them."""
TOGETHER: Final = 1000
"""Posts in one transaction of a resume."""
TRIES: Final = 5
"""Tries of a resume to end a hold while another session has locked a post that is past its time."""
ROUNDS: Final = 3
"""Rounds in which a resume looks for missed posts that another session has locked."""
PAUSE: Final = 0.2
"""Seconds between two such tries or rounds. No lock is kept meanwhile."""


@dataclass(frozen=True, slots=True)
class Scope:
    """An account, or a whole workspace where `account_id` is None."""

    workspace_id: str
    account_id: str | None = None

    @property
    def level(self) -> Level:
        return Level.WORKSPACE if self.account_id is None else Level.ACCOUNT

    @property
    def id(self) -> str:
        return self.account_id or self.workspace_id

    def given(self) -> dict[str, str | None]:
        """The parameters of the statements."""
        return {"workspace": self.workspace_id, "account": self.account_id}


_OF = text("""
    SELECT held_at, held_by, reason FROM holds
    WHERE workspace_id = :workspace AND account_id IS NOT DISTINCT FROM CAST(:account AS text)""")


def of(tx: Connection, scope: Scope) -> Hold | None:
    """The hold of an account by itself, or of a workspace."""
    row = tx.execute(_OF, scope.given()).one_or_none()
    return Hold(scope.level, *row) if row else None


def above(tx: Connection, scope: Scope) -> Hold | None:
    """The hold of an account's workspace."""
    return of(tx, Scope(scope.workspace_id)) if scope.account_id is not None else None


# PostgreSQL's lock_timeout bounds this wait: a claim holds the lock for some milliseconds.
_LOCK_ALONE = text(f"SELECT pg_advisory_xact_lock({holds_store.LOCK}, hashtext(:workspace))")


def _lock_alone(tx: Connection, scope: Scope) -> None:
    tx.execute(_LOCK_ALONE, {"workspace": scope.workspace_id})


@dataclass(frozen=True, slots=True)
class Taken:
    """A hold that stands, and the posts that a publish claim had already. `going_out` names NAMED_AT_MOST of them."""

    hold: Hold
    going_out: list[str]
    going_out_total: int
    webhooks: list[str]


_TAKE = text("""
    INSERT INTO holds (workspace_id, account_id, held_at, held_by, reason)
    VALUES (:workspace, :account, clock_timestamp(), :by, :reason)
    ON CONFLICT (workspace_id, account_id) DO UPDATE SET reason = coalesce(excluded.reason, holds.reason)""")
# ix_posts_claims
_GOING_OUT = text("""
    SELECT id, count(*) OVER () FROM posts WHERE claim_kind = 'publish' AND workspace_id = :workspace
        AND (CAST(:account AS text) IS NULL OR account_id = :account)
    ORDER BY id LIMIT :limit""")


def take(tx: Connection, scope: Scope, actor: Actor, reason: str | None) -> Taken:
    """Hold an account or a workspace. Once this is committed, no publish claims a post of it. A hold that stands keeps
    its beginning, and gets the new reason if there is one.
    """
    _lock_alone(tx, scope)
    before = of(tx, scope)
    webhooks: list[str] = []
    if before is None or (reason is not None and before.reason != reason):
        tx.execute(_TAKE, scope.given() | {"by": actor.name, "reason": reason})
        acts_store.record(tx, actor, [_act(acts_store.HOLD, scope, before)])
    hold = of(tx, scope)
    assert hold is not None  # noqa: S101  -- it was written above
    if before != hold:
        webhooks = webhooks_store.record(tx, [events.scope_held(scope.workspace_id, scope.account_id, hold)])
    rows = tx.execute(_GOING_OUT, scope.given() | {"limit": NAMED_AT_MOST}).all()
    return Taken(hold, [row[0] for row in rows], rows[0][1] if rows else 0, webhooks)


def _act(action: str, scope: Scope, before: Hold | None) -> Act:
    state = "held" if before else "not held"
    return Act(action, scope.level.value, scope.id, scope.workspace_id, state, {"held": before and before.public()})


_MINE = "workspace_id = :workspace AND (CAST(:account AS text) IS NULL OR account_id = :account)"
# Not now(): the transaction may have waited for the lock since then. An index can be searched for this one too.
_LATE = f"deleted_at IS NULL AND {NOT_HELD_BY_ITSELF} AND scheduled_time <= statement_timestamp()"
# IS TRUE: ix_posts_schedule is of no use here. It would pass over all posts that the workspace has published.
_MINE_OF_FEW = f"({_MINE}) IS TRUE"
# ix_posts_free, ix_posts_unrendered, ix_posts_claims
_OVERDUE = text(f"""
    (SELECT id FROM posts WHERE status = 'generated' AND claim_kind IS NULL
        AND {_LATE} AND {_MINE_OF_FEW} ORDER BY scheduled_time LIMIT :limit)
    UNION ALL (SELECT id FROM posts WHERE status = 'pending_render' AND claim_kind IS NULL
        AND {_LATE} AND {_MINE_OF_FEW} ORDER BY scheduled_time LIMIT :limit)
    UNION ALL (SELECT id FROM posts WHERE claim_kind = 'render' AND {_LATE} AND {_MINE_OF_FEW} LIMIT :limit)
    LIMIT :limit""")
_OF_MISSED = f"{HELD_BY_ITSELF} AND held_at IS NULL AND status IN ('generated', 'pending_render') AND {_MINE}"
_MISSED = text(f"""
    SELECT id FROM posts
    WHERE {_OF_MISSED} AND NOT {HELD_BY_SCOPE} AND id <> ALL(CAST(:passed AS text[])) LIMIT :limit""")
_COUNT_MISSED = text(f"""
    SELECT count(*) FROM posts
    WHERE {_OF_MISSED} AND missed_at >= :since""")
_END = text("""
    DELETE FROM holds WHERE workspace_id = :workspace AND account_id IS NOT DISTINCT FROM CAST(:account AS text)""")


@dataclass(frozen=True, slots=True)
class Step:
    """One transaction of a resume. `more`: it is to be run again. `missed`: how many posts stay held, since their time
    went by under the hold that this step ended; `released`: posts that go out now; `webhooks`: to ring for; `locked`:
    posts that it passed over, since other sessions have locked them.
    """

    more: bool = False
    missed: int = 0
    released: int = 0
    webhooks: tuple[str, ...] = ()
    locked: tuple[str, ...] = ()

    @property
    def waits(self) -> bool:
        """Whether the next transaction comes after a pause, so that others let go of their locks."""
        return bool(self.locked) and not self.more

    def __add__(self, other: "Step") -> "Step":
        missed, released = self.missed + other.missed, self.released + other.released
        return Step(missed=missed, released=released, webhooks=(*self.webhooks, *other.webhooks))


Work = Callable[[Connection], Step]


def resuming(scope: Scope, actor: Actor, *, publish_missed: bool = False) -> Generator[Work, Step, Step]:
    """The transactions that resume an account or a workspace, one after the other: run each, send its Step back, and
    pause where it says so. Returned: the sum. Raises Unavailable while the hold stands, if a post stays locked.

    First, posts whose time went by are marked as missed while the hold still stands. `end` locks the holds alone, marks
    what came due meanwhile, and ends the hold in the same transaction. So no claim can find the hold gone and such a
    post unmarked. `publish_missed`: then each missed post of the account or the workspace is let go, also one
    of an earlier hold, and the resume waits for no locked post. A locked one that is missed stays missed. A resume that
    stopped is simply begun again.
    """
    total, step, tries = Step(), Step(more=True), 0
    while step.more:
        step = yield mark_page
        total += step
    step = Step(more=True)
    while step.more or step.locked:
        step = yield partial(end, scope=scope, actor=actor, publish_missed=publish_missed)
        total += step
        tries += bool(step.locked)
        if tries == TRIES:
            said = f"Post {step.locked[0]} is locked by another transaction, so the hold stands; send the resume again"
            raise Unavailable(message=said)
    passed: tuple[str, ...] = ()
    for _ in range(ROUNDS if publish_missed else 0):
        step, passed = Step(more=True), ()
        while step.more:
            step = yield partial(release_page, scope=scope, passed=passed)
            total, passed = total + step, step.locked
        if not passed:
            break
    return total + Step(missed=len(passed))


def run(
    works: Generator[Work, Step, Step],
    in_transaction: Callable[[Work], Step],
    pause: Callable[[float], object] = time.sleep,
) -> Step:
    """Run the transactions of a resume; their sum. `in_transaction` runs one in a transaction and commits it."""
    work = next(works)
    while True:
        step = in_transaction(work)
        try:
            work = works.send(step)
        except StopIteration as ended:
            total: Step = ended.value
            return total
        if step.waits:
            pause(PAUSE)


def mark_page(tx: Connection) -> Step:
    """`miss_page` as the first step of a resume."""
    marked, webhooks = miss_page(tx, TOGETHER)
    return Step(marked == TOGETHER, webhooks=tuple(webhooks))


def end(tx: Connection, scope: Scope, actor: Actor, *, publish_missed: bool) -> Step:
    """End a hold, with all claims kept out. It waits for no post. `more`: many posts came due; they are marked, and the
    hold stands. `locked`: these came due too, and other sessions have locked them; the hold stands. With
    `publish_missed` these go out as they are.
    """
    _lock_alone(tx, scope)
    hold = of(tx, scope)
    if hold is None:
        return Step()
    overdue = list(tx.execute(_OVERDUE, scope.given() | {"limit": TOGETHER}).scalars())
    mine = posts_store.lock_posts(tx, overdue, "skip")
    now, holds = posts_store.clock(tx), holds_store.of(tx, mine)
    webhooks = holds_store.miss(tx, [mine[one] for one in mine if goes_by(mine[one], holds.get(one), now)])
    locked = tuple(one for one in overdue if one not in mine)
    if locked and not publish_missed:
        return Step(webhooks=tuple(webhooks), locked=locked)
    if len(overdue) == TOGETHER and not locked:
        return Step(more=True, webhooks=tuple(webhooks))
    tx.execute(_END, scope.given())
    acts_store.record(tx, actor, [_act(acts_store.RESUME, scope, hold)])
    missed = tx.execute(_COUNT_MISSED, scope.given() | {"since": hold.since}).scalar_one()
    webhooks += webhooks_store.record(tx, [events.scope_resumed(scope.workspace_id, scope.account_id, hold)])
    return Step(missed=0 if publish_missed else missed, webhooks=tuple(webhooks))


def release_page(tx: Connection, scope: Scope, passed: tuple[str, ...] = ()) -> Step:
    """Let missed posts go out that nothing above holds. `passed`: posts to leave out; the Step's `locked` has them."""
    found = list(tx.execute(_MISSED, scope.given() | {"limit": TOGETHER, "passed": list(passed)}).scalars())
    if not found:
        return Step(locked=passed)
    locked = posts_store.lock_posts(tx, found, "skip")
    holds = holds_store.of(tx, locked)
    mine = [
        post
        for post_id, post in locked.items()
        if post_id in holds and holds[post_id].own is None and post.facts.status in WAITING and not post.facts.deleted
    ]
    return Step(
        len(found) == TOGETHER,
        released=len(mine),
        webhooks=tuple(holds_store.release_missed(tx, mine)),
        locked=(*passed, *(one for one in found if one not in locked)),
    )


# The look at all rows of `holds` comes first, and costs nothing where there are none.
_UNDER_A_HOLD = text(f"""
    SELECT id FROM posts WHERE EXISTS (SELECT FROM holds) AND status = 'generated' AND claim_kind IS NULL
        AND deleted_at IS NULL AND {NOT_HELD_BY_ITSELF} AND scheduled_time <= now() AND {HELD_BY_SCOPE}
    ORDER BY scheduled_time LIMIT :limit""")


def miss_page(tx: Connection, limit: int) -> tuple[int, list[str]]:
    """Mark posts that came due while their account or workspace is held: how many, and posts to ring webhooks for.

    So dispatch need not pass over them each second, and a resume finds little to do. The holds are locked in share: a
    resume that is under way ends first, or this does.
    """
    found = list(tx.execute(_UNDER_A_HOLD, {"limit": limit}).scalars())
    if not found:
        return 0, []
    locked, now = holds_store.lock_for_claim(tx, found), posts_store.clock(tx)
    mine = []
    for post_id, post in locked.posts.items():
        holds = locked.holds.get(post_id)
        under = holds is not None and (holds.account or holds.workspace) is not None
        if under and goes_by(post, holds, now):
            mine.append(post)
    return len(mine), holds_store.miss(tx, mine)
