"""Fault 17 of docs/faults.md: two of everything."""

from datetime import UTC, datetime, timedelta

from tests import factories
from tests.faults.publishing import due, judged, posted, reference
from tests.faults.scene import Scene
from tests.reference_services.client import Reference
from tests.waiting import eventually

__all__ = ["reference"]


def test_row_17_two_of_everything_is_the_same_as_one(scene: Scene, reference: Reference) -> None:
    posts = due(scene, 60)
    posts += due(scene, 60, scheduled_time=datetime.now(UTC) + timedelta(seconds=8))
    with scene.engine.begin() as tx:
        edited = {post: factories.edit(tx, post, {"caption": "forgotten"}) for post in scene.populate(20)}
        slides = [factories.slides(tx, created_at=datetime.now(UTC) - timedelta(minutes=1)) for _ in range(10)]
    for number in range(2):
        for name in ("ops", "publish", "edits", "render"):
            scene.processes.start("worker", name, f"--hostname={name}@{number}", **scene.environment)
        scene.start_beat()
    posted(scene, *posts, within=60)
    eventually(lambda: scene.queued() == 0, within=20)
    eventually(lambda: {scene.row("posts", post).status for post in slides} == {"generated"}, within=20)
    assert {scene.row("edits", edit).attempts for edit in edited.values()} == {1}
    calls = judged(scene, reference)
    assert sorted(call["post_id"] for call in calls) == sorted(posts)
    assert len({call["key"] for call in reference.calls("render")}) == len(reference.calls("render")) == 10
