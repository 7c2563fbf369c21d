"""The memory that bodies of many edits take is bounded, and one workspace leaves the others a share of it."""

from contextlib import ExitStack

import pytest

from api.http.large_bodies import KIB_AT_MOST, LargeBodies

BODY = 2 * 1024 * 1024
MOST_OF_ONE = KIB_AT_MOST * 3 // 4 // 2048
"""Bodies of 2 MiB that one workspace may have in hand."""


def test_one_workspace_leaves_a_quarter_to_the_others_and_places_come_back() -> None:
    bodies = LargeBodies()
    with ExitStack() as taken:
        for _ in range(MOST_OF_ONE):
            assert bodies.admits("ws_flood")
            taken.enter_context(bodies.place_for("ws_flood", BODY))
        assert not bodies.admits("ws_flood")
        assert bodies.admits("ws_quiet")
        with bodies.place_for("ws_quiet", BODY):
            assert not bodies.admits("ws_flood")
    assert bodies.admits("ws_flood")


def test_a_request_that_fails_gives_its_place_back() -> None:
    bodies = LargeBodies()
    for _ in range(3 * MOST_OF_ONE):
        assert bodies.admits("ws")
        with pytest.raises(ValueError, match="bad"), bodies.place_for("ws", BODY):
            raise ValueError("bad")
