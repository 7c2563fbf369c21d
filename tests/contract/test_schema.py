"""A schema fuzzer with all of its checks finds no undocumented answer: a slice in every run, 2,000 examples with
`make fuzz`.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.local.postgres import PostgreSQL
from shared.local.valkey import Valkey
from tests import factories
from tests.api.operations import OPERATIONS
from tests.conftest import TEMPLATE, empty_database
from tests.processes import ROOT
from tests.stack import Running, running
from tests.watchdog import held_up

SETTINGS = Path(__file__).with_name("schemathesis.toml")
SEED = 20_240_422


@pytest.fixture
def fuzzed(postgres: PostgreSQL, valkey: Valkey) -> Iterator[Running]:
    """A stack with the rows that tests/contract/hooks.py knows of."""
    url = postgres.create_database("fuzzed", template=TEMPLATE)
    with running(url, empty_database(valkey), "edits", "bulk") as stack:
        stack.post(post_id="post_abc123")
        stack.slides(post_id="post_slides")
        stack.post(post_id="post_posted", status="posted", posted_at=factories.soon(-5))
        yield stack
    postgres.drop_database("fuzzed")


def fuzz(stack: Running, folder: Path, examples: int, within: float) -> None:
    """Run Schemathesis, all phases and all checks; what it found is the failure. FUZZ_SEED for another seed."""
    assert stack.api is not None
    seed = os.environ.get("FUZZ_SEED", SEED)
    found = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", f"--config-file={SETTINGS}"),
            *("run", f"{stack.api.url}/openapi.json", f"--seed={seed}", f"--max-examples={examples}"),
            *("--checks=all", "--phases=examples,coverage,fuzzing,stateful", "--no-color", "--no-shrink"),
            f"--header=Authorization: Bearer {factories.SECRET}",
        ],
        capture_output=True,
        text=True,
        timeout=within,
        check=False,
        # It keeps what it remembers in the folder that it runs in.
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    print("\n".join(line[:2_000] for line in found.stdout.splitlines()[-400:]), found.stderr[-5_000:])
    assert found.returncode == 0, "what the fuzzer found stands above"
    generated = re.search(r"(\d+) generated, (\d+) passed", found.stdout)
    assert generated, "it has tested something"
    # All operations times some of their examples: a document that became empty must not pass.
    assert int(generated[1]) > 500
    assert re.search(rf"Tested: +{len(OPERATIONS)}\b", found.stdout)
    assert "unexpected_error" not in stack.api.output()
    assert held_up(stack.api) == []


def test_a_slice_of_the_schema_fuzzer_finds_nothing(fuzzed: Running, tmp_path: Path) -> None:
    fuzz(fuzzed, tmp_path, 10, 600)


@pytest.mark.fuzz
def test_two_thousand_examples_an_operation_find_nothing(fuzzed: Running, tmp_path: Path) -> None:
    fuzz(fuzzed, tmp_path, 2_000, within=3 * 3600)
