"""An API among hostile peers: what it holds meanwhile, and how an ordinary client of another workspace fares."""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil

from tests import factories
from tests.api.http.connections.hostile import Crowd
from tests.api.http.connections.peers import OTHER, exchange
from tests.processes import Process
from tests.stack import Running, running
from tests.waiting import eventually

MEBIBYTE = 2**20
# Seconds, on however busy a machine: a client that is never answered is what this would show.
ANSWERED = 20.0


@contextmanager
def large_pages(database_url: str, redis_url: str) -> Iterator[Running]:
    """A workspace whose pages are as large as pages get, and another one beside it."""
    with running(database_url, redis_url, "edits") as stack:
        with stack.engine.begin() as tx:
            factories.workspace(tx, OTHER.workspace, OTHER.suffix, OTHER.secret)
            urls = json.dumps(["https://cdn.example.com/" + "a" * 2_000 + f"/{number}.jpg" for number in range(35)])
            for _ in range(20):
                factories.slides(tx, content_url=urls)
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


def summary(crowd: Crowd, watched: Watched) -> str:
    lives = {name: (len(all_), round(max(all_), 1)) for name, all_ in sorted(crowd.lives.items())}
    steps = slice(None, None, max(1, len(watched.files) // 20))
    return (
        f"lives and the longest: {lives}\nfiles: {watched.files[steps]}\n"
        f"MiB: {[used // MEBIBYTE for used in watched.memory[steps]]}\n"
        f"answers to others: {len(watched.took)}, the slowest after {max(watched.took):.2f} s"
    )


def against(stack: Running, api: Process, *, seconds: float, each: int, beat: float) -> tuple[Crowd, Watched]:
    """The crowd against that API; afterwards all is as it was before."""
    post = stack.post(workspace_id=OTHER.workspace, account_id=factories.TIKTOK + OTHER.suffix)
    process = psutil.Process(api.pid)
    before = process.num_fds()
    crowd, watched = Crowd(api.port or 0, each=each, beat=beat), Watched(process)
    asyncio.run(beside(api.port or 0, post, seconds, crowd, watched))
    print(summary(crowd, watched))
    assert not crowd.wrong
    assert not watched.wrong, watched.wrong[:3]
    assert max(watched.took) < ANSWERED, max(watched.took)
    # A few connections to the database and to Redis may have come to stay.
    eventually(lambda: process.num_fds() <= before + 20, within=30, every=0.2, because="all connections are gone")
    assert "unexpected_error" not in api.output()
    assert "Traceback" not in api.output()
    return crowd, watched
