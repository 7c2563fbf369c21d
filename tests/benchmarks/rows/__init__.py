"""The measurements of docs/performance.md: which module measures which, in the order in which they run."""

from collections.abc import Sequence
from importlib import import_module
from typing import Final, Protocol, cast

from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Section

ORDER: Final[Sequence[tuple[str, Sequence[int]]]] = (
    ("patch", (1, 2, 3, 4)),
    ("draining", (5,)),
    ("draining", (6,)),
    ("bulk", (7,)),
    ("bulk", (8,)),
    ("size", (9,)),
    ("publishing", (10,)),
    ("memory", (11,)),
    ("starting", (12,)),
    ("neighbours", (13,)),
    ("many", (14,)),
)
"""What is measured together. A group that fails takes no other with it."""

TITLES: Final = {
    1: "PATCH to 200 over HTTP, 64 clients",
    2: "The same at 16 clients and at 256",
    3: "One client, PATCH to 200",
    4: "The 202 path (respond-async), 64 clients",
    5: "Draining 100,000 queued edits of 100,000 posts, one worker with one process",
    6: "1,000 queued edits of one post",
    7: "Bulk shift of 100,000 posts with audit rows",
    8: "Single edits while a bulk job of 100,000 posts runs",
    9: "The same with small and large tables, 64 clients",
    10: "10,000 posts due in the same minute, a publisher that takes 200 ms",
    11: "Memory at rest, in a flood and after it",
    12: "`redraft up` in an empty folder, to the first 200",
    13: "One PATCH a second of a workspace, beside another's flood of 64, 512 and 2,500 connections",
    14: "POST /v1/edits with 100 edits a request, 16 clients",
}


class Module(Protocol):
    def measure(self, bench: Bench, numbers: Sequence[int]) -> list[Section]:
        """Measure these rows of the module's, and say what each came to."""


def module(name: str) -> Module:
    return cast("Module", import_module(f"tests.benchmarks.rows.{name}"))
