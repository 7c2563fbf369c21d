"""Which hold counts, and what a resume does: every case of the tables in docs/lifecycle.md."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from shared.domain.holds import MISSED, REDRAFT, Hold, Holds, Level, Resume, fault_of_reason, in_effect, resume
from shared.domain.lifecycle import ClaimKind

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
OWN = Hold(Level.POST, NOON, "kim", "typo")
ACCOUNT = Hold(Level.ACCOUNT, NOON, "kim", None)
WORKSPACE = Hold(Level.WORKSPACE, NOON, "kim", None)
NOW_MISSED = Hold(Level.POST, NOON, REDRAFT, MISSED, missed=True)
ALL = Holds(OWN, 3, NOON, ACCOUNT, WORKSPACE)


@pytest.mark.parametrize(
    ("holds", "counts"),
    [
        (Holds(), None),
        (ALL, OWN),
        (replace(ALL, own=None), replace(NOW_MISSED, above=ACCOUNT)),
        (replace(ALL, own=None, account=None), replace(NOW_MISSED, above=WORKSPACE)),
        (replace(ALL, own=None, account=None, workspace=None), NOW_MISSED),
        (replace(ALL, own=None, missed_revision=2), ACCOUNT),
        (Holds(account=ACCOUNT, workspace=WORKSPACE), ACCOUNT),
        (Holds(workspace=WORKSPACE), WORKSPACE),
        (Holds(missed_revision=2, missed_at=NOON), None),
    ],
    ids=[
        "nothing", "its own", "missed and its account", "missed and its workspace", "missed", "a new time ends missed",
        "its account", "its workspace", "moved since",
    ],
)  # fmt: skip
def test_the_nearest_hold_counts(holds: Holds, counts: Hold | None) -> None:
    assert in_effect(holds, 3) == counts


NONE, MISS, RELEASE = Resume.NOTHING, Resume.MISS, Resume.RELEASE


@pytest.mark.parametrize(
    ("own", "missed", "due", "claim", "plain", "publish"),
    [
        (False, False, False, None, NONE, NONE),
        (False, False, True, None, NONE, NONE),
        (True, False, False, None, RELEASE, RELEASE),
        (True, False, True, None, MISS, RELEASE),
        (False, True, True, None, NONE, RELEASE),
        (True, True, True, None, MISS, RELEASE),
        (True, False, True, ClaimKind.RENDER, MISS, RELEASE),
        (True, False, True, ClaimKind.PUBLISH, RELEASE, RELEASE),
    ],
)
def test_a_resume_lets_go_what_waits_and_keeps_what_was_missed(  # noqa: PLR0917  -- the table's columns
    own: bool, missed: bool, due: bool, claim: ClaimKind | None, plain: Resume, publish: Resume
) -> None:  # fmt: skip
    holds = Holds(OWN if own else None, 3 if missed else None, NOON if missed else None, ACCOUNT)
    assert resume(holds, 3, claim, due=due, publish_missed=False) is plain
    assert resume(holds, 3, claim, due=due, publish_missed=True) is publish


def test_a_hold_as_clients_see_it() -> None:
    shown = {"since": "2026-03-01T12:00:00Z", "by": "kim", "of": "post", "reason": "typo"}
    assert OWN.public() == shown


@pytest.mark.parametrize(
    ("reason", "wrong"),
    [
        ("the price is wrong", None),
        ("x" * 500, None),
        ("x" * 501, "may have at most 500 characters and has 501; shorten it"),
        ("a\nb", "must be one line without control characters; take the others out"),
        ("a\u202eb", "must be one line without control characters; take the others out"),
    ],
)
def test_a_reason_is_one_short_line(reason: str, wrong: str | None) -> None:
    assert fault_of_reason(reason) == wrong
