"""Records many PATCHes in one INSERT, in a thread, and says what each of them is answered."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from api.http.problems import request_id
from shared.domain import errors, lifecycle
from shared.domain.edits import EditPatch
from shared.domain.errors import RedraftError
from shared.domain.ids import new_id
from shared.domain.posts import Post
from shared.store import db
from shared.store import edits as edits_store
from shared.store import idempotency as idempotency_store
from shared.store import posts as posts_store
from shared.store.edits import NewEdit
from shared.store.idempotency import Kept, Pair, Repeat
from shared.store.keys import Key

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Recorded:
    """The edit's row is committed. `replayed`: an earlier request with the same Idempotency-Key made it.

    `created_at` is None where the row has to be read for it.
    """

    edit_id: str
    created_at: datetime | None
    replayed: bool = False


Verdict = Recorded | RedraftError


@dataclass(slots=True, eq=False)
class Asked:
    """One edit that is not recorded yet.

    `problem`: what is wrong with it. It is answered only if the request's Idempotency-Key is new. A PreconditionFailed
    is answered only if nothing else is wrong (RFC 9110, 13.2.1).
    """

    new: NewEdit
    patch: EditPatch | None
    problem: RedraftError | None


def new_edit(
    owner: Key,
    post_id: str,
    patch: EditPatch | None,
    if_match: tuple[str, ...] | None = None,
    repeat: Repeat | None = None,
) -> NewEdit:
    """The row of an edit that the served request asks for with this key."""
    return NewEdit(
        id=new_id("edit"),
        post_id=post_id,
        workspace_id=owner.workspace_id,
        changes=patch.changes() if patch else {},
        if_match=if_match,
        api_key_id=owner.id,
        requested_by=owner.name,
        request_id=request_id.get(),
        key=repeat and repeat.key,
        fingerprint=repeat and repeat.fingerprint,
    )


@dataclass(slots=True, eq=False)
class Request(Asked):
    """One PATCH that is not recorded yet.

    `until`: the time of the event loop at which the request is given up. `awaited`: it waits for its edit's result.
    `taken`: it is in a batch.
    """

    future: asyncio.Future[Verdict]
    until: float
    awaited: bool = True
    taken: bool = False


_in_hand: dict[str, str] = {}


def in_hand(workspace_id: str, edit_id: str) -> bool:
    """Whether this process is recording that edit now. A missing row says nothing then."""
    return _in_hand.get(edit_id) == workspace_id


def record_batch(batch: Sequence[Request]) -> list[Verdict]:
    """Record many requests in one INSERT; if that fails, one by one, so that each request gets its own error."""
    edits = {request.new.id: request.new.workspace_id for request in batch}
    _in_hand.update(edits)
    try:
        return _record_batch(batch)
    finally:
        for edit_id in edits:
            _in_hand.pop(edit_id, None)


def _record_batch(batch: Sequence[Request]) -> list[Verdict]:
    inserting = False
    try:
        with _database(batch) as tx:
            judged = _judge(tx, batch)
            inserting = True
            verdicts = _insert(tx, batch, judged)
    except Exception as error:  # noqa: BLE001  -- whatever failed, each request gets its own answer below
        inserting = inserting and not db.read_only(error)
        log.warning("batch_failed", requests=len(batch), error=type(error).__name__)
    else:
        return verdicts
    away: RedraftError | None = None
    one_by_one: list[Verdict] = []
    for request in batch:
        # If PostgreSQL is away for one request, it is away for all. A request that was answered meanwhile must not be
        # recorded: its answer said that nothing was accepted.
        if away is None and not request.future.done():
            verdict = _record_one(request, perhaps_there=inserting)
            away = verdict if isinstance(verdict, errors.Unavailable) else None
            one_by_one.append(verdict)
        else:
            one_by_one.append(_unknown(request, perhaps_there=inserting))
    return one_by_one


def _database(batch: Sequence[Request]) -> AbstractContextManager[Connection]:
    """The connection that a batch is written on.

    An Idempotency-Key's lock must last from the look-up to the commit, so it needs a transaction. Without any key the
    INSERT is a transaction by itself, which saves two round trips.
    """
    return db.transaction() if any(request.new.key for request in batch) else db.autocommit()


def _unknown(request: Request, *, perhaps_there: bool) -> RedraftError:
    """The answer while PostgreSQL is away. After an INSERT without an answer it names the edit, which may exist."""
    return errors.Unavailable(edit_id=request.new.id if perhaps_there and request.problem is None else None)


def _record_one(request: Request, *, perhaps_there: bool) -> Verdict:
    """Record one request after its batch failed, unless the batch was committed all the same."""
    for _ in range(2):
        try:
            with _database([request]) as tx:
                if edits_store.recorded(tx, [request.new.id]):
                    return Recorded(request.new.id, None)
                judged = _judge(tx, [request])
                perhaps_there = True
                return _insert(tx, [request], judged)[0]
        except IntegrityError:
            # The batch's INSERT was committed after our look: look again.
            continue
        except Exception as error:  # noqa: BLE001  -- the edge: the answer says what is known
            log.warning("request_failed", edit_id=request.new.id, error=type(error).__name__)
            perhaps_there = perhaps_there and not db.read_only(error)
            return _unknown(request, perhaps_there=perhaps_there) if db.is_transient(error) else errors.Internal()
    return errors.Internal()


@dataclass(slots=True)
class Judged:
    """The verdicts on a batch before the INSERT, by id() of the request. `duplicates` share an accepted one's key."""

    now: datetime | None
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    accepted: list[Request] = field(default_factory=list)
    duplicates: list[Request] = field(default_factory=list)


