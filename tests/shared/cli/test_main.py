"""The command itself: its version, and how it ends where there is nothing to run."""

import json
import os
import pty
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.processes import ROOT


def redraft(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "shared.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_the_version_is_that_of_the_package() -> None:
    said = redraft("--version")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert (said.returncode, said.stdout) == (0, f"redraft {version}\n")


def test_without_a_command_the_help_is_shown() -> None:
    said = redraft()
    assert "Queued edits for scheduled social posts." in said.stdout + said.stderr
    assert "doctor" in said.stdout + said.stderr


@pytest.mark.parametrize("command", [(), ("edits",), ("keys", "create")])
def test_h_is_help_everywhere_and_fits_a_real_terminal_of_80_columns(command: tuple[str, ...]) -> None:
    ours, theirs = pty.openpty()
    given = {**os.environ, "COLUMNS": "80", "TERM": "xterm"}
    argv = [sys.executable, "-m", "shared.cli.main", *command, "-h"]
    with subprocess.Popen(argv, stdout=theirs, stderr=theirs, cwd=ROOT, env=given, text=True) as running:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 1 << 16)
            except OSError:
                break
            if not part:
                break
            shown += part
        os.close(ours)
    assert running.returncode == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).splitlines()
    assert any("Usage:" in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_the_help_is_grouped_and_completion_can_be_installed() -> None:
    shown = redraft("--help").stdout
    for words in ("Try it", "Look and mend", "Set up", "Single roles", "--install-completion"):
        assert words in shown


STACK = {
    "apiUrl": "http://127.0.0.1:8000",
    "apiKey": "sk_demo",
    "flowerUrl": "http://127.0.0.1:5555",
    "flowerUser": "flower",
    "flowerPassword": "f-secret",
    "opsUrl": "http://127.0.0.1:8000/ops",
    "opsUser": "ops",
    "opsPassword": "o-secret",
    "databaseUrl": "postgresql+psycopg://localhost/redraft",
    "redisUrl": "redis://localhost",
}


def test_info_says_again_what_up_printed(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text(json.dumps(STACK), encoding="utf-8")
    (tmp_path / "stack.json").chmod(0o600)
    said = redraft("info", "--data-dir", str(tmp_path))
    assert said.returncode == 0, said.stderr
    assert "Operators   http://127.0.0.1:8000/ops    user ops, password o-secret" in said.stdout
    assert "curl -i -X PATCH http://127.0.0.1:8000/v1/posts/post_abc123" in said.stdout
    assert json.loads(redraft("info", "--json", "--data-dir", str(tmp_path)).stdout) == STACK


def test_info_without_a_stack_says_how_to_start_one(tmp_path: Path) -> None:
    said = redraft("info", "--data-dir", str(tmp_path))
    assert (said.returncode, said.stdout) == (2, "")
    assert "redraft up" in said.stderr
