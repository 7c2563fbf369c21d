"""One post on its way out, as a state and its next states: what clients, operators, workers, the clock and a publisher
may do to it, in every order. Each decision is the product's own; only what its statements write is said once more here
(tests/model/test_rows.py holds the two together).

Assumed of the publisher, as docs/services.md asks: a key has one effect at most, for as long as the publisher must
remember it; after that the same key is a new one to it. A request may have its effect before its answer, long after it,
or never; 2xx says that the key's effect has happened; a refusal says that this one request
has none and never will, and nothing of others; a request that never started has none. Assumed of an operator who says
"not sent": that this is true, also of what is still under way.

So it is enough to know the keys whose effect may have happened by now or may still happen: it may be any of them, at
any time, and two such keys are two effects. A worker that dies is one that does nothing more, before its call or after
it; a crash before COMMIT is a step that does not happen, one after it a worker that dies.

Left out: renders, and the messages that wake workers. A claim is taken here whenever the row allows one.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final, NamedTuple

from api import deletion
from shared.domain import holds, lifecycle, posts, reschedules
from shared.domain.edits import EditPatch
from shared.domain.failure_classes import OUTCOME_UNKNOWN, PUBLISHER_UNAVAILABLE
from shared.domain.holds import WAITING, Hold, Holds, Level, Resume
from shared.domain.lifecycle import Apply, ClaimKind, PostFacts, Status
from shared.domain.posts import Post
from shared.domain.service_answers import Outcome, Past, Reply
from shared.store import failures
from shared.store.claims import Finish
from shared.store.publish_attempts import Attempt, AttemptResult, History
from worker import publish_rules
from worker.retries import Limits

NOON: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
EXPIRY: Final = timedelta(seconds=60)
LATER: Final = timedelta(minutes=5)
LIMITS: Final = Limits(failures=2, unknown=2)
"""Fewer tries than by default: what follows the last one must lie within the depth that is searched."""
KEEPS: Final = timedelta(seconds=LIMITS.keeps_keys)
"""How long the publisher remembers a key that it has not refused."""

ALL_ANSWERS: Final = tuple(Outcome)
ANSWERS: Final = tuple(outcome for outcome in Outcome if outcome is not Outcome.MISCONFIGURED)
"""Without one of two that mean the same, so that a search gets deeper."""
QUARTER: Final = 900.0
"""Seconds that a publisher asks us to wait: an hour of "not now" is four answers long."""

CAPTION = {"caption": "second"}
CAPTION_BACK = {"caption": "first"}


class Holder(NamedTuple):
    """A worker with a claim. `reply`: how its call ended, once it has. `again`: it finished, and does not know it."""

    attempt: Attempt
    history: History | None
    reply: Outcome | None = None
    again: bool = False


class State(NamedTuple):
    """The row of a post, its tries under the latest key, the workers that live, and what is at the publisher.

    `waiting`: the try without an outcome, by its claim's token, and when it began. `gone`: tries that a claim wrote
    down as unknown, for want of an answer. `remembers`: the keys that the publisher has not refused, when the first
    such request came, and how often it had forgotten the key by then. `effects`: keys, with that number, whose effect
    may have happened or may still; `done`: keys of which a 2xx told. `bodies`: what came under each key. `doubt`: a try
    ended without an answer, and no 2xx came since. `edits`, `acts`, `holds`: how many more edits, retries by operators
    and holds there will be. `own`, `missed`: what holds the post. `went_by`: the schedule revision of a time that
    went by while it was held; `claimed_held`: a new claim was taken although it was held, or had missed its time.
    """

    now: datetime
    facts: PostFacts
    token: str | None = None
    expires: datetime | None = None
    retry_at: datetime | None = None
    reason: str | None = None
    history: History | None = None
    waiting: tuple[str, datetime] | None = None
    gone: frozenset[str] = frozenset()
    queued: str | None = None
    holders: tuple[Holder, ...] = ()
    bodies: tuple[tuple[str, str], ...] = ()
    remembers: tuple[tuple[str, datetime, int], ...] = ()
    effects: frozenset[tuple[str, int]] = frozenset()
    done: frozenset[str] = frozenset()
    doubt: bool = False
    edits: int = 2
    acts: int = 2
    holds: int = 0
    own: bool = False
    missed: int | None = None
    went_by: int | None = None
    claimed_held: bool = False

    @property
    def held_by(self) -> Holds:
        """As `holds.of` reads it."""
        own = Hold(Level.POST, NOON, "operator", None) if self.own else None
        return Holds(own, self.missed, None if self.missed is None else NOON)

    @property
    def post(self) -> Post:
        """As `lock_posts` reads it."""
        return Post(
            self.facts, "ws", "acc", NOON, None, self.token, self.expires, None, None, self.retry_at, 0, None, None,
            self.reason,
        )  # fmt: skip

    @property
    def past(self) -> History | None:
        """As `histories` reads it: a try of which nothing is known may have been sent."""
        if self.history is None or self.waiting is None:
            return self.history
        return replace(self.history, past=self.history.past.with_try(Outcome.UNKNOWN, self.waiting[1]))

    @property
    def open(self) -> bool:
        """Whether an edit, a bulk job's move or a deletion would take effect now."""
        facts = self.facts
        ways = (
            lifecycle.cannot_edit(facts),
            deletion.refusal(facts),
            reschedules._REFUSALS[facts.status, facts.claim, facts.deleted],
        )
        return None in ways

    @property
    def over(self) -> bool:
        return self.facts.deleted or self.facts.status in {Status.POSTED, Status.FAILED}


