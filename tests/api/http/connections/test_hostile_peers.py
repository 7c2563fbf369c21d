"""All kinds of hostile peers at once: each is ended, memory and files stay within bounds, others are answered.

Ten minutes of it with the real limits are row 24 of the faults, tests/faults/test_connections.py.
"""

import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from api.http import timeouts
from shared.local import commands
from shared.local.postgres import PostgreSQL
from shared.local.valkey import Valkey
from tests.api.http.connections.against import MEBIBYTE, against, large_pages
from tests.api.http.connections.hostile import PEERS
from tests.api.http.connections.peers import Peer
from tests.api.http.connections.short_limits import FASTER
from tests.conftest import TEMPLATE, empty_database
from tests.ports import free_port
from tests.stack import Running
from tests.waiting import eventually


@pytest.fixture(scope="module")
def stack(postgres: PostgreSQL, valkey: Valkey) -> Iterator[Running]:
    url = postgres.create_database("hostile_peers", template=TEMPLATE)
    with large_pages(url, empty_database(valkey)) as stack:
        yield stack


def answers(port: int) -> bool:
    with suppress(OSError), Peer(port) as peer:
        return peer.send(b"GET /healthz HTTP/1.0\r\n\r\n").answer().status == 200
    return False


def test_hostile_peers_are_ended_and_others_answered(stack: Running) -> None:
    argv = [
        sys.executable,
        "-m",
        "tests.api.http.connections.short_limits",
        *commands.api(port=(port := free_port()))[3:],
    ]
    api = stack.processes.start(argv, **stack.environment)
    api.port = port
    eventually(lambda: answers(port), within=30, because="the API answers")
    each = 4
    crowd, watched = against(stack, api, seconds=15, each=each, beat=1 / FASTER)
    longest = {name: max(lives) for name, lives in crowd.lives.items()}
    assert set(longest) == {peer.__name__ for peer in PEERS}, "each kind was ended at least once"
    assert max(longest.values()) < 2 * max(timeouts.LIMITS.values()) / FASTER, longest
    assert max(watched.files) < 4 * each * len(PEERS) + 100
    assert max(watched.memory) - watched.memory[0] < 200 * MEBIBYTE
    assert api.stop(within=20) in (0, -15)
