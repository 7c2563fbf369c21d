"""A fault that is never survived: `pytest tests/faults/broken.py`. No test by its name, so that nothing collects it.

tests/faults/test_rows.py runs it, to see what a failed run leaves to whoever has to find out why.
"""

import time

from tests.faults.evidence import Exchange
from tests.faults.harness import Harness


def test_a_lost_edit(harness: Harness) -> None:
    (post,) = harness.populate(1)
    harness.note("it struck")
    now = time.time()
    told = {"edit-id": "edit_lost"}
    harness.others.append(Exchange("mine", post, {"caption": "lost"}, now, now + 0.1, 202, told, {}))
    harness.judge()
