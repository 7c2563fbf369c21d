"""decide(): the full table of docs/lifecycle.md, status x claim x edit, and the counters that each cell moves."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest

from shared.domain import errors
from shared.domain.edits import EditPatch
from shared.domain.fields import Content
from shared.domain.lifecycle import (
    STATES,
    Apply,
    ClaimKind,
    PostFacts,
    Reject,
    Status,
    decide,
    edited,
    etag,
    matches,
    moved,
    needs_render,
)

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(days=2)
VIDEO = PostFacts(
    id="post_1",
    platform="tiktok",
    status=Status.GENERATED,
    claim=None,
    content_type="video",
    content_url="https://a.example/1.mp4",
    thumbnail_url="https://a.example/1.jpg",
    caption="old",
    sound_id=None,
    timezone="UTC",
    scheduled_time=NOW + timedelta(days=1),
    render_as_video=False,
    rendered_url=None,
    revision=7,
    schedule_revision=3,
    content_revision=5,
)
SLIDES = replace(
    VIDEO,
    content_type="slides",
    content_url=["https://a.example/1.jpg"],
    render_as_video=True,
    rendered_url="https://a.example/r.mp4",
)
POSTS = {"video": VIDEO, "slides": SLIDES}

CAPTION = EditPatch(caption="new")
NOW_ON = EditPatch(at_once=True)
TIME = EditPatch(local_time=LATER.replace(tzinfo=None), timezone="Europe/London", instant=LATER)
SLIDE_CONTENT = EditPatch(content=Content("slides", ("https://a.example/9.jpg",)))
VIDEO_CONTENT = EditPatch(content=Content("video", ("https://a.example/9.mp4",)))
SOUND = EditPatch(sound_id="7")
EDITS = {
    "caption": CAPTION, "time": TIME, "slides": SLIDE_CONTENT, "video": VIDEO_CONTENT, "sound": SOUND,
}  # fmt: skip

CLAIMS: list[tuple[Status, ClaimKind | None]] = [
    (status, claim)
    for status, claim in product(Status, [None, *ClaimKind])
    # What the CHECKs of the table allow: each claim in its own status only.
    if claim is None or claim is STATES[status].claim
]


def expected(post: PostFacts, edit: str) -> dict[str, Any] | str:
    """The table of docs/lifecycle.md once more, by hand: what an edit makes of a post, or the label of its refusal."""
    if post.status in {Status.POSTED, Status.FAILED}:
        return post.status.value
    if post.claim is ClaimKind.PUBLISH:
        return "being published"
    change: dict[str, Any] = {"revision": 8, "schedule_revision": 3, "content_revision": 5}
    if edit == "caption":
        return change | {"status": post.status, "claim": post.claim, "rendered_url": post.rendered_url}
    if edit == "time":
        change |= {"schedule_revision": 4, "timezone": "Europe/London", "scheduled_time": LATER}
        return change | {"status": post.status, "claim": post.claim, "rendered_url": post.rendered_url}
    content = {"slides": "slides", "video": "video"}.get(edit, post.content_type)
    status = Status.PENDING_RENDER if content == "slides" and post.render_as_video else Status.GENERATED
    thumbnail = post.thumbnail_url if edit == "sound" else None
    return change | {
        "content_revision": 6, "status": status, "claim": None, "rendered_url": None, "thumbnail_url": thumbnail,
    }  # fmt: skip


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("kind", POSTS)
@pytest.mark.parametrize(("status", "claim"), CLAIMS)
def test_the_whole_table_of_status_claim_and_edit(
    status: Status, claim: ClaimKind | None, kind: str, edit: str
) -> None:
    post = replace(POSTS[kind], status=status, claim=claim)
    decision = decide(post, EDITS[edit], NOW)
    wanted = expected(post, edit)
    if isinstance(wanted, str):
        assert isinstance(decision, Reject)
        assert decision.code == "cannot_edit"
        assert [(detail.field, detail.message) for detail in decision.details] == [("status", wanted)]
        return
    assert isinstance(decision, Apply)
    assert {name: getattr(decision.after, name) for name in wanted} == wanted


@pytest.mark.parametrize(("status", "claim"), CLAIMS)
def test_an_edit_that_changes_nothing_is_applied_and_moves_no_counter(status: Status, claim: ClaimKind | None) -> None:
    post = replace(SLIDES, status=status, claim=claim)
    same = EditPatch(caption="old", content=Content("slides", ("https://a.example/1.jpg",)), sound_id=None)
    decision = decide(post, same, NOW)
    if not isinstance(decision, Reject):
        assert decision.after is post


def test_the_same_instant_in_another_zone_moves_the_revision_but_not_the_schedule() -> None:
    instant = VIDEO.scheduled_time
    patch = EditPatch(local_time=instant.replace(tzinfo=None), timezone="Europe/Paris", instant=instant)
    after = edited(VIDEO, patch)
    assert (after.revision, after.schedule_revision, after.timezone) == (8, 3, "Europe/Paris")
    assert moved(VIDEO, instant, "Europe/Paris") == after


def test_the_time_is_judged_against_the_moment_of_acceptance_not_of_applying() -> None:
    soon = EditPatch(local_time=NOW.replace(tzinfo=None), timezone="Europe/London", instant=NOW + timedelta(minutes=1))
    assert isinstance(decide(VIDEO, soon, NOW), Apply)
    late = decide(VIDEO, soon, NOW + timedelta(minutes=2))
    assert isinstance(late, Reject)
    assert late.code == "invalid_scheduled_time"


def test_a_deleted_post_is_not_found_whatever_is_asked() -> None:
    decision = decide(replace(VIDEO, deleted=True), CAPTION, NOW, ["*"])
    assert decision == Reject("not_found", "Post post_1 not found")


@pytest.mark.parametrize(
    ("if_match", "passes"),
    [
        *((None, True), (["*"], True), (['"7"'], True), (['"1"', '"7"'], True), (['"6"'], False), ([], False)),
        *((['!"7"'], False), (['!"6"'], True), (['"7"', '!"6"'], True), (['"7"', '!"7"'], False)),
        *((["*", '!"7"'], False), (['"6"', '!"1"'], False), (['W/"7"'], False)),
    ],
)
def test_if_match_passes_by_strong_comparison_and_if_none_match_by_the_lack_of_it(
    if_match: list[str] | None, passes: bool
) -> None:
    assert matches(if_match, 7) is passes
    assert isinstance(decide(VIDEO, CAPTION, NOW, if_match), Apply if passes else Reject)
    assert etag(7) == '"7"'


def test_a_failed_precondition_is_refused_in_the_words_of_its_error() -> None:
    said = errors.PreconditionFailed(7)
    assert decide(VIDEO, CAPTION, NOW, ['"6"']) == Reject(said.code, said.message)
    assert 'its ETag is now "7"' in said.message


def test_a_refusal_for_its_status_comes_before_its_precondition() -> None:
    decision = decide(replace(VIDEO, status=Status.POSTED), CAPTION, NOW, ['"1"'])
    assert isinstance(decision, Reject)
    assert decision.code == "cannot_edit"


def test_every_status_is_in_the_table_and_every_move_in_it_is_to_a_status() -> None:
    assert set(STATES) == set(Status)
    assert all(state.moves_to <= set(Status) and state.description for state in STATES.values())


def test_only_slides_as_video_need_a_render() -> None:
    assert needs_render("slides", render_as_video=True)
    assert not needs_render("slides", render_as_video=False)
    assert not needs_render("video", render_as_video=True)


@pytest.mark.parametrize("zone", ["UTC", None])
def test_publish_now_sets_the_time_to_the_moment_of_acceptance_and_leaves_the_zone(zone: str | None) -> None:
    decision = decide(replace(VIDEO, timezone=zone), EditPatch.from_changes(NOW_ON.changes()), NOW)
    assert isinstance(decision, Apply)
    after = decision.after
    assert (after.scheduled_time, after.timezone) == (NOW, zone)
    assert (after.revision, after.schedule_revision, after.content_revision) == (8, 4, 5)
    assert EditPatch.unknown_in(NOW_ON.changes()) == []
    refused = decide(replace(VIDEO, status=Status.POSTED), NOW_ON, NOW)
    assert isinstance(refused, Reject)
