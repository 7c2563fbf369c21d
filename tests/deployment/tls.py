"""Puts TLS before a server that has none: the embedded ones were built without it. In a thread of its own."""

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Queue
from threading import Thread
from urllib.parse import urlsplit

from tests import certificates


@contextmanager
def before(url: str, folder: Path) -> Iterator[str]:
    """The URL with the port of a server that speaks TLS alone, with the certificate of tests/certificates.py.

    A client of PostgreSQL asks for TLS in eight bytes first, and is answered S.
    """
    parts = urlsplit(url)
    assert parts.port is not None
    asks_first = parts.scheme.startswith("postgres")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.written(folder))
    started: Queue[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]] = Queue()
    ends: set[asyncio.StreamWriter] = set()
    handlers: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.current_task())
        ends.add(writer)
        with suppress(OSError, asyncio.IncompleteReadError):
            if asks_first:
                await reader.readexactly(8)
                writer.write(b"S")
                await writer.start_tls(context)
            answers, requests = await asyncio.open_connection("127.0.0.1", parts.port)
            ends.add(requests)
            await asyncio.gather(pump(reader, requests), pump(answers, writer))
        writer.close()

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.close()

    async def run() -> None:
        ended = asyncio.Event()
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=None if asks_first else context)
        started.put((asyncio.get_running_loop(), ended, server.sockets[0].getsockname()[1]))
        await ended.wait()
        server.close()
        # Nothing is left for the garbage collector, which would say so in the middle of another test.
        for end in ends:
            end.transport.abort()
        await asyncio.gather(*filter(None, handlers), return_exceptions=True)

    thread = Thread(target=asyncio.run, args=[run()], daemon=True)
    thread.start()
    loop, ended, port = started.get(timeout=10)
    try:
        yield url.replace(f":{parts.port}/", f":{port}/")
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
