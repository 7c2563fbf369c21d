"""All that can happen to a post on its way out, within some steps; and old rules, each of which breaks a promise.

`make model` looks deeper, with every answer and more workers.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from api import deletion
from shared.domain import holds, posts, reschedules, service_answers
from shared.domain.failure_classes import FailureClass
from shared.domain.holds import Holds, Resume
from shared.domain.lifecycle import ClaimKind, PostFacts, Status
from shared.domain.posts import Post
from shared.domain.service_answers import NOT_SENT, Outcome, Past, Reply
from shared.store import failures
from shared.store.failures import PutBack
from shared.store.publish_attempts import Attempt, AttemptResult, History
from tests.model import publishing
from tests.model.publishing import (
    CLOSED,
    ENDS,
    HELD,
    ONCE,
    ONE_BODY,
    PROMISES,
    TRUE,
    UNKNOWN_STAYS,
    Holder,
    State,
    finished,
    first,
)
from tests.model.search import search
from worker import publish_rules, retries
from worker.retries import GiveUp, Retry, Step

DEPTH = 9
"""A claim, an unknown try, its retake, a refusal, an operator's retry, an edit, another claim and its call."""
EVERYTHING = [
    "a worker claims", "a worker claims, one is dead", "a claim gives up", "a worker finishes",
    "a worker finishes unheard", "an edit of the caption is recorded", "an edit of the time is recorded",
    "the edit is applied or refused", "it is deleted", "an operator retries", "an operator retries --not-sent",
    "time passes", "time passes until the publisher has forgotten the key", "a claim finds the 2xx",
    "a worker finds the post locked, and keeps the answer",
]  # fmt: skip


def test_no_order_of_claims_answers_crashes_retries_edits_and_deletions_breaks_a_promise() -> None:
    found = search(DEPTH)
    assert found.broken is None, found
    assert found.depth == DEPTH
    assert found.states > 60_000
    assert [label for label in EVERYTHING if not found.seen[label]] == []
    for answer in publishing.ANSWERS:
        assert found.seen[f"a call ends {answer}"] == found.seen[f"a call ends {answer}, and its worker finishes"] > 0


def test_no_order_of_holds_and_resumes_among_them_breaks_a_promise() -> None:
    found = search(8, start=first(edits=1, acts=1, holds=1))
    assert found.broken is None, found
    wanted = ["it is held", "it is resumed", "it is resumed, and published if it was missed"]
    assert [label for label in wanted if not found.seen[label]] == []


def test_nor_does_a_new_version_of_ours_that_makes_other_bodies_of_the_same_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _bodies_change(monkeypatch)
    # With another body for each try there would always be a new key, and no end of tries.
    found = search(7, {ONCE, ONE_BODY, TRUE, CLOSED, UNKNOWN_STAYS})
    assert found.broken is None, found


