"""What a publisher that plays against us may do with one request: pure, from a chance that a seed makes."""

import json
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Final, Literal

NOT_NOW: Final = (408, 409, 421, 423, 425, 429)
SET_UP_WRONGLY: Final = (301, 302, 307, 308, 401, 403, 404, 405, 407)
REFUSED: Final = (400, 402, 406, 410, 413, 414, 415, 418, 422, 451)
BROKEN: Final = (500, 501, 502, 503, 504, 507, 599)
LOGIN_PAGE: Final = "<!doctype html><title>Log in</title>"

When = Literal["before", "after", "never"]
Form = Literal["whole", "twice", "cut", "drip", "silent", "reset"]


@dataclass(frozen=True, slots=True)
class Move:
    """`effect`: whether it comes about, and when. `waits`: seconds before the answer, `later`: seconds from there to an
    effect `after`. `status` None: the effect's own answer, 200. `form`: how the answer comes, if it does.
    """

    effect: When
    status: int | None = None
    said: str = ""
    retry_after: str | None = None
    waits: float = 0.0
    later: float = 0.0
    form: Form = "whole"

    @property
    def done(self) -> bool:
        """Whether it says that the post is out: then it is."""
        return self.status is None


def play(chance: random.Random, patience: float) -> Move:
    """Anything that docs/services.md has a meaning for. `patience`: the seconds that the caller waits for an answer."""
    effect: When = chance.choice(("before", "after", "never"))
    waits = chance.choice((0.0, 0.0, 0.0, patience / 4, patience * 1.5))
    later = chance.choice((0.0, patience / 2, patience * 3))
    form: Form = chance.choices(("whole", "twice", "cut", "drip", "silent", "reset"), (70, 6, 6, 4, 7, 7))[0]
    asks = chance.choice((None, None, "0", "1", "a year from now", "soon"))
    if asks == "a year from now":
        asks = format_datetime(datetime.now(UTC) + timedelta(days=365), usegmt=True)
    kind = chance.choices(
        ("done", "at work", "not now", "set up wrongly", "refused", "broken", "no service"),
        (14, 14, 20, 10, 14, 16, 12),
    )[0]
    move = Move(effect, 200, "", asks, waits, later, form)
    if kind == "done":
        # Said although the caller may not hear it.
        return Move("before", None, "", None, waits, 0.0, form)
    if kind == "at work":
        status, said = chance.choice(((202, ""), (202, '{"jobId": 7}'), (200, '{"status": "processing"}')))
        return _with(move, status, said)
    if kind == "no service":
        return _with(move, chance.choice((200, 201, 203)), chance.choice((LOGIN_PAGE, '["ok"]', "ok", '"done"')))
    if kind == "refused":
        # A refusal is of this request: it has no effect, neither then nor later.
        return _with(Move("never", 400, "", asks, waits, 0.0, form), chance.choice(REFUSED), error(kind))
    statuses = {"not now": NOT_NOW, "set up wrongly": SET_UP_WRONGLY, "broken": BROKEN}[kind]
    return _with(move, chance.choice(statuses), chance.choice((error(kind), "", LOGIN_PAGE)))


def _with(move: Move, status: int, said: str) -> Move:
    return Move(move.effect, status, said, move.retry_after, move.waits, move.later, move.form)


def error(words: str) -> str:
    return json.dumps({"error": {"message": words}})


def tame(chance: random.Random) -> Move | None:
    """As a good publisher does on a bad day: nothing that loses a post. None: all goes well."""
    return chance.choices(
        (
            None,
            Move("never", 503, error("restarting"), "1"),
            Move("never", 429, error("busy"), "2"),
            Move("never", 202, '{"status": "processing"}', "1"),
            Move("before", 500, error("it went out, but the answer got lost")),
            Move("before", None, waits=2.0),
        ),
        (75, 5, 5, 5, 5, 5),
    )[0]
