"""A server that says it is an old PostgreSQL and answers nothing else: no more is needed to be turned away."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

_ENCRYPTION: Final = {80877103, 80877104}  # SSLRequest, GSSENCRequest


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def _greet(client: socket.socket, version: str) -> None:
    with client, suppress(OSError):
        while True:
            (size,) = struct.unpack("!i", client.recv(4, socket.MSG_WAITALL))
            body = client.recv(size - 4, socket.MSG_WAITALL)
            if struct.unpack("!i", body[:4])[0] not in _ENCRYPTION:
                break
            client.sendall(b"N")
        told = {"server_version": version, "client_encoding": "UTF8", "TimeZone": "UTC"}
        client.sendall(
            _message(b"R", struct.pack("!i", 0))
            + b"".join(_message(b"S", f"{name}\0{value}\0".encode()) for name, value in told.items())
            + _message(b"K", struct.pack("!ii", 1, 2))
            + _message(b"Z", b"I")
        )
        client.recv(65_536)  # Terminate


@contextmanager
def old_postgresql(version: str) -> Iterator[str]:
    """Its URL while it runs. `version`: such as `17.6`."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    _greet(server.accept()[0], version)

        threading.Thread(target=serve, daemon=True).start()
        yield f"postgresql+psycopg://redraft:hushhush@127.0.0.1:{server.getsockname()[1]}/redraft"
        server.shutdown(socket.SHUT_RDWR)
