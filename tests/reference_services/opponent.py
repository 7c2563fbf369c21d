"""A publisher that plays against us: it may do what it is asked, before its answer, long after or never, and answers
whatever docs/services.md has a meaning for, late, twice, a byte at a time, half or not at all. It keeps its word in
four things only: a key has its effect once, until it is told to forget its keys; a 2xx with an object says that the
effect is there; a request that was refused has none; and what it did it knows after a restart, though not what it was
about to do.

    python -m tests.reference_services.opponent --seed 7 --journal FILE

Below HTTP, on a socket: no framework answers half or twice. `GET /journal` tells what came and what took effect,
`POST /calm` ends the game: from then on all goes well. `POST /forget` lets it forget every key, as after a day: then a
key has its effect once more. Renders always go well.
"""

import argparse
import asyncio
import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.reference_services.moves import Move, play
from tests.reference_services.signatures import genuine

HOST = "127.0.0.1"
SILENCE = 60.0


@dataclass
class Came:
    """One request of a publish. `status`: what it was answered; None where it was not, or not yet."""

    at: float
    key: str
    attempt: int
    post_id: str
    body: str
    genuine: bool
    status: int | None = None
    move: str = ""


@dataclass
class Opponent:
    """`patience`: the caller's, in seconds; everything is late or early by it. `file`: what survives a restart."""

    secret: str
    seed: int
    patience: float = 0.3
    file: Path | None = None
    calm: bool = False
    came: list[Came] = field(default_factory=list)
    effects: list[tuple[str, str]] = field(default_factory=list)
    _known: set[tuple[int, str]] = field(default_factory=set)
    _forgot: int = 0
    _calls: Counter[str] = field(default_factory=Counter)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _server: asyncio.Server | None = None
    _lives: int = 0

    def __post_init__(self) -> None:
        if self.file is not None and self.file.exists():
            for line in self.file.read_text().splitlines():
                what, value = json.loads(line)
                if what == "effect":
                    self.effects.append((value[0], value[1]))
                    self._known.add((self._forgot, value[1]))
                elif what == "forgot":
                    self._forgot = value
                else:
                    self.came.append(Came(**value))
                    self._calls[value["post_id"]] += 1

    def _keep(self, what: str, value: Any) -> None:
        if self.file is not None:
            with self.file.open("a") as file:
                file.write(json.dumps([what, value]) + "\n")

    async def listen(self, port: int) -> int:
        self._lives += 1
        life = self._lives
        serve = lambda reader, writer: self._serve(reader, writer, life)  # noqa: E731
        self._server = await asyncio.start_server(serve, HOST, port, backlog=1024)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """As a kill would: what was under way comes to nothing, what was done is remembered."""
        # A connection that was accepted just now belongs to the life that ends.
        self._lives += 1
        if self._server is not None:
            # CPython 3.11 leaves a connection open for good whose server is closed between its accept and its first
            # step. So nothing more is accepted, that step is made, and the server is closed then.
            loop = asyncio.get_running_loop()
            for listening in self._server.sockets:
                loop.remove_reader(listening.fileno())
            await asyncio.sleep(0)
            self._server.close()
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, life: int) -> None:
        if life != self._lives:
            writer.transport.abort()
            return
        # A task that is cancelled before its first step never comes to its own end.
        self._begin(self._connection(reader, writer)).add_done_callback(lambda _: writer.close())

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._request(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection is kept."""
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        method, path, _ = first.split(" ")
        if (method, path) == ("POST", "/publish"):
            return await self._publish(headers, body, writer)
        said: Any = {}
        if path == "/render":
            made = sha256(headers["idempotency-key"].encode()).hexdigest()[:12]
            said = {"renderedUrl": f"https://rendered.invalid/{made}.mp4", "thumbnailUrl": None}
        elif path == "/journal":
            said = self.journal()
        elif path == "/calm":
            self.calm = True
        elif path == "/forget":
            self.forget()
        writer.write(answer(200, json.dumps(said)))
        await writer.drain()
        return True

    def journal(self) -> dict[str, Any]:
        return {"calls": [asdict(one) | {"kind": "publish"} for one in list(self.came)], "effects": list(self.effects)}

    async def _publish(self, headers: dict[str, str], raw: bytes, writer: asyncio.StreamWriter) -> bool:
        post_id, key = json.loads(raw)["post"]["postId"], headers["idempotency-key"]
        ours = any(genuine(secret, headers.get("redraft-signature", ""), raw) for secret in self.secret.split(","))
        self._calls[post_id] += 1
        # The same game again from the same seed, in whatever order posts come.
        chance = random.Random(f"{self.seed}/{post_id}/{self._calls[post_id]}")
        move = Move("before") if self.calm else play(chance, self.patience)
        forgot = self._forgot
        came = Came(time.time(), key, int(headers["redraft-attempt"]), post_id, raw.decode(), ours, move=str(move))
        self.came.append(came)
        if move.effect == "before":
            self.do(post_id, key, forgot)
        await asyncio.sleep(move.waits)
        if move.effect == "after":
            self._begin(self._later(move.later, post_id, key, forgot))
        try:
            return await self._answer(move, came, writer, chance)
        finally:
            self._keep("came", asdict(came))

    async def _later(self, seconds: float, post_id: str, key: str, forgot: int) -> None:
        await asyncio.sleep(seconds)
        self.do(post_id, key, forgot)

    def do(self, post_id: str, key: str, forgot: int) -> None:
        """The effect, once for each key. `forgot`: how often it had forgotten its keys when the request came."""
        if (forgot, key) not in self._known:
            self._known.add((forgot, key))
            self.effects.append((post_id, key))
            self._keep("effect", [post_id, key])

    def forget(self) -> None:
        """From now on every key is new."""
        self._forgot += 1
        self._keep("forgot", self._forgot)

    async def _answer(self, move: Move, came: Came, writer: asyncio.StreamWriter, chance: random.Random) -> bool:
        said = json.dumps({"platformPostId": sha256(came.key.encode()).hexdigest()[:12]}) if move.done else move.said
        status = 200 if move.status is None else move.status
        whole = answer(status, said, move.retry_after)
        if move.form == "silent":
            await asyncio.sleep(SILENCE)
            return False
        if move.form == "reset":
            writer.transport.abort()
            return False
        if move.form == "drip":
            for byte in whole:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(self.patience / 40)
        else:
            cut = chance.randrange(1, len(whole)) if move.form == "cut" else len(whole)
            writer.write(whole[:cut] * (2 if move.form == "twice" else 1))
            await writer.drain()
        if move.form != "cut":
            came.status = status
        return move.form in {"whole", "twice"} and chance.random() < 0.7


def answer(status: int, said: str, retry_after: str | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status} So", "Content-Type: application/json", f"Content-Length: {len(said.encode())}"]
    lines += [f"Retry-After: {retry_after}"] if retry_after is not None else []
    return ("\r\n".join(lines) + "\r\n\r\n" + said).encode()


@dataclass
class InThread:
    """An opponent in this process, on a loop of its own, that may be stopped and started again where it was."""

    opponent: Opponent
    loop: asyncio.AbstractEventLoop
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/publish"

    def start(self) -> None:
        self.port = asyncio.run_coroutine_threadsafe(self.opponent.listen(self.port), self.loop).result(10)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self.opponent.stop(), self.loop).result(10)


@contextmanager
def in_thread(opponent: Opponent) -> Iterator[InThread]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="opponent", daemon=True)
    thread.start()
    running = InThread(opponent, loop)
    try:
        running.start()
        yield running
        running.stop()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.reference_services.opponent")
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--patience", type=float, default=1.0, help="REDRAFT_SERVICE_TIMEOUT of whoever calls")
    parser.add_argument("--journal", type=Path, help="a file that keeps calls and effects over a restart")
    given = parser.parse_args()
    secret = os.environ.get("REDRAFT_SERVICE_SECRET", "")
    opponent = Opponent(secret, given.seed, given.patience, given.journal)

    async def serve() -> None:
        port = await opponent.listen(given.port)
        print(f"the opponent plays at http://{HOST}:{port}, seed {given.seed}", flush=True)
        await asyncio.Event().wait()

    with suppress(KeyboardInterrupt):
        asyncio.run(serve())


if __name__ == "__main__":
    main()
