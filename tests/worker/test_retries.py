"""When to try again and when to give up: pure."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from worker.retries import Again, GiveUp, Outcome, after_failure, backoff, before_retaking

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def after(outcome: Outcome, never_started: int = 0, unknown: int = 0, **given: Any) -> Again | GiveUp:
    facts: dict[str, Any] = {"first_at": NOW, "now": NOW, "luck": 1.0} | given
    return after_failure(outcome, never_started=never_started, unknown=unknown, **facts)


def test_waits_triple_from_two_seconds_to_a_quarter_of_an_hour() -> None:
    waits = [backoff(tries, 1.0).total_seconds() for tries in range(1, 10)]
    assert waits == [2, 6, 18, 54, 162, 486, 900, 900, 900]
    assert backoff(100_000, 1.0).total_seconds() == 900


def test_luck_takes_off_at_most_half_of_a_wait() -> None:
    assert backoff(3, 0.0) == timedelta(seconds=9)
    assert backoff(3, 0.5) == timedelta(seconds=13.5)


def test_ten_tries_fit_into_the_hour_whatever_the_luck() -> None:
    assert sum((backoff(tries, 1.0) for tries in range(1, 10)), timedelta()) < timedelta(hours=1)
    assert sum((backoff(tries, 0.0) for tries in range(1, 10)), timedelta()) > timedelta(minutes=25)


@pytest.mark.parametrize("outcome", [Outcome.NEVER_STARTED, Outcome.SERVER_ERROR])
def test_the_tenth_failure_to_start_or_5xx_gives_up_as_unavailable(outcome: Outcome) -> None:
    assert after(outcome, never_started=9) == Again(NOW + timedelta(seconds=900))
    assert after(outcome, never_started=10) == GiveUp("publisher_unavailable")


def test_an_hour_after_the_first_try_is_enough() -> None:
    assert after(Outcome.SERVER_ERROR, 2, first_at=NOW - timedelta(hours=1)) == GiveUp("publisher_unavailable")
    assert isinstance(after(Outcome.SERVER_ERROR, 2, first_at=NOW - timedelta(minutes=59)), Again)


def test_the_third_unknown_outcome_gives_up_as_unknown() -> None:
    assert isinstance(after(Outcome.UNKNOWN, unknown=2), Again)
    assert after(Outcome.UNKNOWN, unknown=3) == GiveUp("publish_outcome_unknown")


def test_one_unknown_outcome_among_the_tries_outweighs_the_rest() -> None:
    assert after(Outcome.SERVER_ERROR, never_started=10, unknown=1) == GiveUp("publish_outcome_unknown")


def test_a_claim_whose_holders_all_died_is_not_retaken_for_ever() -> None:
    assert before_retaking(unknown=2) is None
    assert before_retaking(unknown=3) == GiveUp("publish_outcome_unknown")
