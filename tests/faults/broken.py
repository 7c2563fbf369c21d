"""A fault that is never survived: `pytest tests/faults/broken.py`. No test by its name, so that nothing collects it.

tests/faults/test_rows.py runs it, to see what a failed run leaves to whoever has to find out why.
"""

import time

from tests.faults.evidence import Exchange
from tests.faults.scene import Scene


def test_a_lost_edit(scene: Scene) -> None:
    (post,) = scene.populate(1)
    scene.note("it struck")
    now = time.time()
    told = {"edit-id": "edit_lost"}
    scene.others.append(Exchange("mine", post, {"caption": "lost"}, now, now + 0.1, 202, told, {}))
    scene.judge()