def first(**given: Any) -> State:
    """A video that is due."""
    facts = PostFacts(
        "post_1", "tiktok", Status.GENERATED, None, "video", "https://cdn.example.com/a.mp4", None, "first", None,
        "UTC", NOON, render_as_video=False, rendered_url=None, revision=1, schedule_revision=1, content_revision=1,
    )  # fmt: skip
    return State(NOON, facts, **given)


Step = tuple[str, State]


def steps(state: State, answers: tuple[Outcome, ...] = ANSWERS, holders: int = 2) -> Iterator[Step]:
    """All that can happen next. `holders`: of so many workers with a claim one may still do something."""
    yield from _workers(state, answers)
    if state.facts.deleted:
        return
    for label, after in claims(state):
        grown = len(after.holders) > len(state.holders)
        before, mine = (after.holders[:-1], after.holders[-1]) if grown else (after.holders, None)
        if mine is None or len(before) < holders:
            yield label, after
        else:
            for dead in range(len(before)):
                yield f"{label}, one is dead", after._replace(holders=(*before[:dead], *before[dead + 1 :], mine))
    yield from _people(state)
    if (later := passes(state)) is not None:
        yield "time passes", later
    if (much_later := forgotten(state)) is not None:
        yield "time passes until the publisher has forgotten the key", much_later


def passes(state: State) -> State | None:
    """The clock at the next moment that anything waits for."""
    times = [time for time in (state.expires, state.retry_at, state.facts.scheduled_time) if time and time > state.now]
    return _goes_by(state._replace(now=min(times))) if times else None


def _goes_by(state: State) -> State:
    """Whether the post's time goes by while it is held. One that a publish has claimed was named as going out."""
    late = state.own and state.facts.claim is None and state.facts.scheduled_time <= state.now
    return state._replace(went_by=state.facts.schedule_revision) if late and not state.over else state


def forgotten(state: State) -> State | None:
    """The clock at the moment when the publisher has forgotten the latest key that it knows."""
    known = [came + KEEPS for _, came, _ in state.remembers if came + KEEPS > state.now]
    if not known or state.facts.status is Status.POSTED:
        return None
    # A call that has not begun by then never begins: its claim is too old.
    holders = (one if one.reply else one._replace(reply=Outcome.NEVER_STARTED) for one in state.holders)
    return _goes_by(state._replace(now=max(known), holders=tuple(holders)))


# Workers


def claims(state: State) -> Iterator[Step]:
    """A worker's claim: apply what is queued, decide, write, commit."""
    drained = _applied(state) if state.facts.claim is not ClaimKind.PUBLISH else state
    taken = publish_rules.take(drained.facts, state.post, state.past, state.now, LIMITS, holds=state.held_by)
    if taken.attempt is None and taken.finish is None:
        return
    after = drained
    if taken.lost is not None:
        after = ended(drained, taken.lost)
        if after.waiting != drained.waiting:
            after = after._replace(gone=after.gone | {taken.lost.token})
    if taken.finish is not None:
        label = "a claim finds the 2xx" if taken.finish.status == "posted" else "a claim gives up"
        yield label, finished(after, taken.finish)
        return
    assert taken.attempt is not None
    attempt, past = taken.attempt, state.past
    if state.token is None and (state.own or after.facts.schedule_revision in {state.missed, state.went_by}):
        after = after._replace(claimed_held=True)
    history = after.history
    if history is None or history.idempotency_key != attempt.idempotency_key:
        history = History(attempt.post_id, attempt.idempotency_key, attempt.body, 0, Past())
    yield (
        "a worker claims",
        after._replace(
            facts=replace(after.facts, claim=ClaimKind.PUBLISH),
            token=attempt.claim_token,
            expires=state.now + EXPIRY,
            retry_at=None,
            history=replace(history, tries=attempt.try_number, body=attempt.body),
            waiting=(attempt.claim_token, state.now),
            holders=(*after.holders, Holder(attempt, past)),
        ),
    )


