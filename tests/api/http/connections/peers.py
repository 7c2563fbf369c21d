"""Clients that write their bytes themselves, over real sockets: of either of two workspaces, through a proxy or not."""

import asyncio
import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests import factories
from tests.waiting import eventually


@dataclass(frozen=True)
class Tenant:
    """A workspace, as its clients know it."""

    workspace: str
    suffix: str
    secret: str

    @property
    def accounts(self) -> set[str]:
        return {factories.TIKTOK + self.suffix, factories.INSTAGRAM + self.suffix}

    def head(self, method: str, path: str, *more: str) -> bytes:
        """A head but for the blank line at its end. `more` are whole header lines."""
        lines = (f"{method} {path} HTTP/1.1", "Host: api.example.com", f"Authorization: Bearer {self.secret}", *more)
        return "".join(f"{line}\r\n" for line in lines).encode()


ONE = Tenant(factories.WORKSPACE, "", factories.SECRET)
OTHER = Tenant("ws_other", "_other", "sk_other_0123456789")
NOBODY = Tenant("", "", "sk_wrong")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Peer:
    """A blocking connection straight to the API."""

    def __init__(self, port: int) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(20)
        try:
            self.socket.connect(("127.0.0.1", port))
        except OSError:
            self.socket.close()
            raise
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.lines = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.lines.close()
        self.socket.close()

    def send(self, *segments: bytes) -> Self:
        """Each as a segment of its own: the next is sent when the server has read the one before."""
        for segment in segments:
            self.socket.sendall(segment)
            eventually(self._read_by_the_server, within=30, every=0.001, because="the server reads the segment")
        return self

    def _read_by_the_server(self) -> bool:
        """Nothing of ours waits in the server's receive buffer."""
        ours, theirs = (f"{name[1]:04X}" for name in (self.socket.getsockname(), self.socket.getpeername()))
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, remote, _, queues, *_ = line.split()
            if local.endswith(f":{theirs}") and remote.endswith(f":{ours}"):
                return int(queues.partition(":")[2], 16) == 0
        return True

    def answer(self) -> Answer:
        status = int(self.lines.readline().split()[1])
        headers: dict[str, str] = {}
        while (line := self.lines.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        if status == 100:
            return self.answer()
        return Answer(status, headers, self.lines.read(int(headers.get("content-length", 0))))

    def closed(self) -> bool:
        """Whether the server has closed its side, with nothing more to say."""
        return self.lines.read(1) == b""


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, segments: Sequence[bytes], pause: float = 0.0
) -> Answer:
    """One request on a connection that is kept; `pause` seconds between its segments."""
    for number, segment in enumerate(segments):
        if number and pause:
            await asyncio.sleep(pause)
        writer.write(segment)
        await writer.drain()
    status = int((await reader.readuntil(b"\r\n")).split()[1])
    headers: dict[str, str] = {}
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    return Answer(status, headers, await reader.readexactly(int(headers.get("content-length", 0))))