def _bodies_change(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = count()
    monkeypatch.setattr(posts, "service_body", lambda *_: f'{{"version": {next(versions)}}}')


# Rules as they once were, or as somebody might think them good enough.

what_next, passes, attempt_of = retries.what_next, publishing.passes, publish_rules._attempt


def a_refusal_of_a_repeat_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def twin(reply: Reply, past: Past, **given: object) -> Step:
        if reply.outcome is Outcome.REFUSED:
            return GiveUp(reply.message or "refused", FailureClass.REFUSED)
        return what_next(reply, past, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(retries, "what_next", twin)


def a_refusal_after_a_server_error_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def twin(reply: Reply, past: Past, **given: object) -> Step:
        if reply.outcome is Outcome.REFUSED and not past.uncertain:
            return GiveUp(reply.message or "refused", FailureClass.REFUSED)
        return what_next(reply, past, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(retries, "what_next", twin)


def a_409_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def twin(reply: Reply, past: Past, **given: object) -> Step:
        if reply.outcome is Outcome.NOT_NOW:
            return GiveUp(reply.message or "refused", FailureClass.REFUSED)
        return what_next(reply, past, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(retries, "what_next", twin)
    monkeypatch.setattr(service_answers, "NOT_SENT", NOT_SENT | {Outcome.NOT_NOW})


def a_server_error_means_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_answers, "NOT_SENT", NOT_SENT | {Outcome.SERVER_ERROR})


def a_retry_forgets_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Past, "forgiven", lambda *_, **__: Past())
    monkeypatch.setattr(failures, "put_back", lambda *_, **__: PutBack("due", Status.GENERATED))


def a_retry_opens_the_post(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "put_back", lambda *_, **__: PutBack("due", Status.GENERATED))


def an_expired_claim_is_no_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    def twin(state: State) -> State | None:
        later = passes(state)
        if later is None or later.expires is None or later.expires > later.now:
            return later
        return later._replace(facts=replace(later.facts, claim=None), token=None, expires=None)

    monkeypatch.setattr(publishing, "passes", twin)


def a_call_that_never_started_frees_the_post_whatever_went_before(monkeypatch: pytest.MonkeyPatch) -> None:
    def twin(reply: Reply, past: Past, **given: object) -> Step:
        step = what_next(reply, past, **given)  # type: ignore[arg-type]
        free = reply.outcome is Outcome.NEVER_STARTED
        return replace(step, free=free) if isinstance(step, Retry) else step

    monkeypatch.setattr(retries, "what_next", twin)


def a_late_finish_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    conclude, ended = publish_rules.conclude, publishing.ended

    def twin(state: State, holder: Holder) -> State:
        attempt, answer = holder.attempt, holder.reply
        assert answer is not None
        state = ended(state, AttemptResult(attempt.claim_token, answer, None))
        reply = Reply(answer, message=None if answer is Outcome.DONE else "no")
        end = conclude(attempt, holder.history, reply, now=state.now, jitter=0.0, limits=publishing.LIMITS)
        return finished(state, end)

    monkeypatch.setattr(publishing, "finish", twin)


def a_claimed_post_can_be_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    def twin(post: PostFacts) -> str | None:
        return None if post.status is Status.GENERATED and not post.deleted else "no"

    monkeypatch.setattr(deletion, "refusal", twin)


def a_bulk_job_moves_a_claimed_post(monkeypatch: pytest.MonkeyPatch) -> None:
    twin = {
        (status, claim, deleted): None if status is Status.GENERATED and not deleted else why
        for (status, claim, deleted), why in reschedules._REFUSALS.items()
    }
    monkeypatch.setattr(reschedules, "_REFUSALS", twin)


def a_key_never_grows_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Past, "key_too_old", lambda *_: False)


def a_retry_makes_the_key_young_again(monkeypatch: pytest.MonkeyPatch) -> None:
    forgiven = Past.forgiven
    monkeypatch.setattr(Past, "forgiven", lambda past, **given: replace(forgiven(past, **given), maybe_since=None))
    monkeypatch.setattr(failures, "put_back", lambda *_, **__: PutBack("closed", Status.GENERATED, ClaimKind.PUBLISH))


def dead_workers_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "before_retaking", lambda *_: None)


def not_now_has_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    spent = retries._spent

    def twin(outcome: Outcome, *given: object) -> bool:
        return outcome is not Outcome.NOT_NOW and spent(outcome, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(retries, "_spent", twin)


def a_claim_between_tries_has_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    conclude = publish_rules.conclude

    def twin(*given: object, **more: object) -> object:
        end = conclude(*given, **more)  # type: ignore[arg-type]
        return end if end.until is None else replace(end, until=publishing.NOON.replace(year=9999))

    monkeypatch.setattr(publish_rules, "conclude", twin)
    monkeypatch.setattr(publishing, "passes", lambda state: (
        None if state.expires and state.expires.year == 9999 else passes(state)))  # fmt: skip


def _attempts(monkeypatch: pytest.MonkeyPatch, *, key_stays: bool) -> None:
    _bodies_change(monkeypatch)

    def twin(facts: PostFacts, post: Post, history: History | None, *given: Any) -> Attempt:
        attempt = attempt_of(facts, post, None, *given)
        if not key_stays:
            return replace(attempt, idempotency_key=attempt.claim_token)
        if history is None:
            return attempt
        return replace(attempt, idempotency_key=history.idempotency_key, try_number=history.tries + 1)

    monkeypatch.setattr(publish_rules, "_attempt", twin)


def a_repeat_says_what_the_row_says_now(monkeypatch: pytest.MonkeyPatch) -> None:
    _attempts(monkeypatch, key_stays=True)


def each_try_has_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    _attempts(monkeypatch, key_stays=False)


def a_claim_takes_what_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish_rules, "in_effect", lambda *_: None)


