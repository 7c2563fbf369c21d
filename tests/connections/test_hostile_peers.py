"""All kinds of hostile peers at once: each is ended, memory and files stay within bounds, others are answered."""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import psutil
import pytest

from api import timeouts
from shared.local import commands
from shared.local.datadir import free_port
from shared.local.postgres import PostgreSQL
from shared.local.valkey import Valkey
from tests import rows
from tests.conftest import LOGICAL_DATABASES, TEMPLATE
from tests.connections.hostile import PEERS, Crowd
from tests.connections.hurried import FASTER
from tests.connections.peers import OTHER, Peer, exchange
from tests.processes import Process
from tests.stack import Running, running
from tests.waiting import eventually

MEBIBYTE = 2**20
LONG = 600
# Seconds, on however busy a machine: a client that is never answered is what this would show.
ANSWERED = 20.0


@pytest.fixture(scope="module")
def stack(postgres: PostgreSQL, valkey: Valkey) -> Iterator[Running]:
    """A workspace whose pages are as large as pages get, and another one beside it."""
    url = postgres.create_database("hostile_peers", template=TEMPLATE)
    with running(url, valkey.url(LOGICAL_DATABASES - 250), "edits") as stack:
        with stack.engine.begin() as tx:
            rows.workspace(tx, OTHER.workspace, OTHER.suffix, OTHER.secret)
            urls = json.dumps(["https://cdn.example.com/" + "a" * 2_000 + f"/{number}.jpg" for number in range(35)])
            for _ in range(20):
                rows.slides(tx, content_url=urls)
        yield stack


@dataclass
class Watched:
    """What an API process holds, once a second, and how long an ordinary client waits meanwhile."""

    process: psutil.Process
    files: list[int] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def sample(self) -> None:
        self.files.append(self.process.num_fds())
        self.memory.append(self.process.memory_info().rss)


async def beside(port: int, post: str, seconds: float, crowd: Crowd, watched: Watched) -> None:
    """An ordinary client of the other workspace, and the measuring, while the crowd is there."""
    done = asyncio.Event()
    hostile = asyncio.create_task(crowd.until(done))
    end, number = time.monotonic() + seconds, 0
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.monotonic() < end:
        number += 1
        body = json.dumps({"caption": str(number)}).encode()
        head = OTHER.head(
            "PATCH", f"/v1/posts/{post}", "Content-Type: application/json", f"Content-Length: {len(body)}"
        )
        for segments in ([head + b"\r\n", body], [OTHER.head("GET", "/v1/accounts") + b"\r\n"]):
            began = time.monotonic()
            answer = await asyncio.wait_for(exchange(reader, writer, segments), 30)
            watched.took.append(time.monotonic() - began)
            if answer.status != 200 or (body in segments and answer.json["caption"] != str(number)):
                watched.wrong.append(str(answer))
        watched.sample()
        await asyncio.sleep(min(1.0, seconds / 20))
    writer.close()
    done.set()
    await hostile


def told(crowd: Crowd, watched: Watched) -> str:
    lives = {name: (len(all_), round(max(all_), 1)) for name, all_ in sorted(crowd.lives.items())}
    steps = slice(None, None, max(1, len(watched.files) // 20))
    return (
        f"lives and the longest: {lives}\nfiles: {watched.files[steps]}\n"
        f"MiB: {[used // MEBIBYTE for used in watched.memory[steps]]}\n"
        f"answers to others: {len(watched.took)}, the slowest after {max(watched.took):.2f} s"
    )


def against(stack: Running, api: Process, *, seconds: float, each: int, beat: float) -> tuple[Crowd, Watched]:
    """The crowd against that API; afterwards all is as it was before."""
    post = stack.post(workspace_id=OTHER.workspace, account_id=rows.TIKTOK + OTHER.suffix)
    process = psutil.Process(api.pid)
    before = process.num_fds()
    crowd, watched = Crowd(api.port or 0, each=each, beat=beat), Watched(process)
    asyncio.run(beside(api.port or 0, post, seconds, crowd, watched))
    print(told(crowd, watched))
    assert not crowd.wrong
    assert not watched.wrong, watched.wrong[:3]
    assert max(watched.took) < ANSWERED, max(watched.took)
    # A few connections to the database and to Redis may have come to stay.
    eventually(lambda: process.num_fds() <= before + 20, within=30, every=0.2, because="all connections are gone")
    assert "unexpected_error" not in api.output()
    assert "Traceback" not in api.output()
    return crowd, watched


def answers(port: int) -> bool:
    with suppress(OSError), Peer(port) as peer:
        return peer.send(b"GET /healthz HTTP/1.0\r\n\r\n").answer().status == 200
    return False


def test_hostile_peers_are_ended_and_others_answered(stack: Running) -> None:
    argv = [sys.executable, "-m", "tests.connections.hurried", *commands.api(port=(port := free_port()))[3:]]
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


@pytest.mark.faults
def test_ten_minutes_of_hostile_peers_leave_memory_and_files_as_they_were(stack: Running) -> None:
    assert stack.api is not None
    each = 20
    _, watched = against(stack, stack.api, seconds=LONG, each=each, beat=1.0)
    half = len(watched.files) // 2
    assert max(watched.files) < 2 * each * len(PEERS) + 100
    # What the first five minutes needed is enough for the next five.
    assert max(watched.files[half:]) <= max(watched.files[:half]) + 20
    assert max(watched.memory[half:]) <= max(watched.memory[:half]) + 16 * MEBIBYTE
    assert max(watched.memory) - watched.memory[0] < 300 * MEBIBYTE
