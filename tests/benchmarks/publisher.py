"""A publisher that takes its time: an HTTP server that answers every POST after 200 ms and remembers when it came.

Started as a process of its own: `python -m tests.benchmarks.publisher PORT SECONDS`. `GET /arrivals` tells what came.
"""

import asyncio
import json
import sys
import time
from typing import cast

import uvloop

HEADERS_END = b"\r\n\r\n"


class Publisher(asyncio.Protocol):
    """One connection. Requests may come one after the other; each is answered in its turn."""

    arrivals: list[tuple[str, str, float]] = []  # noqa: RUF012 - the process's, shared by all connections
    delay = 0.2

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's, which is no subclass
        self._buffer = b""

    def data_received(self, received: bytes) -> None:
        self._buffer += received
        while True:
            head, found, rest = self._buffer.partition(HEADERS_END)
            if not found:
                return
            first, *lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            length = int(headers.get("content-length", 0))
            if len(rest) < length:
                return
            body, self._buffer = rest[:length], rest[length:]
            self._answer(first, headers, body)

    def _answer(self, first: str, headers: dict[str, str], body: bytes) -> None:
        if first.startswith("GET"):
            self._send(json.dumps(self.arrivals).encode())
            return
        came = time.time()
        post_id = json.loads(body)["post"]["postId"]
        self.arrivals.append((post_id, headers.get("idempotency-key", ""), came))
        answer = json.dumps({"platformPostId": f"platform_{post_id}"}).encode()
        asyncio.get_running_loop().call_later(self.delay, self._send, answer)

    def _send(self, body: bytes) -> None:
        if not self._transport.is_closing():
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            self._transport.write(head.encode() + body)


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Publisher, "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    Publisher.delay = float(sys.argv[2])
    uvloop.run(serve(int(sys.argv[1])))
