"""Holds: what keeps a post from going out, which hold counts, and what a resume does (docs/lifecycle.md). Pure.

A post, an account or a workspace is held. No publish claims what is held. Edits, renders and bulk jobs go on as ever.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from shared.domain.lifecycle import ClaimKind, Status
from shared.domain.one_line import fault_of_line
from shared.domain.times import format_instant

MISSED: Final = "missed"
"""The reason of a hold that Redraft itself took: the post's time went by while it was held."""
REDRAFT: Final = "redraft"
WAITING: Final = frozenset({Status.PENDING_RENDER, Status.GENERATED})
"""Posts in these statuses can be held."""
REASON_MAX: Final = 500


def fault_of_reason(reason: str) -> str | None:
    """What is wrong with the reason of a hold, read after its name; None if it will do."""
    if len(reason) > REASON_MAX:
        return f"may have at most {REASON_MAX} characters and has {len(reason):,}; shorten it"
    return fault_of_line(reason)


class Level(StrEnum):
    """What is held."""

    POST = "post"
    ACCOUNT = "account"
    WORKSPACE = "workspace"


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold. `by`: the name of an operator or of an API key; `reason`: their words, or None. `missed`: Redraft
    took it, since the post's time went by while it was held. `above`, of a missed one: the hold of the post's account
    or workspace, which keeps the post too.
    """

    level: Level
    since: datetime
    by: str
    reason: str | None
    missed: bool = False
    above: "Hold | None" = None

    def public(self) -> dict[str, Any]:
        """The hold as clients see it."""
        return {"since": format_instant(self.since), "by": self.by, "of": self.level.value, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Holds:
    """All that may hold one post. `missed_revision`: the schedule revision of the time that went by, at `missed_at`.

    A new time is a new schedule revision. So each edit and each bulk job that moves the post ends its missed hold, also
    one that runs in an older version.
    """

    own: Hold | None = None
    missed_revision: int | None = None
    missed_at: datetime | None = None
    account: Hold | None = None
    workspace: Hold | None = None

    @property
    def above(self) -> Hold | None:
        """The hold of the post's account or workspace. While it stands no word about the post alone lets it go out."""
        return self.account or self.workspace


def in_effect(holds: Holds, schedule_revision: int) -> Hold | None:
    """The hold that counts, the nearest first: the post's own, its missed time, its account, its workspace."""
    missed = None
    if holds.missed_at is not None and holds.missed_revision == schedule_revision:
        missed = Hold(Level.POST, holds.missed_at, REDRAFT, MISSED, missed=True, above=holds.above)
    return holds.own or missed or holds.account or holds.workspace


class Resume(StrEnum):
    """What a resume does to one post. `MISS`: its time has gone by, so it stays held, with reason `missed`."""

    NOTHING = "nothing"
    RELEASE = "release"
    MISS = "miss"


def resume(
    holds: Holds, schedule_revision: int, claim: ClaimKind | None, *, due: bool, publish_missed: bool
) -> Resume:  # fmt: skip
    """The resume of a post that waits. `due`: its time has come. `publish_missed`: the caller said "publish now".

    A post that a publish has claimed was named as going out when it was held. So its time was not missed.
    """
    missed = holds.missed_revision == schedule_revision
    if holds.own is None and not missed:
        return Resume.NOTHING
    if publish_missed or claim is ClaimKind.PUBLISH:
        return Resume.RELEASE
    if missed and holds.own is None:
        return Resume.NOTHING
    return Resume.MISS if due or missed else Resume.RELEASE
