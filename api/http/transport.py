"""The sending side of a connection: counts what is written, and closes so that the peer can read its last answer.

A plain close() has two faults. It waits without end for a peer that does not read. And it answers a peer that still
sends with a reset, which discards the part of the answer that the peer has not read yet (RFC 9112, 9.6).
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

SEND_BUFFER = 128 * 1024
"""Bytes of an answer that the kernel takes from us. By default it takes up to 4 MiB, and reports progress only after a
third of them: a slow peer would look like one that does not read."""

KERNEL_EXTRA = 30.0

_RESET = struct.pack("ii", 1, 0)


class LingeringTransport(asyncio.Transport):
    """Wraps the event loop's transport of one connection. `sends_on` says whether the peer may still be sending."""

    def __init__(self, inner: asyncio.Transport, sends_on: Callable[[], bool], *, unread: float) -> None:
        """`unread`: seconds after which this process gives up a peer that takes nothing.

        The kernel gives up KERNEL_EXTRA seconds later, also after close(). It comes second, since it does not tell the
        peer.
        """
        super().__init__()
        self._inner = inner
        self._sends_on = sends_on
        self.written = 0
        self.lingering = False
        self._set(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            self._set(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int((unread + KERNEL_EXTRA) * 1000))

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.lingering:
            self.written += len(data)
            self._inner.write(data)

    def close(self) -> None:
        """Close once all is sent. If the peer may still be sending, only our side is closed, and its bytes are read
        until it closes too or abort() is called.
        """
        if self.is_closing():
            return
        if self._sends_on() and self._inner.can_write_eof():
            self.lingering = True
            self._inner.write_eof()
            self._inner.resume_reading()
        else:
            self._inner.close()

    def abort(self) -> None:
        """Close now, with a reset. Neither this process nor the kernel keeps what the peer has not read."""
        self._set(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._inner.abort()

    def is_closing(self) -> bool:
        return self.lingering or self._inner.is_closing()

    def backlog(self) -> int:
        """Bytes written that the kernel has not taken yet."""
        return self._inner.get_write_buffer_size()

    def pause_reading(self) -> None:
        self._inner.pause_reading()

    def resume_reading(self) -> None:
        self._inner.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._inner.get_extra_info(name, default)

    def _set(self, level: int, option: int, value: int | bytes) -> None:
        """Set an option of the socket, if there is a socket and it knows the option."""
        plain = self._inner.get_extra_info("socket")
        if plain is not None:
            with suppress(OSError):
                plain.setsockopt(level, option, value)