def _judge(tx: Connection, batch: Sequence[Request]) -> Judged:
    """Look up the keys and judge each request. The posts are not locked: the worker judges again under the lock.

    A request whose key another process is recording is neither refused nor recorded: it gets KeyInHand.
    """
    taken, kept = _kept(tx, batch)
    fresh = [request for request in batch if _key_of(request) not in kept and _has_its_key(request, taken)]
    found, now = posts_store.read_posts(tx, [request.new.post_id for request in fresh if request.patch is not None])
    judged = Judged(now)
    first_with: set[Pair] = set()
    for request in batch:
        key = _key_of(request)
        if key in kept:
            judged.verdicts[id(request)] = _repeated(request, kept[key])
        elif not _has_its_key(request, taken):
            judged.verdicts[id(request)] = errors.KeyInHand()
        elif (refused := refusal(request, found, now)) is not None:
            judged.verdicts[id(request)] = refused
        elif request.new.key and key in first_with:
            judged.duplicates.append(request)
        else:
            first_with.add(key)
            judged.accepted.append(request)
            judged.verdicts[id(request)] = Recorded(request.new.id, now)
    return judged


def _insert(tx: Connection, batch: Sequence[Request], judged: Judged) -> list[Verdict]:
    """Insert the accepted requests in one statement: all of them, or none.

    A request that was answered "may have been accepted" meanwhile is left out. After that answer only a statement that
    was sent before can record it, and PostgreSQL ends it in time: hence errors.UNSETTLED_SECONDS.
    """
    for request in [request for request in judged.accepted if request.future.done()]:
        judged.accepted.remove(request)
        judged.verdicts[id(request)] = errors.Unavailable()
    recorded: set[str] = set()
    if judged.now is not None and judged.accepted:
        recorded = edits_store.insert_edits(tx, [request.new for request in judged.accepted], judged.now)
    repeats = [request for request in judged.accepted if request.new.id not in recorded] + judged.duplicates
    if repeats:
        # A request of this batch was first with the key, or a process of the version before, which takes no lock of
        # keys. Both requests get the edit of the first one.
        kept = idempotency_store.kept(tx, [_key_of(request) for request in repeats])
        for request in repeats:
            first = kept.get(_key_of(request))
            judged.verdicts[id(request)] = _repeated(request, first) if first else errors.Unavailable()
    return [judged.verdicts[id(request)] for request in batch]


def _key_of(request: Request) -> Pair:
    return request.new.api_key_id or "", request.new.key or ""


def _kept(tx: Connection, batch: Sequence[Request]) -> tuple[set[Pair], dict[Pair, Kept]]:
    pairs = list(dict.fromkeys(_key_of(request) for request in batch if request.new.key))
    return idempotency_store.take(tx, pairs) if pairs else (set(), {})


def _has_its_key(request: Request, taken: set[Pair]) -> bool:
    return not request.new.key or _key_of(request) in taken


def _repeated(request: Request, kept: Kept) -> Verdict:
    if kept.fingerprint != request.new.fingerprint:
        return errors.IdempotencyKeyReused()
    # Not replayed where the row is our own: the batch was committed, but the answer to its COMMIT was lost.
    return Recorded(kept.resource, None, replayed=kept.resource != request.new.id)


def refusal(asked: Asked, found: dict[str, Post], now: datetime | None) -> RedraftError | None:
    """Why an edit is refused at once, without a row, or None. The worker judges preconditions under the lock."""
    hopeless = asked.problem if isinstance(asked.problem, errors.PreconditionFailed) else None
    if asked.problem is not hopeless:
        return asked.problem
    post = found.get(asked.new.post_id)
    if post is None or now is None or post.workspace_id != asked.new.workspace_id:
        return errors.NotFound.post(asked.new.post_id)
    if asked.patch is None:
        return errors.Internal()
    refused = lifecycle.refuse(post.facts, asked.patch, now)
    if refused is not None:
        return errors.restored(refused.code, refused.message, refused.details)
    if hopeless is not None:
        hopeless.revision = post.facts.revision
    return hopeless