def _workers(state: State, answers: tuple[Outcome, ...]) -> Iterator[Step]:
    for place, holder in enumerate(state.holders):
        others = (*state.holders[:place], *state.holders[place + 1 :])
        if holder.reply is None:
            for answer in answers:
                called, ready = sent(state, holder.attempt, answer), holder._replace(reply=answer)
                yield f"a call ends {answer}, and its worker finishes", finish(called, ready)._replace(holders=others)
                yield f"a call ends {answer}", called._replace(holders=(*others, ready))
        else:
            after = finish(state, holder)
            yield "a worker finishes", after._replace(holders=others)
            kept = ended(state, _result(holder))
            if kept != state:
                yield "a worker finds the post locked, and keeps the answer", kept
            if not holder.again and after.token == holder.attempt.claim_token:
                # The answer of its COMMIT is lost: it will finish once more. Where the post is not its own any more,
                # that is what any late finish is.
                yield "a worker finishes unheard", after._replace(holders=(*others, holder._replace(again=True)))


def sent(state: State, attempt: Attempt, answer: Outcome) -> State:
    """A request, and its answer. It may have its effect later, save where the answer says otherwise."""
    key = attempt.idempotency_key
    if answer is Outcome.NEVER_STARTED:
        return state
    seen = (key, attempt.body)
    state = state if seen in state.bodies else state._replace(bodies=(*state.bodies, seen))
    if answer is Outcome.REFUSED:
        return state
    done = state.done | {key} if answer is Outcome.DONE else state.done
    state, times = _remembered(state, key)
    return state._replace(effects=state.effects | {(key, times)}, done=done)


def _remembered(state: State, key: str) -> tuple[State, int]:
    """The publisher looks the key up, and how often it had forgotten that key before."""
    known = next((one for one in state.remembers if one[0] == key), None)
    if known is not None and state.now - known[1] < KEEPS:
        return state, known[2]
    times = 0 if known is None else known[2] + 1
    others = (one for one in state.remembers if one[0] != key)
    return state._replace(remembers=(*others, (key, state.now, times))), times


def finish(state: State, holder: Holder) -> State:
    """As worker/published.py: how the try ended is kept; the post is the holder's as long as the token is."""
    attempt, answer = holder.attempt, holder.reply
    assert answer is not None
    state = ended(state, _result(holder))
    if state.token != attempt.claim_token:
        late = publish_rules.conclude_late(state.facts, state.history) if answer is Outcome.DONE else None
        return state if late is None else finished(state, late)
    asks = QUARTER if answer in {Outcome.NOT_NOW, Outcome.PROCESSING} else None
    reply = Reply(answer, message=None if answer is Outcome.DONE else "no", retry_after=asks)
    end = publish_rules.conclude(
        attempt, holder.history, reply, now=state.now, jitter=0.0, limits=LIMITS, latest=state.past
    )
    return finished(state, end)


def _result(holder: Holder) -> AttemptResult:
    assert holder.reply is not None
    return AttemptResult(holder.attempt.claim_token, holder.reply, None)


def ended(state: State, end: AttemptResult) -> State:
    """`finish_attempts`: the first result of each try stands, save where a 2xx comes late."""
    if state.history is not None and end.token in state.gone and end.outcome == Outcome.DONE:
        past = state.history.past.with_try(Outcome.DONE, state.now)
        gone = state.gone - {end.token}
        return state._replace(history=replace(state.history, past=past), gone=gone, doubt=False)
    if state.waiting is None or state.waiting[0] != end.token or state.history is None:
        return state
    outcome = Outcome(end.outcome)
    past = state.history.past.with_try(outcome, state.waiting[1])
    doubt = (state.doubt or outcome is Outcome.UNKNOWN) and not past.done
    return state._replace(history=replace(state.history, past=past), waiting=None, doubt=doubt)


def finished(state: State, end: Finish) -> State:
    """`finish_publishes`."""
    status, closed = Status(end.status), end.until is not None
    return state._replace(
        facts=replace(state.facts, status=status, claim=ClaimKind.PUBLISH if closed else None),
        token=state.token if closed else None,
        expires=end.until,
        retry_at=end.retry_at,
        reason=end.failure_reason,
        doubt=state.doubt and status is not Status.POSTED,
    )


