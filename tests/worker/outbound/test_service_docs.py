"""What docs/services.md tells those who write a service is what Redraft does."""

import re
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from shared.domain import events, service_answers
from shared.local.datadir import free_port
from shared.settings import Settings
from shared.store.tables import metadata
from tests import factories
from tests.processes import Processes
from tests.reference_services import client, signatures, verification
from tests.reference_services.client import Reference
from tests.waiting import eventually
from worker.outbound import services

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/services.md").read_text()
SECRET = "whsec_page"


def codes() -> tuple[str, str]:
    """The page's verification of signatures, and its publisher."""
    verification, publisher = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    return verification, publisher


def documented() -> dict[str, Any]:
    code, _ = codes()
    names: dict[str, Any] = {}
    exec(compile(code, "docs/services.md", "exec"), names)  # noqa: S102  -- the page's own code, which is what is tested
    return names


def test_the_documented_verification_accepts_what_we_sign_and_nothing_else() -> None:
    genuine = documented()["genuine"]
    body = '{"caption": "ünïcode ✨"}'
    header = services.signature("whsec_1", body, 1_764_025_200)
    assert genuine("whsec_1", header, body.encode(), 1_764_025_300.0)
    for secret, told, given, now in (
        ("whsec_2", header, body, 1_764_025_300.0),
        ("whsec_1", header, body + " ", 1_764_025_300.0),
        ("whsec_1", header, body, 1_764_025_501.0),
        ("whsec_1", header, body, 1_764_024_899.0),
        ("whsec_1", header.replace("t=1764025200", "t=1764025201"), body, 1_764_025_300.0),
        ("whsec_1", "", body, 1_764_025_300.0),
        ("whsec_1", "t=²,v1=ü", body, 1_764_025_300.0),
        ("whsec_1", "v1=" + header.partition("v1=")[2], body, 1_764_025_300.0),
    ):
        assert not genuine(secret, told, given.encode(), now)


def test_the_verification_is_ten_lines_and_the_reference_services_use_the_same() -> None:
    code, _ = codes()
    assert len([line for line in code.splitlines() if line.strip() and '"""' not in line]) == 10
    source = Path(signatures.__file__).read_text()
    assert source.partition('"""\n\n')[2] == code


Start = Callable[[str], str]
SLOW = """    __import__("time").sleep(0.5)
    return {"platformPostId\""""


@pytest.fixture
def start(processes: Processes, tmp_path: Path) -> Start:
    """Starts a publisher as a reader of the page would; its URL."""

    def started(code: str) -> str:
        port, folder = free_port(), tmp_path / f"publisher_{next(factories.numbers)}"
        folder.mkdir()
        (folder / "signatures.py").write_text(codes()[0])
        (folder / "publisher.py").write_text(code.replace('"publisher.db"', repr(str(folder / "publisher.db"))))
        command = [sys.executable, str(folder / "publisher.py")]
        process = processes.start(command, PORT=str(port), REDRAFT_SERVICE_SECRET=SECRET)

        def listens() -> bool:
            assert process.running, process.output()
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return True
            return False

        eventually(listens, within=30)
        return f"http://127.0.0.1:{port}/publish"

    return started


def verified(url: str) -> bool:
    return verification.verified(verification.Publisher(url, SECRET, patience=10))


def test_the_documented_publisher_is_40_lines_and_passes_the_verification(start: Start) -> None:
    _, code = codes()
    assert len([line for line in code.splitlines() if line.strip()]) <= 40
    assert verified(start(code))
    assert verified(start(code.replace('    return {"platformPostId"', SLOW)))


@pytest.mark.parametrize(
    ("sound", "broken", "says"),
    [
        ("if answer or key in working", "if key in working", "answered anew"),
        ("if answer or key in working", "if answer", "went out twice"),
        ("if ours else (401, {})", "", "must be answered 401"),
        ("if known != body", "if False", "must be refused"),
        ('(409, {"error"', '(400, {"error"', "answer 409 or 202"),
        ("json.dumps(said).encode()", 'b"<html>"', "did not go out"),
    ],
)
def test_the_verification_finds_what_a_publisher_gets_wrong(
    start: Start, capsys: pytest.CaptureFixture[str], sound: str, broken: str, says: str
) -> None:
    _, code = codes()
    assert sound in code
    assert not verified(start(code.replace('    return {"platformPostId"', SLOW).replace(sound, broken)))
    assert says in capsys.readouterr().out


def test_the_reference_publisher_passes_the_verification_as_typed(processes: Processes) -> None:
    reference = Reference(processes, delay=0.3)
    command = [sys.executable, "-m", "tests.reference_services.verification", f"{reference.url}/publish"]
    checking = processes.start(command, REDRAFT_SERVICE_SECRET=client.SECRET)
    assert checking.wait(within=60) == 0, checking.output()
    assert checking.output().count("ok     ") == len(verification.CHECKS)
    assert reference.journal()["effects"] == 4


def test_the_page_shows_what_the_verification_prints() -> None:
    for check in verification.CHECKS:
        assert f"ok     {check.__doc__}\n" in PAGE


def test_every_outcome_of_an_answer_stands_in_the_pages_table() -> None:
    table = [line for line in PAGE.splitlines() if line.startswith("| ")]
    for statuses in (service_answers.NOT_NOW, service_answers.MISCONFIGURED):
        assert any(", ".join(map(str, sorted(statuses))) in line for line in table), statuses


def test_every_variable_that_the_page_names_is_a_setting() -> None:
    for name in set(re.findall(r"REDRAFT_(\w+)", PAGE)):
        assert name.lower() in Settings.model_fields, name


def test_every_number_that_the_page_names_is_the_default() -> None:
    config = Settings.model_fields
    for words, setting in (
        (r"Up to (\d+) publishes", "publish_calls"),
        (r"(\d+) renders \(", "render_concurrency"),
        (r"(\d+) webhooks\n", "webhook_calls"),
        (r"The (\d+) s \(`REDRAFT_SERVICE_TIMEOUT`\)", "service_timeout"),
        (r"at most (\d+) tries within an hour", "tries_never_started"),
        (r"under the same key, (\d+) times", "tries_unknown"),
    ):
        (number,) = re.findall(words, PAGE)
        assert int(number) == config[setting].default, setting


def test_every_type_of_event_stands_on_the_page() -> None:
    source = Path(events.__file__).read_text()
    types = set(re.findall(r'"((?:edit|post)\.[a-z]+)"', source)) | {"edit.rejected", "edit.failed"}
    assert types == set(re.findall(r"`((?:edit|post)\.[a-z]+)`", PAGE))
    assert "webhook_events" in metadata.tables
