"""The sample of docs/services.md passes the verification, and each of its broken twins fails it for what is missing.

Real servers all. Where a twin can only be told apart at one moment, `hold` keeps its platform at that moment.
"""

import io
import json
import re
import socket
import sqlite3
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.domain import service_answers
from shared.domain.service_answers import Reply
from tests.docs.pages import blocks
from tests.ports import free_port
from tests.processes import ROOT, Process, Processes
from tests.reference_services import client, verification
from tests.reference_services.client import Reference
from tests.reference_services.under_test import Heard, Publisher, met
from tests.waiting import eventually

PAGE = "docs/services.md"
SECRET = "whsec_page"
NAMES = ("signatures.py", "demo_platform.py", "publisher.py")

Change = tuple[str, str]
GUARD = "if status or key in working"
LOOK_UP = "(None if new else find(key)) or publish"
UNSIGNED = " if ours else (401, {})"
ID = "uuid.uuid4().hex[:12]"
WORK = 'time.sleep(0.25)\n    with OUT.open("a")'
LONG_WORK = (WORK, WORK.replace("0.25", "1.5"))
AFTER = "    time.sleep(0.25)\n    return made"
HOLD = "    while pathlib.Path('hold').exists(): time.sleep(0.01)\n    return made"
RAISES_ONCE = "    flag = pathlib.Path('once')\n    if not flag.exists(): flag.touch(); raise "

ID_OF_THE_KEY: Change = (ID, "key[-12:]")
NO_DEDUP: tuple[Change, ...] = ((GUARD, "if False"), (LOOK_UP, "publish"))


@dataclass
class Sample:
    """The page's publisher as a process, in a folder of its own, with changes to its code."""

    folder: Path
    processes: Processes
    port: int = field(default_factory=free_port)
    process: Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/publish"

    @property
    def effects(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in (self.folder / "platform.jsonl").read_text().splitlines()]

    def write(self, *changes: Change) -> None:
        code = [block.text for block in blocks(PAGE) if block.info == "python"]
        for sound, broken in changes:
            assert any(sound in text for text in code), sound
            code = [text.replace(sound, broken) for text in code]
        for name, text in zip(NAMES, code, strict=True):
            (self.folder / name).write_text(text)

    def start(self) -> None:
        command = ["sh", "-c", f"cd '{self.folder}' && exec '{sys.executable}' publisher.py"]
        process = self.process = self.processes.start(command, PORT=str(self.port), REDRAFT_SERVICE_SECRET=SECRET)

        def listens() -> bool:
            assert process.running, process.output()
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
            return False

        eventually(listens, within=20)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()

    def hold(self) -> None:
        """From now on a publish stops between its effect and its answer."""
        (self.folder / "hold").touch()

    def restart(self) -> None:
        """Die with a publish that had its effect and no answer, and come back."""
        before = len(self.answered())
        eventually(lambda: len(self.effects) > before, within=20)
        self.kill()
        (self.folder / "hold").unlink()
        self.start()

    def answered(self) -> list[str]:
        """The keys that went out and have an answer on disk; all effects where keys are kept in memory."""
        if not (self.folder / "publisher.db").exists():
            return [one["key"] for one in self.effects]
        with closing(sqlite3.connect(self.folder / "publisher.db")) as db:
            return [key for (key,) in db.execute("SELECT key FROM keys WHERE status = 200")]


class Interrupted(Publisher):
    """Holds the platform before the request that a restart cuts off."""

    hold: Callable[[], None]

    def give_up(self, body: str, key: str) -> None:
        if self.due[key].missing == verification.NOT_LOOKED_UP:
            self.hold()
        super().give_up(body, key)


@pytest.fixture
def sample(processes: Processes, tmp_path: Path) -> Sample:
    return Sample(tmp_path, processes)


def publisher(sample: Sample, *, effects: bool = False, restart: bool = False, patience: float = 10.0) -> Publisher:
    one = Interrupted(
        sample.url, SECRET, patience=patience, rounds=2, settle=0.2,
        effects_at=str(sample.folder / "platform.jsonl") if effects else None,
        restart=sample.restart if restart else None,
    )  # fmt: skip
    one.hold = sample.hold
    return one


