"""A client that is generated from the document is typed throughout, and does its work against a running stack."""

import ast
import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from shared.local.postgres import PostgreSQL
from shared.local.valkey import Valkey
from tests import factories
from tests.api.operations import DOCUMENT
from tests.conftest import TEMPLATE, empty_database
from tests.processes import ROOT
from tests.stack import running

SESSION = Path(__file__).with_name("client_session.py")
LOCK = Path(__file__).with_name("requirements.lock")


def run(python: Path | str, *command: str, folder: Path) -> str:
    """What a command prints; AssertionError where it fails."""
    done = subprocess.run(
        [python, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{folder}:{ROOT}", "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter of an environment of its own, made once for each lock file: what the generator needs does not go
    together with what the product needs.
    """
    folder = Path(sys.prefix) / f"clients-{sha256(LOCK.read_bytes()).hexdigest()[:12]}"
    found = folder / "bin/python"
    if not (folder / "ready").exists():
        run(sys.executable, "-m", "venv", "--clear", str(folder), folder=ROOT)
        run(found, *["-m", "pip", "install", "--quiet", "--require-hashes", "-r"], str(LOCK), folder=ROOT)
        (folder / "ready").touch()
    return found


@pytest.fixture(scope="module")
def generated(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package `redraft_client`, which openapi-python-client makes without a warning."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "openapi.json").write_text(json.dumps(DOCUMENT))
    (folder / "config.json").write_text('{"package_name_override": "redraft_client", "post_hooks": []}')
    said = run(
        *(python, "-m", "openapi_python_client", "generate", "--path", "openapi.json", "--config", "config.json"),
        *("--meta", "none", "--output-path", "redraft_client", "--fail-on-warning"),
        folder=folder,
    )
    assert "arning" not in said
    return folder


def test_the_generated_client_and_a_program_that_uses_it_pass_mypy_strict(python: Path, generated: Path) -> None:
    empty = generated / "mypy.ini"
    empty.write_text("[mypy]\n")
    checked = (f"--python-executable={python}", "redraft_client", str(SESSION))
    said = run(sys.executable, "-m", "mypy", "--strict", f"--config-file={empty}", *checked, folder=generated)
    assert "Success" in said


def test_no_field_of_the_generated_client_may_be_anything(generated: Path) -> None:
    """But those that a newer version may add."""
    loose = [
        f"{each.name}: {ast.unparse(found)}"
        for each in sorted((generated / "redraft_client/models").glob("*.py"))
        for model in ast.parse(each.read_text()).body
        if isinstance(model, ast.ClassDef)
        for found in model.body
        if isinstance(found, ast.AnnAssign) and "Any" in ast.unparse(found.annotation)
    ]
    assert [one for one in loose if "additional_properties" not in one] == []


def test_the_generated_client_edits_a_post_moves_posts_and_deletes_posts(
    python: Path, generated: Path, postgres: PostgreSQL, valkey: Valkey
) -> None:
    url = postgres.create_database("clients", template=TEMPLATE)
    with running(url, empty_database(valkey), "edits", "bulk") as stack:
        assert stack.api is not None
        posts = [stack.post(scheduled_time=factories.soon(600)) for _ in range(3)]
        run(python, str(SESSION), stack.api.url, factories.SECRET, factories.TIKTOK, *posts, folder=generated)
        assert stack.row("posts", posts[0]).caption == "From a generated client"
        assert [stack.row("posts", post).schedule_revision for post in posts] == [2, 2, 2]
    postgres.drop_database("clients")