# People


def _people(state: State) -> Iterator[Step]:
    if state.queued is None and state.edits and not state.over:
        yield "an edit of the caption is recorded", state._replace(queued="caption", edits=state.edits - 1)
        yield "an edit of the time is recorded", state._replace(queued="time", edits=state.edits - 1)
    if state.queued is not None:
        yield "the edit is applied or refused", _applied(state)
    if deletion.refusal(state.facts) is None:
        yield "it is deleted", state._replace(facts=replace(state.facts, deleted=True), retry_at=None, queued=None)
    yield from _holding(state)
    if state.facts.status is Status.FAILED and state.acts:
        if (back := _put_back(state, not_sent=False)) is not None:
            yield "an operator retries", back
        if not state.done and (back := _put_back(state, not_sent=True)) is not None:
            yield "an operator retries --not-sent", back


def _holding(state: State) -> Iterator[Step]:
    """Holds and resumes, as `holds.hold_posts` and `holds.resume_posts` write them."""
    if state.facts.status not in WAITING:
        return
    if state.holds and not state.own:
        yield "it is held", _goes_by(state._replace(own=True, holds=state.holds - 1))
    for publish in (False, True):
        facts = state.facts
        due = facts.scheduled_time <= state.now
        end = holds.resume(
            state.held_by, facts.schedule_revision, facts.claim, due=due, publish_missed=publish
        )  # fmt: skip
        label = "it is resumed, and published if it was missed" if publish else "it is resumed"
        if end is Resume.MISS:
            yield label, state._replace(own=False, missed=facts.schedule_revision)
        elif end is Resume.RELEASE:
            yield label, state._replace(own=False, missed=None, went_by=None if publish else state.went_by)


def _applied(state: State) -> State:
    """The queue of edits, as apply and claim drain it under the post's lock."""
    if state.queued is None:
        return state
    if state.queued == "time":
        patch = EditPatch(instant=state.now + LATER, timezone="UTC")
    else:
        patch = EditPatch.from_changes(CAPTION if state.facts.caption == "first" else CAPTION_BACK)
    decision = lifecycle.decide(state.facts, patch, state.now)
    if not isinstance(decision, Apply):
        return state._replace(queued=None)
    anew = publish_rules.anew(state.post, decision.after)
    return state._replace(queued=None, facts=decision.after, retry_at=None if anew else state.retry_at)


def _put_back(state: State, *, not_sent: bool) -> State | None:
    """`failures.retry`; None where it leaves the post as it is."""
    past, keeps = state.past, LIMITS.keeps_keys
    tries = past.past if past is not None else Past()
    put = failures.put_back(state.facts, tries, state.now, keeps_keys=keeps, not_sent=not_sent)
    held = holds.in_effect(state.held_by, state.facts.schedule_revision)
    if put is None or (put.claim is not None and held is not None):
        return None
    state = state._replace(
        facts=replace(state.facts, status=put.status, claim=put.claim),
        token="clm_operator" if put.claim else None,
        expires=state.now if put.claim else None,
        retry_at=None,
        reason=None,
        history=past and replace(past, past=past.past.forgiven(not_sent=not_sent)),
        waiting=None,
        acts=state.acts - 1,
    )
    # An operator's word is true, or it is worth nothing: what was under way has come to nothing.
    if not not_sent:
        return state
    return state._replace(holders=(), gone=frozenset(), remembers=(), effects=frozenset(), doubt=False)


# What must hold


ONCE = "one effect at most"
ONE_BODY = "one body under a key"
TRUE = "posted only if it went out"
CLOSED = "no edit, move or deletion of what may have gone out"
UNKNOWN_STAYS = "unknown stays unknown until a 2xx"
ENDS = "no post without an end"
HELD: Final = "no claim of what is held, or missed its time while it was held"
PROMISES: Final = (ONCE, ONE_BODY, TRUE, CLOSED, UNKNOWN_STAYS, ENDS, HELD)


def broken(state: State) -> Iterator[str]:
    """The promises that a state breaks, but for ENDS: `stuck` looks for that."""
    if len(state.effects) > 1:
        yield ONCE
    if state.claimed_held:
        yield HELD
    if len({key for key, _ in state.bodies}) < len(state.bodies):
        yield ONE_BODY
    if state.facts.status is Status.POSTED and not state.done:
        yield TRUE
    if (state.open or state.facts.deleted) and state.effects:
        yield CLOSED
    failed = state.facts.status is Status.FAILED
    refused = failed and state.reason not in {OUTCOME_UNKNOWN, PUBLISHER_UNAVAILABLE}
    if (refused and state.effects) or (
        state.doubt and (state.open or state.facts.deleted or (failed and state.reason != OUTCOME_UNKNOWN))
    ):
        yield UNKNOWN_STAYS