def a_resume_lets_go_what_missed_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def twin(held: Holds, *_: object, **__: object) -> Resume:
        return Resume.NOTHING if held.own is None else Resume.RELEASE

    monkeypatch.setattr(holds, "resume", twin)


def a_new_try_may_begin_under_a_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = publish_rules._verdict

    def twin(facts: PostFacts, post: Post, now: Any, held: Holds) -> str:
        return verdict(facts, post, now, Holds() if post.retry_at else held)

    monkeypatch.setattr(publish_rules, "_verdict", twin)


TWINS: list[tuple[Callable[[pytest.MonkeyPatch], None], str, int]] = [
    (a_refusal_of_a_repeat_is_a_refusal, UNKNOWN_STAYS, 4),
    (a_refusal_after_a_server_error_is_a_refusal, UNKNOWN_STAYS, 5),
    (a_409_is_a_refusal, CLOSED, 3),
    (a_409_is_a_refusal, ONCE, 6),
    (a_server_error_means_not_sent, CLOSED, 6),
    (a_retry_forgets_the_key, CLOSED, 5),
    (a_retry_forgets_the_key, UNKNOWN_STAYS, 5),
    (a_retry_forgets_the_key, ONCE, 7),
    (a_retry_opens_the_post, CLOSED, 5),
    (an_expired_claim_is_no_claim, CLOSED, 3),
    (an_expired_claim_is_no_claim, ONCE, 6),
    (a_call_that_never_started_frees_the_post_whatever_went_before, CLOSED, 5),
    (a_call_that_never_started_frees_the_post_whatever_went_before, UNKNOWN_STAYS, 4),
    (a_late_finish_counts, CLOSED, 5),
    (a_claimed_post_can_be_deleted, CLOSED, 2),
    (a_bulk_job_moves_a_claimed_post, CLOSED, 2),
    (a_key_never_grows_too_old, ONCE, 5),
    (a_retry_makes_the_key_young_again, ONCE, 7),
    (dead_workers_are_not_counted, ENDS, 1),
    (not_now_has_no_end, ENDS, 1),
    (a_claim_between_tries_has_no_time, ENDS, 1),
    (a_repeat_says_what_the_row_says_now, ONE_BODY, 5),
    (each_try_has_a_key_of_its_own, ONCE, 5),
    (a_claim_takes_what_is_held, HELD, 2),
    (a_resume_lets_go_what_missed_its_time, HELD, 3),
    (a_new_try_may_begin_under_a_hold, HELD, 5),
]


@pytest.mark.parametrize(
    ("twin", "promise", "depth"), TWINS, ids=[f"{twin.__name__}: {promise}" for twin, promise, _ in TWINS]
)
def test_an_old_rule_is_found_out(
    twin: Callable[[pytest.MonkeyPatch], None], promise: str, depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin(monkeypatch)
    found = search(DEPTH, {promise}, start=first(holds=int(promise == HELD)))
    assert (found.broken, found.depth) == (promise, depth), found
    assert len(found.story) == depth


def test_every_promise_can_be_broken() -> None:
    assert {promise for _, promise, _ in TWINS} | {TRUE} == set(PROMISES)
    lie = first()._replace(facts=replace(first().facts, status=Status.POSTED))
    assert list(publishing.broken(lie)) == [TRUE]
