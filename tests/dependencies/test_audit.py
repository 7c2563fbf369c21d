"""What is locked: hashed, whole, installed as it is written, without holes that are known here."""

import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import Marker

from tests.dependencies import audit

EVERY_LOCK = (*audit.LOCKS, "tests/dependencies/requirements.lock")


@pytest.fixture
def ask(tmp_path: Path) -> Any:
    """A pip-audit that says of each file what it is told to: `ask(canary=[...], locks=[...])`."""

    def make(canary: list[Any], locks: list[Any], code: str = "") -> list[str]:
        script = tmp_path / "pip_audit.py"
        script.write_text(
            f"import json, sys\n{code}\nasked = sys.argv[sys.argv.index('--requirement') + 1]\n"
            f"said = {canary!r} if 'canary' in asked else {locks!r}\nprint(json.dumps({{'dependencies': said}}))\n"
        )
        return [sys.executable, str(script)]

    return make


OLD = {"name": "jinja2", "version": "2.10", "vulns": [{"id": "PYSEC-2021-66"}]}
WELL = {"name": "redis", "version": "7.0", "vulns": []}


def test_no_locked_version_has_a_hole_that_the_snapshot_knows() -> None:
    assert audit.known_holes(audit.locked(), audit.snapshot()["advisories"]) == []


def test_the_snapshot_finds_the_holes_of_versions_that_have_some() -> None:
    advisories = audit.snapshot()["advisories"]
    found = {hole.advisory for hole in audit.known_holes([("jinja2", "2.10"), ("redis", "4.5.0")], advisories)}
    assert {"PYSEC-2021-66", "PYSEC-2023-46"} <= found
    assert audit.known_holes([("jinja2", "2.11.3")], [one for one in advisories if one["id"] == "PYSEC-2021-66"]) == []


@pytest.mark.parametrize("lock", EVERY_LOCK)
def test_every_line_of_a_lock_file_is_pinned_and_hashed(lock: str) -> None:
    text = (audit.ROOT / lock).read_text()
    entries = re.split(r"\n(?=[A-Za-z0-9])", "\n" + re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).strip())[1:]
    assert len(entries) > 20
    for entry in entries:
        assert re.match(r"[A-Za-z0-9._-]+==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry


def test_what_is_installed_is_what_is_locked_and_fits_together() -> None:
    wrong = []
    named = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)(?: ; ([^\\\n]+))?", re.MULTILINE)
    for name, wanted, marker in named.findall((audit.ROOT / "tests/requirements.lock").read_text()):
        if marker and not Marker(marker.strip()).evaluate():
            continue
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "missing"
        if found != wanted:
            wrong.append((name, wanted, found))
    assert wrong == []
    checked = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_a_hole_that_is_found_live_fails_the_audit(ask: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main(ask([OLD], [WELL, {"name": "kombu", "version": "5.6", "vulns": [{"id": "CVE-1"}]}])) == 1
    assert "HOLE: kombu 5.6: CVE-1" in capsys.readouterr().out


def test_an_audit_that_finds_nothing_says_that_it_asked(ask: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main(ask([OLD], [WELL])) == 0
    said = capsys.readouterr().out
    assert "asked for every locked package" in said
    assert "NOT AUDITED" not in said


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (([], [WELL]), "no advisories are served"),
        (([{"name": "jinja2", "skip_reason": "not found"}], [WELL]), "no advisories are served"),
        (([OLD], [WELL, {"name": "kombu", "skip_reason": "not found"}]), "kombu of requirements.lock was skipped"),
        (([OLD], [WELL], "sys.exit('no network')"), "gave no answer"),
    ],
)
def test_an_audit_that_could_not_ask_says_so_aloud_and_passes(
    ask: Any, capsys: pytest.CaptureFixture[str], told: tuple[Any, ...], why: str
) -> None:
    assert audit.main(ask(*told)) == 0
    said = capsys.readouterr().out
    assert "NOT AUDITED" in said
    assert why in said


@pytest.mark.parametrize(("canary", "holes"), [([OLD], []), ([], []), ([OLD], [OLD])])
def test_its_last_line_says_of_when_the_snapshot_is(
    ask: Any, capsys: pytest.CaptureFixture[str], canary: list[Any], holes: list[Any]
) -> None:
    audit.main(ask(canary, [WELL, *holes]))
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last == f"Known holes: {len(holes)}. The snapshot of advisories is of {audit.snapshot()['asOf']}."


def test_an_audit_without_pip_audit_says_so_aloud(capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main(["/nowhere/pip-audit"]) == 0
    assert "NOT AUDITED" in capsys.readouterr().out


def test_the_snapshot_says_what_it_is_of() -> None:
    told = json.loads(audit.SNAPSHOT.read_text())
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", told["asOf"])
    assert "CC BY 4.0" in told["about"]
    assert len(told["advisories"]) > 50
