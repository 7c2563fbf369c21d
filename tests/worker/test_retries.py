"""What comes next: the whole table of docs/services.md, every status, with and without an unknown try before. Pure."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.domain.failure_classes import FailureClass
from shared.domain.service_answers import KEY_TOO_OLD, Outcome, Past, Reply, read
from worker.retries import Done, GiveUp, Limits, Retry, Step, backoff, before_retaking, wait, what_next

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
FIRST = Past()
AFTER_UNKNOWN = Past(unknown=1, uncertain=True, maybe_sent=True)
AFTER_BROKEN = Past(failures=1, failing_since=NOW, maybe_sent=True)
RENDERS = Limits(unavailable="renderer_unavailable", refused="refused by the renderer", effect=False)

IN_DOUBT = GiveUp("publish_outcome_unknown", FailureClass.UNKNOWN)
REFUSED = GiveUp("caption too long", FailureClass.REFUSED, "caption too long")
UNAVAILABLE = GiveUp("publisher_unavailable", FailureClass.UNAVAILABLE)
NOT_RENDERED = GiveUp("renderer_unavailable", FailureClass.RENDER_UNAVAILABLE)

BODIES: dict[str, bytes] = {
    "no body": b"",
    "object": b'{"platformPostId": "tt_1"}',
    "processing": b'{"status": "processing"}',
    "Processing": b'{"status": "Processing"}',
    "error": b'{"error": {"message": "caption too long"}}',
    "no object": b'["ok"]',
    "login page": b"<!doctype html><title>Log in</title>",
}


def next_after(outcome: Outcome, past: Past = FIRST, *, asks: float | None = None, **given: Any) -> Step:
    usual: dict[str, Any] = {"now": NOW, "jitter": 1.0}
    return what_next(Reply(outcome, retry_after=asks), past, **usual | given)


def again(seconds: float, *, free: bool = False) -> Retry:
    return Retry(NOW + timedelta(seconds=seconds), free=free)


def table(status: int, form: str, *, repeat: bool) -> Step:
    """docs/services.md once more, in other words. The wait of a first failure is 2 s, of a second one 6 s."""
    backed_off = again(6 if repeat else 2)
    if status == 202 or (200 <= status <= 299 and form.lower() == "processing"):
        return again(10 * 1.1)
    if 200 <= status <= 299:
        return backed_off if form in {"no object", "login page"} else Done()
    if status in {408, 409, 421, 423, 425, 429}:
        return again(2)
    if 300 <= status <= 399 or status in {401, 403, 404, 405, 407} or status < 200 or status >= 500:
        return backed_off
    words = "caption too long" if form == "error" else f"the service answered {status}"
    return replace(IN_DOUBT, message=words) if repeat else GiveUp(words, FailureClass.REFUSED, words)


@pytest.mark.parametrize("form", BODIES)
@pytest.mark.parametrize(
    "past", [FIRST, AFTER_UNKNOWN, AFTER_BROKEN], ids=["first", "after an unknown try", "after a server error"]
)
def test_every_status_with_every_body_first_and_after_a_try_that_may_have_been_sent(form: str, past: Past) -> None:
    for status in range(100, 600):
        step = what_next(read("publish", status, BODIES[form]), past, now=NOW, jitter=1.0)
        assert step == table(status, form, repeat=past is not FIRST), status


@pytest.mark.parametrize("form", BODIES)
def test_no_answer_at_all_opens_a_post_and_none_but_a_2xx_settles_an_unknown_try(form: str) -> None:
    for status in range(100, 600):
        for past in (FIRST, AFTER_UNKNOWN):
            reply = read("publish", status, BODIES[form])
            step = what_next(reply, past, now=NOW, jitter=0.0)
            assert not (isinstance(step, Retry) and step.free), status
            if past is AFTER_UNKNOWN and not isinstance(step, Done):
                assert past.with_try(reply.outcome, NOW).uncertain, status


def test_only_a_call_that_never_started_frees_the_post_and_only_where_none_before_may_have_been_sent() -> None:
    assert next_after(Outcome.NEVER_STARTED) == again(2, free=True)
    assert next_after(Outcome.NEVER_STARTED, Past.of([(Outcome.NEVER_STARTED, NOW)])) == again(6, free=True)
    for outcome in set(Outcome) - {Outcome.NEVER_STARTED, Outcome.REFUSED, Outcome.DONE}:
        step = next_after(Outcome.NEVER_STARTED, Past.of([(outcome, NOW)]))
        assert isinstance(step, Retry)
        assert not step.free, outcome


@pytest.mark.parametrize(
    ("outcome", "asks", "seconds"),
    [
        (Outcome.PROCESSING, None, 10),
        (Outcome.PROCESSING, 3, 3),
        (Outcome.PROCESSING, 0, 1),
        (Outcome.PROCESSING, 1e12, 900),
        (Outcome.NOT_NOW, None, 1),
        (Outcome.NOT_NOW, 30, 30),
        (Outcome.NOT_NOW, 0, 1),
        (Outcome.NOT_NOW, 901, 900),
        (Outcome.SERVER_ERROR, 30, 30),
        (Outcome.SERVER_ERROR, 0, 1),
        (Outcome.MISCONFIGURED, 7200, 900),
    ],
)
def test_a_wait_that_is_asked_for_is_kept_and_bounded(outcome: Outcome, asks: float | None, seconds: float) -> None:
    assert next_after(outcome, asks=asks, jitter=0.0) == again(seconds)
    latest = next_after(outcome, asks=asks, jitter=1.0)
    assert isinstance(latest, Retry)
    assert timedelta(seconds=seconds) <= latest.at - NOW <= timedelta(seconds=min(900, max(2 * seconds, 2)))


@pytest.mark.parametrize("outcome", [Outcome.PROCESSING, Outcome.NOT_NOW])
@pytest.mark.parametrize(
    ("asks", "minutes", "seconds"),
    [(0, 0, 1), (0, 1, 1), (0, 2, 2), (0, 30, 30), (0, 59, 59), (20, 10, 20), (20, 30, 30), (900, 59, 900)],
)
def test_the_longer_a_service_asks_to_wait_the_longer_is_each_wait(
    outcome: Outcome, asks: float, minutes: float, seconds: float
) -> None:
    asking = timedelta(minutes=minutes)
    since = NOW - asking
    past = Past(waits=9, busy_since=since) if outcome is Outcome.NOT_NOW else Past(working_since=since)
    assert next_after(outcome, past, asks=asks, jitter=0.0) == again(seconds)
    assert wait(Reply(outcome, retry_after=asks), 9, 1.0, asking) == timedelta(seconds=min(900, seconds * 1.1))


@pytest.mark.parametrize("outcome", [Outcome.PROCESSING, Outcome.NOT_NOW])
def test_a_service_that_says_at_once_for_an_hour_is_asked_some_300_times(outcome: Outcome) -> None:
    now, past, asked = NOW, Past(), 0
    while isinstance(step := what_next(Reply(outcome, retry_after=0), past, now=now, jitter=0.0), Retry):
        past, now, asked = past.with_try(outcome, now), step.at, asked + 1
    assert 250 < asked < 350


def test_a_failing_service_that_asks_for_less_than_the_backoff_gets_the_backoff() -> None:
    assert wait(Reply(Outcome.SERVER_ERROR, retry_after=1), 5, 1.0) == backoff(5, 1.0)


def test_waits_triple_from_two_seconds_to_a_quarter_of_an_hour() -> None:
    waits = [backoff(tries, 1.0).total_seconds() for tries in range(1, 10)]
    assert waits == [2, 6, 18, 54, 162, 486, 900, 900, 900]
    assert backoff(100_000, 1.0).total_seconds() == 900


def test_jitter_takes_off_at_most_half_of_a_wait() -> None:
    assert backoff(3, 0.0) == timedelta(seconds=9)
    assert backoff(3, 0.5) == timedelta(seconds=13.5)


def test_ten_tries_fit_into_the_hour_whatever_the_jitter() -> None:
    assert sum((backoff(tries, 1.0) for tries in range(1, 10)), timedelta()) < HOUR
    assert sum((backoff(tries, 0.0) for tries in range(1, 10)), timedelta()) > timedelta(minutes=25)


@pytest.mark.parametrize("outcome", [Outcome.NEVER_STARTED, Outcome.SERVER_ERROR, Outcome.MISCONFIGURED])
def test_the_tenth_failure_gives_up_as_unavailable_and_an_hour_is_enough(outcome: Outcome) -> None:
    def failed(times: int, since: datetime) -> Past:
        return Past(failures=times, failing_since=since)

    assert isinstance(next_after(outcome, failed(8, NOW)), Retry)
    misconfigured = outcome is Outcome.MISCONFIGURED
    expected = replace(UNAVAILABLE, failure=FailureClass.MISCONFIGURED) if misconfigured else UNAVAILABLE
    assert next_after(outcome, failed(9, NOW)) == expected
    assert isinstance(next_after(outcome, failed(2, NOW - timedelta(minutes=59))), Retry)
    assert next_after(outcome, failed(2, NOW - HOUR)) == expected


def test_not_now_uses_up_no_try_and_ends_after_an_hour() -> None:
    busy = Past(waits=500, failures=9, busy_since=NOW - timedelta(minutes=59))
    assert isinstance(next_after(Outcome.NOT_NOW, busy), Retry)
    assert next_after(Outcome.NOT_NOW, Past(waits=3, busy_since=NOW - HOUR)) == GiveUp(
        "publisher_unavailable", FailureClass.BUSY
    )
    unknown = Past(waits=3, busy_since=NOW - HOUR, unknown=1, uncertain=True)
    assert next_after(Outcome.NOT_NOW, unknown) == IN_DOUBT


def test_still_at_work_uses_up_no_try_and_is_unknown_after_an_hour() -> None:
    working = Past(failures=9, unknown=2, working_since=NOW - timedelta(minutes=59))
    assert next_after(Outcome.PROCESSING, working, jitter=0.0) == again(59)
    assert next_after(Outcome.PROCESSING, Past(working_since=NOW - HOUR)) == IN_DOUBT


def test_a_publisher_that_took_the_post_and_then_went_away_leaves_it_unknown() -> None:
    taken = Past(failures=9, failing_since=NOW, accepted=True, maybe_sent=True)
    assert next_after(Outcome.NEVER_STARTED, taken) == IN_DOUBT


@pytest.mark.parametrize("outcome", sorted(set(Outcome) - {Outcome.NEVER_STARTED, Outcome.REFUSED, Outcome.DONE}))
def test_a_refusal_after_any_try_that_may_have_been_sent_leaves_the_outcome_unknown(outcome: Outcome) -> None:
    refused = Reply(Outcome.REFUSED, message="caption too long")
    past = Past.of([(outcome, NOW), (Outcome.NEVER_STARTED, NOW)])
    for before in (past, past.forgiven()):
        assert what_next(refused, before, now=NOW, jitter=0.0) == replace(IN_DOUBT, message="caption too long")
    assert what_next(refused, past.forgiven(not_sent=True), now=NOW, jitter=0.0) == REFUSED
    render = what_next(refused, past, now=NOW, jitter=0.0, limits=RENDERS)
    assert render == replace(REFUSED, failure=FailureClass.RENDER_REFUSED)


def test_a_refusal_after_tries_that_certainly_had_no_effect_has_the_last_word() -> None:
    step = what_next(
        Reply(Outcome.REFUSED, message="caption too long"),
        Past.of([(Outcome.NEVER_STARTED, NOW)] * 3),
        now=NOW,
        jitter=0.0,
    )
    assert step == REFUSED


def test_the_third_unknown_outcome_gives_up_as_unknown() -> None:
    assert next_after(Outcome.UNKNOWN, Past(unknown=1, uncertain=True)) == again(6)
    assert next_after(Outcome.UNKNOWN, Past(unknown=2, uncertain=True)) == IN_DOUBT


def test_an_unknown_try_of_before_an_operators_retry_is_still_unknown() -> None:
    past = Past(unknown=3, uncertain=True, maybe_sent=True).forgiven()
    assert isinstance(next_after(Outcome.UNKNOWN, past), Retry)
    assert next_after(Outcome.REFUSED, past) == IN_DOUBT
    assert next_after(Outcome.REFUSED, past.forgiven(not_sent=True)) == GiveUp(
        "refused by the publisher", FailureClass.REFUSED
    )


def test_a_claim_whose_holders_all_died_is_not_retaken_for_ever() -> None:
    assert before_retaking(Past(unknown=2), NOW) is None
    assert before_retaking(Past(unknown=3), NOW) == replace(IN_DOUBT, message="its worker was gone")


def test_a_claim_whose_key_the_publisher_may_have_forgotten_is_not_retaken() -> None:
    past = Past(maybe_sent=True, maybe_since=NOW - 23 * HOUR)
    assert before_retaking(past, NOW - timedelta(seconds=1)) is None
    assert before_retaking(past, NOW) == replace(IN_DOUBT, message=KEY_TOO_OLD)
    assert before_retaking(past, NOW, Limits(keeps_keys=2 * 86_400)) is None


def test_a_render_whose_outcome_is_unknown_has_failed_and_no_more() -> None:
    assert next_after(Outcome.UNKNOWN, Past(failures=8), limits=RENDERS) == again(900)
    assert next_after(Outcome.UNKNOWN, Past(failures=9), limits=RENDERS) == NOT_RENDERED
    assert next_after(Outcome.PROCESSING, Past(working_since=NOW - HOUR), limits=RENDERS) == replace(
        NOT_RENDERED, failure=FailureClass.RENDER_BUSY
    )
    assert next_after(Outcome.REFUSED, limits=RENDERS) == GiveUp("refused by the renderer", FailureClass.RENDER_REFUSED)


def test_a_refusal_whose_words_are_those_of_an_unknown_outcome_is_a_refusal() -> None:
    reply = read("publish", 422, b'{"error": {"message": "publish_outcome_unknown"}}')
    step = what_next(reply, FIRST, now=NOW, jitter=0.0)
    assert step == GiveUp("publish_outcome_unknown", FailureClass.REFUSED, "publish_outcome_unknown")


def test_whatever_a_publisher_answers_the_tries_end() -> None:
    """The longest that any mixture of answers lasts, found by always taking the one that still goes on."""
    now, past, tries = NOW, Past(), 0
    kinds = [Outcome.UNKNOWN, Outcome.NEVER_STARTED, Outcome.NOT_NOW, Outcome.PROCESSING]
    while True:
        steps = {kind: what_next(Reply(kind), past, now=now, jitter=0.0) for kind in kinds}
        going = {kind: step for kind, step in steps.items() if isinstance(step, Retry)}
        if not going:
            break
        kind, step = min(going.items(), key=lambda one: one[1].at)
        past, now, tries = past.with_try(kind, now), step.at, tries + 1
        assert tries < 2000
    assert now - NOW < timedelta(hours=3)
