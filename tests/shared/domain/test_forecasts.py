"""What a post will be once its queue is applied, and what an edit would do, by the function that decides."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.domain import lifecycle
from shared.domain.edits import EditPatch
from shared.domain.forecasts import drained, effect
from shared.domain.lifecycle import PostFacts, Status
from shared.domain.queued_edits import QueuedEdit

NOW = datetime(2030, 1, 1, tzinfo=UTC)
POST = PostFacts(
    "post_1", "tiktok", Status.GENERATED, None, "slides", ["https://a.example/1.jpg"], None, "first", None,
    "Asia/Tokyo", NOW + timedelta(days=1), render_as_video=True, rendered_url="https://a.example/r.mp4", revision=1,
    schedule_revision=1, content_revision=1,
)  # fmt: skip
LATER = {"scheduledTime": "2030-02-01T09:00", "timezone": "Asia/Tokyo"}


def queued(changes: dict[str, Any], if_match: list[str] | None = None) -> QueuedEdit:
    return QueuedEdit("edit_1", 1, POST.id, changes, if_match, NOW, 0, "tests", 0, 10, NOW)


def test_the_queue_is_applied_in_its_order_and_what_would_be_refused_changes_nothing() -> None:
    queue = [
        queued({"caption": "a"}),
        queued({"caption": "b"}, ['"2"']),
        queued({"caption": "c"}, ['"2"']),
        queued({"caption": "x" * 5_000}),
        queued({"of": "a newer version"}),
        queued(LATER),
    ]
    after = drained(POST, queue)
    assert (after.caption, after.revision, after.schedule_revision) == ("b", 4, 2)
    assert drained(POST, []) is POST


@pytest.mark.parametrize(
    ("post", "changes", "wanted"),
    [
        (POST, {"caption": "first"}, ({}, False, False)),
        (POST, {"caption": "new"}, ({"caption": "new"}, False, False)),
        (POST, LATER, ({"scheduledTime": "2030-02-01T00:00:00Z"}, False, True)),
        (POST, {"soundId": "7"}, ({"soundId": "7", "status": "pending_render"}, True, False)),
        (
            replace(POST, render_as_video=False),
            {"soundId": "7"},
            ({"soundId": "7"}, False, False),
        ),
        (
            replace(POST, status=Status.PENDING_RENDER),
            {"contentType": "video", "contentUrl": "https://a.example/b.mp4"},
            ({"contentType": "video", "contentUrl": "https://a.example/b.mp4", "status": "generated"}, False, False),
        ),
    ],
)
def test_the_effect_of_an_edit(post: PostFacts, changes: dict[str, Any], wanted: tuple[Any, bool, bool]) -> None:
    decision = lifecycle.decide(post, EditPatch.from_changes(changes), NOW)
    assert isinstance(decision, lifecycle.Apply)
    found = effect(post, decision.after)
    assert (found.changes, found.rerender, found.publish_moved) == wanted
