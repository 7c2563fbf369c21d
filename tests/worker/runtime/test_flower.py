"""Flower's door: as /ops has one, the right password is always let in and guessing is slow."""

import json
import socket
import sys
import threading
import time

import httpx
import pytest
from flower import urls

from shared.domain.guessing import FREE
from shared.local import commands
from shared.task_names import QUEUES
from tests import guesses
from tests.loopback import LOOPBACK
from tests.ports import free_port
from tests.processes import Process, Processes
from tests.waiting import eventually
from worker.runtime.flower import BODY_LIMIT, Door, with_door

PASSWORD = "correct horse ü"
RIGHT = httpx.BasicAuth(b"flower", PASSWORD.encode())
WRONG = httpx.BasicAuth("flower", "wrong")


@pytest.fixture
def flower(processes: Processes, database_url: str, redis_url: str) -> Process:
    environment = {"REDRAFT_DATABASE_URL": database_url, "REDRAFT_REDIS_URL": redis_url}
    environment |= {"REDRAFT_TRUSTED_PROXIES": "127.0.0.1", "REDRAFT_LOG_FORMAT": "json"}
    started = processes.start("flower", **environment, **commands.flower_environment("flower", PASSWORD))

    def up() -> bool:
        assert started.running, started.output()
        try:
            return httpx.get(f"{started.url}/healthcheck", **LOOPBACK).status_code == 200
        except httpx.TransportError:
            return False

    eventually(up, within=30)
    return started


def ask(flower: Process, auth: httpx.BasicAuth | None, path: str = "/tasks", **headers: str) -> httpx.Response:
    with httpx.Client(base_url=flower.url, auth=auth, headers=headers, **LOOPBACK, timeout=20) as http:
        return http.get(path)


def test_a_password_that_is_not_ascii_opens_it_and_a_wrong_one_is_no_error(flower: Process) -> None:
    assert ask(flower, RIGHT).status_code == 200
    assert ask(flower, RIGHT, "/api/task/types").status_code == 200
    for wrong in (WRONG, httpx.BasicAuth(b"flower", "wrong ü".encode()), None):
        assert ask(flower, wrong).status_code == 401
        assert ask(flower, wrong, "/api/task/types").status_code == 401
        assert ask(flower, wrong, "/healthcheck").status_code == 200
    assert "WWW-Authenticate" in ask(flower, None).headers
    # What is posted needs it too, and is read whole after it.
    posted = httpx.post(f"{flower.url}/api/task/revoke/nobody", auth=RIGHT, data={"terminate": "0"}, **LOOPBACK)
    assert posted.status_code == 200
    assert httpx.post(f"{flower.url}/api/task/revoke/nobody", auth=WRONG, **LOOPBACK).status_code == 401


def test_a_body_larger_than_any_form_is_refused_before_it_is_read(flower: Process) -> None:
    url = f"{flower.url}/api/task/revoke/nobody"
    assert httpx.post(url, auth=WRONG, content=b"x" * BODY_LIMIT, **LOOPBACK).status_code == 401
    with socket.create_connection(("127.0.0.1", int(flower.url.rpartition(":")[2])), 10) as connection:
        connection.sendall(b"POST /api/task/revoke/nobody HTTP/1.1\r\nHost: a\r\nContent-Length: 99000000\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400")


def test_the_right_password_is_let_in_beside_a_flood_of_wrong_ones(flower: Process) -> None:
    url = f"{flower.url}/api/task/types"
    heard = guesses.answers(url, guesses.basic("flower", "wrong"), guesses.basic("flower", PASSWORD))
    assert {status for right, status in heard if not right} == {401}
    assert [status for right, status in heard if right] == [200]
    assert heard.index((True, 200)) > 100, "the guesses before it were answered first"


def test_guessing_is_slow_by_address_and_who_was_right_has_a_pass(flower: Process) -> None:
    first = ask(flower, RIGHT, **{"X-Forwarded-For": "203.0.113.1"})
    cookie = first.headers["set-cookie"].partition(";")[0]
    assert "HttpOnly" in first.headers["set-cookie"]
    # The next one waits for two seconds: less where the machine is slow and some of these are forgotten meanwhile.
    for _ in range(FREE + 3):
        ask(flower, WRONG, **{"X-Forwarded-For": "203.0.113.1"})
    began = time.monotonic()
    slow = threading.Thread(target=ask, args=(flower, WRONG), kwargs={"X-Forwarded-For": "203.0.113.1"})
    slow.start()
    assert ask(flower, WRONG, **{"X-Forwarded-For": "198.51.100.7"}).status_code == 401
    assert ask(flower, RIGHT, **{"X-Forwarded-For": "203.0.113.1", "Cookie": cookie}).status_code == 200
    assert slow.is_alive(), "neither waited for it"
    slow.join()
    assert time.monotonic() - began > 0.8
    assert ask(flower, None, Cookie=cookie).status_code == 401, "a pass opens nothing"
    said = flower.output()
    assert said.count("flower_password_wrong") == 1, "one line tells of many"
    assert '"client":"203.0.113.1"' in said
    assert "Traceback" not in said
    assert {json.loads(line)["process"] for line in said.splitlines()} == {"flower"}, "each line is JSON"


# SIGTERM comes while the first thread of Flower's pool starts: before the pool has noted it.
ENDED_EARLY = """
import os, runpy, signal, sys, threading
start = threading.Thread.start
def ended_early(self):
    start(self)
    if self.name.startswith("ThreadPoolExecutor"):
        threading.Thread.start = start
        os.kill(os.getpid(), signal.SIGTERM)
threading.Thread.start = ended_early
runpy.run_module("worker.runtime.flower", run_name="__main__", alter_sys=True)
"""


def test_it_ends_whenever_it_is_told_to(processes: Processes, redis_url: str) -> None:
    arguments = commands.flower(port=free_port())
    arguments = arguments[arguments.index("worker.runtime.flower") + 1 :]
    flower = processes.start([sys.executable, "-c", ENDED_EARLY, *arguments], REDRAFT_REDIS_URL=redis_url)
    flower.wait(within=30)
    assert "flower_ends" in flower.output()


def test_every_page_of_flowers_own_has_the_door_before_it() -> None:
    made = with_door(urls.handlers)
    assert len(made) == len(urls.handlers) > 25
    open_to_all = {one.handler_class.__name__ for one in made if not issubclass(one.handler_class, Door)}
    assert open_to_all == {"StaticFileHandler"}
    assert {one.name for one in made} >= {"main", "workers", "worker", "task", "tasks", "broker", "logout"}


def test_the_page_of_queues_shows_all_six_before_any_worker_was_asked(flower: Process) -> None:
    shown = ask(flower, RIGHT, "/broker").text
    assert [name for name in QUEUES if f"<td>{name}</td>" in shown] == list(QUEUES)
    assert {one["name"] for one in ask(flower, RIGHT, "/api/queues/length").json()["active_queues"]} == set(QUEUES)
