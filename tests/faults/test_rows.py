"""Every row of the list of faults has its test, `make faults` runs each by its number, and a failure tells all."""

import os
import re
import subprocess
import sys

from tests.processes import ROOT

ROWS = range(1, 29)


def run(*argv: str, **environment: str) -> str:
    """What a command says, whether it fails or not."""
    kept = os.environ | environment
    done = subprocess.run(argv, cwd=ROOT, env=kept, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout + done.stderr


def test_make_faults_runs_a_test_of_each_row_and_each_is_found_by_its_number() -> None:
    # What make would run, but for the set-up before it.
    recipe = run("make", "--dry-run", "faults", "ARGS=--collect-only --quiet")
    marks = re.search(r'pytest (-m "([^"]*)")? ?(\S.*?) --collect-only --quiet', recipe)
    assert marks is not None, recipe
    chosen = ["-m", marks[2]] if marks[1] else []
    folders = marks[3].split()
    assert "tests/faults" in folders
    collected = run(sys.executable, "-m", "pytest", *chosen, *folders, "--collect-only", "--quiet")
    tests = {line for line in collected.splitlines() if "::test_" in line}
    whole = re.search(r"^\d+ tests collected in", collected, re.MULTILINE)
    assert whole, "make faults leaves none out: pytest would say `1/2 tests collected (1 deselected)`"
    numbers = {int(number) for test in tests for number in re.findall(r"::test_row_(\d\d)_", test)}
    assert numbers >= set(ROWS)
    # `-k row_05` finds the tests of row 5 and no other: a number stands nowhere else in a name.
    assert not [test for test in tests if len(re.findall(r"row_\d\d", test)) > 1]


def test_a_failed_fault_prints_its_seed_and_its_history() -> None:
    said = run(sys.executable, "-m", "pytest", "tests/faults/broken.py", FAULTS_SEED="4711")
    assert "1 failed" in said
    assert "seed 4711 (repeat it with FAULTS_SEED=4711)" in said
    assert re.search(r"\d\d:\d\d:\d\d\.\d\d\d it struck", said)
    assert re.search(r"mine PATCH post_\d+ \{'caption': 'lost'\} -> 202\s+edit_lost in 100 ms", said)
    # And what the oracle found, with the whole story of the post.
    assert re.search(r"lost: post_\d+: edit_lost of mine was answered 202 and has no row", said)
    assert re.search(r"before: PostRow\(id='post_\d+'", said)
