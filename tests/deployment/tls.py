"""Puts TLS before a server that has none: the embedded ones were built without it. In a thread of its own."""

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
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
    loop = asyncio.new_event_loop()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            if asks_first:
                await reader.readexactly(8)
                writer.write(b"S")
                await writer.start_tls(context)
            theirs = await asyncio.open_connection("127.0.0.1", parts.port)
            await asyncio.gather(pump(reader, theirs[1]), pump(theirs[0], writer))

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.close()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(serve, "127.0.0.1", 0, ssl=None if asks_first else context)

    server = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield url.replace(f":{parts.port}/", f":{server.sockets[0].getsockname()[1]}/")
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
