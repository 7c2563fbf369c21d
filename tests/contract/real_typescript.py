"""A TypeScript client that is generated from the document compiles strictly and does its work: `make typescript`.

Needs Node 20 or newer on PATH, and the network: npm installs what package-lock.json names. So `make test` leaves it
out, by its name. tests/contract/test_clients.py does the same with a client in Python.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from shared.local.postgres import PostgreSQL
from shared.local.valkey import Valkey
from tests import factories
from tests.api.operations import DOCUMENT
from tests.conftest import TEMPLATE, empty_database
from tests.stack import running

PROGRAM = Path(__file__).with_name("typescript")
STRICT = ("--strict", "--noUncheckedIndexedAccess", "--module", "nodenext", "--target", "es2022", "--types", "node")


def run(*command: str, folder: Path) -> str:
    """What a command prints; AssertionError where it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with redraft.ts, which openapi-typescript makes, and the program that uses it, compiled."""
    folder = tmp_path_factory.mktemp("typescript") / "client"
    shutil.copytree(PROGRAM, folder)
    (folder / "openapi.json").write_text(json.dumps(DOCUMENT))
    run("npm", "ci", "--no-audit", "--no-fund", folder=folder)
    run("npx", "openapi-typescript", "openapi.json", "--output", "redraft.ts", folder=folder)
    run("npx", "tsc", *STRICT, "session.ts", folder=folder)
    return folder


def test_no_field_of_the_types_may_be_anything(compiled: Path) -> None:
    """But those that a newer version may add, and other headers."""
    types = (compiled / "redraft.ts").read_text()
    assert re.findall(r"^.*\bany\b.*;$", types, re.MULTILINE) == []
    assert set(re.findall(r"(\S+): unknown", types)) == {"string]"}


def test_the_program_edits_a_post_many_posts_and_moves_them(
    compiled: Path, postgres: PostgreSQL, valkey: Valkey
) -> None:
    url = postgres.create_database("typescript", template=TEMPLATE)
    with running(url, empty_database(valkey), "edits", "bulk") as stack:
        assert stack.api is not None
        posts = [stack.post(scheduled_time=factories.soon(600)) for _ in range(3)]
        run("node", "session.js", stack.api.url, factories.SECRET, *posts, folder=compiled)
        assert stack.row("posts", posts[0]).caption == "From a TypeScript client"
        assert [stack.row("posts", post).schedule_revision for post in posts] == [2, 2, 2]
    postgres.drop_database("typescript")
