"""The command itself: its version, and how it ends where there is nothing to run."""

import subprocess
import sys
import tomllib

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
