"""What the watchdog of an API under test says, and to whom (tests/watched_api.py)."""

from typing import Final, Protocol

HELD: Final = 0.25
"""Seconds for which one request may hold the event loop: whatever holds it, stops everybody's requests."""

SAID: Final = "the event loop was held for"


class Speaks(Protocol):
    """A process whose output is kept."""

    def output(self) -> str: ...


def held_up(api: Speaks | None) -> list[str]:
    """What the API's watchdog has said so far, a line for each time that its event loop was held for too long."""
    return [line for line in api.output().splitlines() if SAID in line] if api is not None else []
