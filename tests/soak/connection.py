"""An HTTP client that is light enough to share the cores with what it loads: one connection, one request at a time."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

PATIENCE = 45.0
_TOLD = {b"etag": "etag", b"edit-id": "edit-id", b"location": "location"}


@dataclass(frozen=True, slots=True)
class Answer:
    """`headers`: only those that the log keeps."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class UnansweredError(Exception):
    """No answer came: refused, cut off, or silent for 45 s. Whether the request was heard is not known."""


@dataclass
class Connection:
    """Opens itself when it is needed, and again after it broke."""

    port: int
    secret: str
    _streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = field(default=None, init=False)

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """The answer, with any status; raises UnansweredError."""
        raw = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: soak", f"Authorization: Bearer {self.secret}"]
        lines += ["Content-Type: application/json", f"Content-Length: {len(raw)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        try:
            async with asyncio.timeout(PATIENCE):
                if self._streams is None:
                    self._streams = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 22)
                reader, writer = self._streams
                writer.write("\r\n".join([*lines, "\r\n"]).encode() + raw)
                return await self._read(reader)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            self.close()
            raise UnansweredError(type(error).__name__) from error

    async def _read(self, reader: asyncio.StreamReader) -> Answer:
        head = await reader.readuntil(b"\r\n\r\n")
        length, told, closing = 0, {}, False
        for line in head.split(b"\r\n")[1:-2]:
            name, _, value = line.partition(b":")
            name = name.lower()
            if name == b"content-length":
                length = int(value)
            elif name == b"connection":
                closing = value.strip().lower() == b"close"
            elif name in _TOLD:
                told[_TOLD[name]] = value.strip().decode()
        body = await reader.readexactly(length)
        if closing:
            self.close()
        return Answer(int(head[9:12]), told, body)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
