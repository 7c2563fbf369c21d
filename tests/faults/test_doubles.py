"""Row 17 of docs/faults.md: two of everything."""

from datetime import UTC, datetime, timedelta

from tests import factories
from tests.faults.harness import Harness
from tests.faults.publishing import due, judged, posted, reference
from tests.reference_services.client import Reference
from tests.waiting import eventually

__all__ = ["reference"]


def test_row_17_two_of_everything_is_the_same_as_one(harness: Harness, reference: Reference) -> None:
    posts = due(harness, 60)
    posts += due(harness, 60, scheduled_time=datetime.now(UTC) + timedelta(seconds=8))
    with harness.engine.begin() as tx:
        edited = {post: factories.edit(tx, post, {"caption": "forgotten"}) for post in harness.populate(20)}
        slides = [factories.slides(tx, created_at=datetime.now(UTC) - timedelta(minutes=1)) for _ in range(10)]
    for number in range(2):
        for name in ("ops", "publish", "edits", "render"):
            harness.processes.start("worker", name, f"--hostname={name}@{number}", **harness.environment)
        harness.start_beat()
    posted(harness, *posts, within=60)
    eventually(lambda: harness.queued() == 0, within=30)
    eventually(lambda: {harness.row("posts", post).status for post in slides} == {"generated"}, within=30)
    assert {harness.row("edits", edit).attempts for edit in edited.values()} == {1}
    calls = judged(harness, reference)
    assert sorted(call["post_id"] for call in calls) == sorted(posts)
    assert len({call["key"] for call in reference.calls("render")}) == len(reference.calls("render")) == 10