# What is broken, how, which check finds it, whether it needs the list of effects, and what the report says.
TWINS = {
    "no guard": ([(GUARD, "if status")], verification.once_for_two_at_a_time, False, "No guard while a request"),
    "no guard, id of the key": (
        [(GUARD, "if status"), ID_OF_THE_KEY], verification.once_for_two_at_a_time, True, "No guard while a request"
    ),
    "no guard after a caller left": (
        [(GUARD, "if status"), ID_OF_THE_KEY, LONG_WORK], verification.once_though_the_caller_left, True,
        "No guard while a request",
    ),
    "guarded with a refusal": (
        [("(409, {", "(400, {")], verification.once_for_two_at_a_time, False, "Expected: 409 or 202 with Retry-After"
    ),
    "no Retry-After": (
        [('self.send_header("Retry-After", "1")', "pass")], verification.once_for_two_at_a_time, False, "No Retry-After"
    ),
    "no dedup": (NO_DEDUP, verification.it_publishes, False, "No memory of keys"),
    "no dedup, id of the key": ([*NO_DEDUP, ID_OF_THE_KEY], verification.it_publishes, True, "No memory of keys"),
    "no signature": ([(UNSIGNED, "")], verification.only_what_we_signed, True, "401 to a request without a signature"),
    "no age of the signature": (
        [("abs((now or time.time()) - int(sent)) > 300", "False")], verification.only_what_we_signed, False,
        "401 to a request signed ten minutes ago",
    ),
    "any body": (
        [("if known != digest", "if False")], verification.another_body_under_a_key, False, "No check of the body"
    ),
    "never publishes": ([("file.write(", "str(")], verification.it_publishes, True, "No post went out"),
    "always at work": ([(f"{GUARD}:", "if True:")], verification.it_publishes, False, "No post went out"),
    "platform down": ([(WORK, f"raise OSError('down')\n    {WORK}")], verification.it_publishes, False, "Seen: 503"),
    "a login page": (
        [("json.dumps(answer).encode()", 'b"<html>"')], verification.it_publishes, False, "Seen: 200 <html>"
    ),
    "no id": (
        [('f"demo_{uuid.uuid4().hex[:12]}"}', '""}\n    made = {}')], verification.it_publishes, False,
        "No platformPostId",
    ),
    "memory only": ([('"publisher.db"', '":memory:"')], verification.a_key_survives_a_restart, False, "Keys are lost"),
    "memory only, id of the key": (
        [('"publisher.db"', '":memory:"'), ID_OF_THE_KEY], verification.a_key_survives_a_restart, True, "Keys are lost"
    ),
    "no look at the platform after a crash": (
        [(LOOK_UP, "publish")], verification.a_key_survives_a_restart, True,
        "No look at the platform for a key without an answer. Expected: 1 effect",
    ),
    "at work for ever after a crash": (
        [(GUARD, "if status or not new")], verification.a_key_survives_a_restart, False,
        "a post that was under way at a restart",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TWINS)
def test_a_broken_twin_of_the_sample_fails_for_what_it_lacks(
    sample: Sample, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    changes, check, effects, says = TWINS[name]
    restart = check is verification.a_key_survives_a_restart
    sample.write(*changes, *([(AFTER, HOLD)] if restart else []))
    sample.start()
    under_test = publisher(sample, effects=effects, restart=restart, patience=5.0)
    assert not verification.verified(under_test, [check, verification.each_key_has_one_effect])
    said = capsys.readouterr().out
    assert says in said
    failed = [line for line in said.splitlines() if "Expected:" in line]
    assert failed
    assert all("Seen: " in line and "Seen: []" not in line for line in failed)


def test_the_sample_passes_whole_and_dies_between_effect_and_answer(
    sample: Sample, capsys: pytest.CaptureFixture[str]
) -> None:
    sample.write((AFTER, HOLD))
    sample.start()
    assert verification.verified(publisher(sample, effects=True, restart=True))
    said = capsys.readouterr().out
    assert f"{len(verification.CHECKS)} passed, 0 failed, 0 not checked" in said
    assert "warning" not in said
    assert len(sample.effects) == len({one["key"] for one in sample.effects}) == 7


def test_the_page_is_right_as_typed(processes: Processes, tmp_path: Path) -> None:
    code = [block for block in blocks(PAGE) if block.info == "python"]
    assert len([line for line in code[2].text.splitlines() if line.strip()]) <= 40
    Sample(tmp_path, processes).write()
    for name in ("tests", "shared", "worker"):
        (tmp_path / name).symlink_to(ROOT / name)
    (typed,) = [block for block in blocks(PAGE) if "tests/reference_services/test_verification.py" in block.info]
    (printed,) = [block for block in blocks(PAGE) if "not checked" in block.text]
    port = str(free_port())
    script = f"cd '{tmp_path}'\nPATH='{Path(sys.executable).parent}':$PATH\n{typed.text.replace('9000', port)}"
    shell = processes.start(["sh", "-c", script], PORT=port, NO_PROXY="127.0.0.1")
    assert shell.wait(within=120) == 0, shell.output()
    assert shell.output() == printed.text
    assert int(re.findall(r"They\s+publish (\d+) posts", (ROOT / PAGE).read_text())[0]) == len(
        (tmp_path / "platform.jsonl").read_text().splitlines()
    )


def test_without_a_list_and_a_restart_the_report_says_what_was_not_checked(
    sample: Sample, capsys: pytest.CaptureFixture[str]
) -> None:
    sample.write(*NO_DEDUP, ID_OF_THE_KEY, ('"publisher.db"', '":memory:"'))
    sample.start()
    checks = [verification.it_publishes, verification.a_key_survives_a_restart, verification.each_key_has_one_effect]
    assert verification.verified(publisher(sample), checks)
    said = capsys.readouterr().out
    assert "not checked A key, its body and its answer" in said
    assert "give --restart COMMAND or --restart-by-hand" in said
    assert "not checked By the publisher's own list" in said
    assert "two effects under one platformPostId" in said
    assert "1 passed, 0 failed, 2 not checked" in said


def test_what_is_doubtful_is_warned_of(sample: Sample, capsys: pytest.CaptureFixture[str]) -> None:
    sample.write(
        ('"Retry-After", "1"', '"Retry-After", "0"'), ('{"platformPostId": f', '{"error": "none", "platformPostId": f')
    )
    sample.start()
    assert verification.verified(publisher(sample), [verification.once_for_two_at_a_time])
    said = capsys.readouterr().out
    assert "warning     Retry-After: 0 asks for the next request at once" in said
    assert "warning     A 2xx says that the post is out, and its body tells of an error" in said


def test_the_sample_gives_a_refusal_again_after_a_restart_too(sample: Sample) -> None:
    sample.write((WORK, f'{RAISES_ONCE.lstrip()}Refused("never")\n    {WORK}'))
    sample.start()
    under_test = publisher(sample)
    body = under_test.body()
    first, again = under_test.call(body, "pub_1"), under_test.call(body, "pub_1", 2)
    sample.kill()
    sample.start()
    assert first.status == 422
    assert first.text == again.text == under_test.call(body, "pub_1", 3).text == '{"error": {"message": "never"}}'
    assert sample.effects == []


def test_the_sample_looks_a_post_up_after_an_error_of_the_platform(sample: Sample) -> None:
    sample.write((AFTER, f'{RAISES_ONCE}ValueError("half an answer")\n    return made'))
    sample.start()
    under_test = publisher(sample)
    body = under_test.body()
    assert [under_test.call(body, "pub_1", attempt).status for attempt in (1, 2, 3)] == [503, 200, 200]
    assert [one["key"] for one in sample.effects] == ["pub_1"]


def test_the_reference_publisher_passes_the_verification_as_typed(processes: Processes, tmp_path: Path) -> None:
    reference = Reference(processes, delay=0.3, journal=tmp_path / "journal")
    command = [sys.executable, "-m", "tests.reference_services.verification", f"{reference.url}/publish"]
    options = ["--rounds=2", f"--effects={reference.url}/effects"]
    checking = processes.start(command, *options, REDRAFT_SERVICE_SECRET=client.SECRET)
    assert checking.wait(within=60) == 0, checking.output()
    assert "6 passed, 0 failed, 1 not checked" in checking.output()
    assert reference.journal()["effects"] == 5


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


@pytest.mark.parametrize(
    ("listed", "found"),
    [
        ("", {}),
        ("[]", {}),
        ('{"key": "pub_1"}\n', {"pub_1": 1}),
        ('{"key": "pub_1"}\n{"key": "pub_2"}\n{"key": "pub_1"}\n', {"pub_1": 2, "pub_2": 1}),
        ('[{"key": "pub_1", "platformPostId": 7}]', {"pub_1": 1}),
        ("<html>", None),
        ('["pub_1"]', None),
        ('{"effects": []}', None),
    ],
)
def test_which_lists_of_effects_are_read(tmp_path: Path, listed: str, found: dict[str, int] | None) -> None:
    file = tmp_path / "effects"
    file.write_text(listed)
    result = verification.run(verification.each_key_has_one_effect, Publisher("", "", effects_at=str(file), settle=0.0))
    if found is None:
        assert "This check is set up wrongly. Expected: JSON objects with `key`" in result.failures[0]
    else:
        assert result.failures == []
        assert Publisher("", "", effects_at=str(file)).effects() == found


def test_a_list_that_is_not_there_fails_the_check(tmp_path: Path) -> None:
    result = verification.run(verification.each_key_has_one_effect, Publisher("", "", effects_at=str(tmp_path / "no")))
    assert "No such file" in result.failures[0]


@pytest.mark.parametrize(
    ("command", "says"),
    [("exit 3", "ends with 0. Seen: 3"), ("exec cat /dev/zero > /dev/null", "it still ran after 0.2 s")],
)
def test_a_restart_that_did_not_work_fails_the_check(sample: Sample, command: str, says: str) -> None:
    sample.write()
    sample.start()
    under_test = publisher(sample)
    under_test.restart = verification.by_command(command, 0.2)
    result = verification.run(verification.a_key_survives_a_restart, under_test)
    assert says in result.failures[0]


def test_a_restart_by_hand_waits_for_enter(
    sample: Sample, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    verification.by_hand()
    assert "Restart your publisher now, then press Enter" in capsys.readouterr().out
    sample.write()
    sample.start()
    under_test = publisher(sample)
    under_test.restart = verification.by_hand
    result = verification.run(verification.a_key_survives_a_restart, under_test)
    assert "Seen: the end of the input" in result.failures[0]
