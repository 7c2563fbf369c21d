"""The kinds of failure: of every last outcome, and of rows from before the kinds were recorded. Pure."""

import pytest

from shared.domain import failure_classes
from shared.domain.failure_classes import MEANINGS, FailureClass
from shared.domain.service_answers import Outcome


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Outcome.REFUSED, "refused"),
        (Outcome.MISCONFIGURED, "misconfigured"),
        (Outcome.NEVER_STARTED, "unavailable"),
        (Outcome.SERVER_ERROR, "unavailable"),
        (Outcome.UNKNOWN, "unavailable"),
        (Outcome.NOT_NOW, "busy"),
        (Outcome.PROCESSING, "busy"),
    ],
)
def test_the_last_outcome_says_which_kind_of_failure(outcome: Outcome, expected: str) -> None:
    assert failure_classes.after(outcome, render=False) == expected
    assert failure_classes.after(outcome, render=True) == f"render_{expected}"


@pytest.mark.parametrize(
    ("recorded", "reason", "expected"),
    [
        (None, "publish_outcome_unknown", "unknown"),
        (None, "publisher_unavailable", "unavailable"),
        (None, "renderer_unavailable", "render_unavailable"),
        (None, "caption too long", "refused"),
        # Where a kind was recorded, the reason's text decides nothing.
        ("refused", "publish_outcome_unknown", "refused"),
        ("misconfigured", "publisher_unavailable", "misconfigured"),
    ],
)
def test_the_text_of_a_reason_decides_only_where_no_kind_was_recorded(
    recorded: str | None, reason: str, expected: str
) -> None:
    assert failure_classes.of_row(recorded, reason) is FailureClass(expected)


def test_each_kind_has_a_meaning() -> None:
    assert set(MEANINGS) == set(FailureClass)
