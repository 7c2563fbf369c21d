"""Row 12: how long a newcomer waits: `redraft up --demo` in an empty folder, to the first 200."""

import json
import secrets
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from shared.local.datadir import free_port
from tests.benchmarks import contenders
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Figure, Goal, Section, number
from tests.benchmarks.ground import WrongMeasureError
from tests.benchmarks.rows import TITLES
from tests.processes import Processes
from tests.waiting import eventually

DOCUMENTED = "/v1/posts/post_abc123"
WITHIN = 60


def measure(bench: Bench, numbers: Sequence[int]) -> list[Section]:
    ready, edited, again = [], [], []
    for turn in range(bench.options.rounds):
        bench.say(f"round {turn + 1}: redraft up")
        home = bench.folder / f"up-{secrets.token_hex(4)}"
        try:
            first = _up(home)
            ready.append(first[0])
            edited.append(first[1])
            again.append(_up(home)[1])
        finally:
            shutil.rmtree(home, ignore_errors=True)
        bench.say(f"  ready {number(ready[-1])} s, first edit {number(edited[-1])} s, once more {number(again[-1])} s")
    section = Section(12, TITLES[12])
    first_edit = Figure.of(edited, "s")
    section.goals.append(Goal("to the first PATCH answered 200", 8, first_edit.median, at_least=False, form="{} s"))
    section.header = ["from the command to", "median (least to most)"]
    section.rows += [
        ["`/readyz` answers 200", Figure.of(ready, "s").full],
        ["the documented PATCH is answered 200", first_edit.full],
        ["the same at a second start, with the data there", Figure.of(again, "s").full],
    ]
    section.notes.append(
        "`redraft up --demo` with its own PostgreSQL and Valkey, made anew; the packages are installed. The first edit "
        "needs API, database, Redis and a worker."
    )
    return [section]


def _up(home: Path) -> tuple[float, float]:
    """Seconds to /readyz and to the first PATCH answered 200."""
    processes = Processes()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    argv = [sys.executable, "-m", "shared.cli.main", "up", "--demo", f"--port={port}"]
    began = time.monotonic()
    try:
        up = processes.start([*argv, f"--flower-port={free_port()}", f"--data-dir={home}"])
        try:
            eventually(lambda: contenders.request(url, "GET", "/readyz")[0] == 200, within=WITHIN, every=0.02)
            ready = time.monotonic() - began
            eventually((home / "stack.json").exists, within=WITHIN, every=0.02)
            key = json.loads((home / "stack.json").read_text(encoding="utf-8"))["apiKey"]
            change = {"caption": f"the first edit {secrets.token_hex(4)}"}
            bearer = {"Authorization": f"Bearer {key}"}
            eventually(
                lambda: contenders.request(url, "PATCH", DOCUMENTED, change, **bearer)[0] == 200,
                within=WITHIN,
                every=0.02,
            )
            edited = time.monotonic() - began
            up.stop(within=20)
        except AssertionError as error:
            raise WrongMeasureError(f"{error}\n{up.output()[-4000:]}") from error
    finally:
        processes.close()
    return ready, edited
