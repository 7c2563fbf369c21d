"""Which two requests of the verification surely met, and which may have missed each other."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from shared.domain import service_answers
from shared.domain.service_answers import Reply
from tests.reference_services import verification
from tests.reference_services.sample import SECRET
from tests.reference_services.under_test import Heard, Publisher, met


def heard(status: int, seconds: float) -> Heard:
    return Heard(status, "", service_answers.read("publish", status, b""), seconds)


class Late(Publisher):
    """Its second request of two begins only when `may_begin` is set."""

    may_begin = threading.Event()

    def post(self, body: str, key: str, attempt: int = 1, **given: Any) -> httpx.Response:
        if attempt == 2:
            assert self.may_begin.wait(10)
        return super().post(body, key, attempt, **given)


def received(connection: socket.socket, size: int) -> bytes:
    """The first `size` bytes of the request's body."""
    said = b""
    while len(said.partition(b"\r\n\r\n")[2]) < size:
        said += connection.recv(65536)
    return said.partition(b"\r\n\r\n")[2]


def test_the_last_bytes_of_two_requests_wait_for_each_other() -> None:
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as thread:
        server.settimeout(10)
        under_test = Late(f"http://127.0.0.1:{server.getsockname()[1]}", SECRET)
        body = under_test.body()
        both = thread.submit(under_test.at_once, body, "pub_1")
        first, _ = server.accept()
        assert received(first, len(body) - 1) == body[:-1].encode()
        first.settimeout(0.3)
        with first:
            try:
                with pytest.raises(TimeoutError):
                    first.recv(1)
            finally:
                under_test.may_begin.set()
            second, _ = server.accept()
            with second:
                assert received(second, len(body)) == body.encode()
                assert first.recv(1) == body[-1:].encode()
                first.sendall(answer)
                second.sendall(answer)
                assert all(heard.done for heard in both.result(10))


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        (heard(200, 0.5), heard(200, 0.5), True),
        (heard(200, 0.5), heard(409, 0.0), True),
        (heard(202, 0.0), heard(200, 0.0), True),
        (heard(200, 0.001), heard(200, 0.002), False),
        (heard(200, 0.001), heard(200, 0.5), False),
        (heard(200, 0.001), heard(429, 0.001), False),
    ],
)
def test_which_requests_surely_met(one: Heard, other: Heard, together: bool) -> None:
    assert met(one, other) is together is met(other, one)


def test_two_requests_that_may_have_missed_each_other_are_not_checked() -> None:
    class Instant(Publisher):
        def at_once(self, body: str, key: str) -> tuple[Heard, Heard]:
            return self.to_the_end(body, key), self.to_the_end(body, key)

        def to_the_end(self, body: str, key: str, attempt: int = 1) -> Heard:
            return Heard(200, body, Reply("done", {"platformPostId": key}), 0.0, attempt)

    result = verification.run(verification.once_for_two_at_a_time, Instant("", ""))
    assert "let a publish take half a second" in result.needs
    assert next(result.lines()).startswith("not checked The same key twice at once")