ROUNDS: Final = 100
"""More than the most tries of any one story: failures, unknown ones, an hour of "not now" and one of "at work"."""


def stuck(state: State, answers: tuple[Outcome, ...], known: set[tuple[object, ...]]) -> str | None:
    """Why this post would never come to an end, if the publisher always did the same and every worker that lives died
    now; None where it does. `known`: rows that are known to come to one; more are added.
    """
    for habit in [*answers, None]:
        # What is held waits for a person, who lets it go.
        now: State | None = state._replace(holders=(), queued=None, own=False, missed=None, went_by=None)
        met: list[tuple[object, ...]] = []
        while now is not None and not now.over and len(met) < ROUNDS:
            rows = (habit, same(now, rows_only=True))
            if rows in known:
                break
            met.append(rows)
            now = _round(now, habit)
        if now is None:
            return f"nobody would ever take it up (the publisher: {habit or 'kills its caller'})"
        if len(met) == ROUNDS:
            return f"it is tried for ever (the publisher: {habit or 'kills its caller'})"
        known.update(met)
    return None


def _round(state: State, habit: Outcome | None) -> State | None:
    """The next claim of it and its end, or the clock at its next moment. None: there is nothing to wait for."""
    claimed = next((after for _, after in claims(state)), None)
    if claimed is None:
        return passes(state)
    if not claimed.holders:
        return claimed
    (holder,) = claimed.holders
    if habit is None:
        return sent(claimed, holder.attempt, Outcome.UNKNOWN)._replace(holders=())
    called = sent(claimed, holder.attempt, habit)
    return finish(called, holder._replace(reply=habit))._replace(holders=())


# Which states are the same


@cache
def _body(caption: str, at: datetime) -> str:
    facts = replace(first().facts, caption=caption, scheduled_time=at)
    return posts.service_body("publish", State(NOON, facts).post, facts)


def same(state: State, *, rows_only: bool = False) -> tuple[object, ...]:
    """What is equal for states that behave alike: times as they lie from now, ids by the order of their coming up.
    `rows_only`: what is left when all workers die.
    """
    ids: dict[str | None, int] = {None: 0}

    def number(given: str | None) -> int:
        return ids.setdefault(given, len(ids))

    def ahead(time: datetime | None) -> float | None:
        return None if time is None else max(0.0, (time - state.now).total_seconds())

    def ago(time: datetime | None) -> float | None:
        return None if time is None else min(3600.0, (state.now - time).total_seconds())

    def told(history: History | None) -> tuple[object, ...] | None:
        if history is None:
            return None
        past = history.past
        return (
            number(history.idempotency_key), number(history.body), past.failures, past.unknown, past.waits,
            ago(past.failing_since), ago(past.busy_since), ago(past.working_since), past.uncertain, past.accepted,
            past.maybe_sent, past.done, past.key_too_old(state.now, LIMITS.keeps_keys),
        )  # fmt: skip

    facts = state.facts
    row = (
        facts.status, facts.claim, facts.deleted, facts.caption, ahead(facts.scheduled_time),
        number(_body(facts.caption, facts.scheduled_time)), number(state.token), ahead(state.expires),
        ahead(state.retry_at), state.reason, told(state.history),
        state.waiting and (number(state.waiting[0]), ago(state.waiting[1])), state.own,
        state.missed == facts.schedule_revision,
    )  # fmt: skip
    if rows_only:
        return row
    holders = tuple(
        (number(holder.attempt.claim_token), number(holder.attempt.idempotency_key), number(holder.attempt.body),
         told(holder.history), holder.reply, holder.again)
        for holder in state.holders
    )  # fmt: skip
    return (
        row, holders, state.queued, tuple((number(key), number(body)) for key, body in state.bodies),
        frozenset(number(one.attempt.claim_token) for one in state.holders if one.attempt.claim_token in state.gone),
        tuple((number(key), times, state.now - came >= KEEPS) for key, came, times in state.remembers),
        frozenset((number(key), times) for key, times in state.effects), frozenset(map(number, state.done)),
        state.doubt, state.edits, state.acts, state.holds, state.went_by == facts.schedule_revision, state.claimed_held,
    )  # fmt: skip
