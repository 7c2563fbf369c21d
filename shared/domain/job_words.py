"""A bulk job in words, as operators read it. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from shared.domain.plurals import counted
from shared.domain.reschedules import WORDS

FROM_TO: Final = (("scheduledFrom", "from"), ("scheduledTo", "before"))


def which(meant: Mapping[str, Any] | None, kind: str, total: int | None) -> str:
    """The posts that a job means. `meant`: its filter as a client sends it, or None; `kind`: that of its plan."""
    if meant is None:
        posts = "its posts" if total is None else counted(total, "post")
        return (
            f"{posts} that the job to revert has moved" if kind == "revert" else f"{posts}, each with a time of its own"
        )
    if ids := meant.get("postIds"):
        named = f"{counted(len(ids), 'post')} by id"
        return named if len(ids) > SHOWN else f"{named}: {', '.join(ids)}"
    conditions = []
    if accounts := meant.get("accountIds"):
        conditions.append(f"of {'account' if len(accounts) == 1 else 'accounts'} {', '.join(accounts[:SHOWN])}")
        if len(accounts) > SHOWN:
            conditions[-1] += f" and {len(accounts) - SHOWN} more"
    if platform := meant.get("platform"):
        conditions.append(f"on {platform}")
    times = [f"{word} {meant[name]}" for name, word in FROM_TO if name in meant]
    if times:
        conditions.append(f"due {' '.join(times)}")
    return " ".join(["all posts that wait", *conditions])


SHOWN: Final = 5


def why(reason: str | None) -> str:
    """Why a post was not moved, in a sentence."""
    return WORDS.get(reason or "", (reason or "no reason is known").replace("_", " "))
