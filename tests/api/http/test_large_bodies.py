"""The memory that bodies of many edits take is bounded, and one workspace leaves the others a share of it."""

import pytest

from api.http import turns
from api.http.large_bodies import KIB_AT_MOST, LargeBodies
from shared.domain.errors import Unavailable

MIB = 1024 * 1024
MOST_OF_ONE = KIB_AT_MOST * 3 // 4 // 2048
"""Bodies of 2 MiB that one workspace may have in hand."""


def test_one_workspace_leaves_a_quarter_to_the_others_and_places_come_back() -> None:
    bodies = LargeBodies()
    turns.owner.set("ws_flood")
    taken = [bodies.place_for(2 * MIB) for _ in range(MOST_OF_ONE)]
    for place in taken:
        place.__enter__()
    kept = KIB_AT_MOST - MOST_OF_ONE * 2048
    assert kept >= KIB_AT_MOST // 4
    with pytest.raises(Unavailable), bodies.place_for(10 * MIB), bodies.place_for(1):
        pass
    turns.owner.set("ws_quiet")
    with bodies.place_for(2 * MIB):
        pass
    taken.pop().__exit__(None, None, None)
    turns.owner.set("ws_flood")
    with bodies.place_for(1), pytest.raises(ValueError, match="once"), bodies.place_for(2 * MIB):
        raise ValueError("once")
    with bodies.place_for(2 * MIB):
        pass
