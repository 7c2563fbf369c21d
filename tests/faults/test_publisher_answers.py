"""Row 23 of docs/faults.md, in its tame form: answers that once ended a publish too early, or made it go out twice."""

import json

import pytest

from tests.faults.harness import Harness
from tests.faults.publishing import attempts, due, judged, posted, reference, refused_as_being_published
from tests.reference_services.client import Reference
from tests.waiting import eventually

__all__ = ["reference"]


def went_out_once(harness: Harness, reference: Reference, *posts: str) -> list[int]:
    """Under one key and body each, with one effect each; what the publisher was answered, in order."""
    calls = judged(harness, reference)
    assert len({(call["post_id"], call["key"], call["body"]) for call in calls}) == len(posts)
    assert reference.journal()["effects"] == len(posts)
    return [call["status"] for call in calls]


def test_row_23_a_repeat_that_meets_the_first_still_under_way_is_neither_the_end_nor_a_second_effect(
    harness: Harness, reference: Reference
) -> None:
    reference.behave({"mode": "late", "seconds": 4, "effect": False, "times": 1})
    (post,) = due(harness)
    harness.start_api().start_ops()
    for name in ("edits", "publish"):
        harness.start_worker(name)
    eventually(lambda: "not_now" in attempts(harness.engine, post), within=30, because="the second try is answered 409")
    refused_as_being_published(harness, post, "while the first is under way")
    posted(harness, post)
    statuses = went_out_once(harness, reference, post)
    assert statuses.count(409) >= 1
    assert (attempts(harness.engine, post)[0], attempts(harness.engine, post)[-1]) == ("unknown", "done")


@pytest.mark.faults
def test_row_23_a_publisher_that_is_busy_once_is_asked_again_when_it_said(
    harness: Harness, reference: Reference
) -> None:
    reference.behave({"mode": "status", "status": 429, "retryAfter": "2", "effect": False, "times": 1})
    (post,) = due(harness)
    harness.start_ops()
    harness.start_worker("publish")
    posted(harness, post)
    assert went_out_once(harness, reference, post) == [429, 200]
    first, second = reference.calls("publish")
    assert second["at"] - first["at"] >= 2


@pytest.mark.faults
def test_row_23_a_publisher_whose_login_ran_out_fails_nothing_and_is_loud_until_it_is_mended(
    harness: Harness, reference: Reference
) -> None:
    reference.behave({"mode": "status", "status": 401, "message": "token expired", "effect": False})
    posts = due(harness, 20)
    harness.start_ops()
    worker = harness.start_worker("publish")
    eventually(lambda: len(reference.calls("publish")) >= 40, within=30, because="each was tried twice")
    assert harness.scalar("SELECT count(*) FROM posts WHERE status = 'failed'") == 0
    assert '"service_set_up_wrongly","call":"publish","found":"the service answered 401"' in worker.output()
    assert "token expired" not in worker.output()
    reference.behave()
    posted(harness, *posts, within=90)
    went_out_once(harness, reference, *posts)


@pytest.mark.faults
@pytest.mark.parametrize("said", ['{"jobId": 17}', '{"status": "processing"}'], ids=["202", "2xx"])
def test_row_23_a_publisher_at_work_is_asked_again_until_it_went_out(
    harness: Harness, reference: Reference, said: str
) -> None:
    status = 202 if "job" in said else 200
    reference.behave(
        {"mode": "status", "status": status, "said": said, "retryAfter": "1", "effect": False, "times": 2},
        {"mode": "status", "status": status, "said": said, "retryAfter": "1", "effect": True, "times": 1},
    )
    (post,) = due(harness)
    harness.start_api().start_ops()
    for name in ("edits", "publish"):
        harness.start_worker(name)
    eventually(lambda: reference.calls("publish"), within=30)
    refused_as_being_published(harness, post, "while it is at work")
    posted(harness, post)
    went_out_once(harness, reference, post)
    assert attempts(harness.engine, post) == ["processing"] * 3 + ["done"]


@pytest.mark.faults
def test_row_23_a_login_page_is_no_publisher(harness: Harness, reference: Reference) -> None:
    page = "<!doctype html><title>Log in</title>"
    reference.behave({"mode": "status", "status": 200, "said": page, "effect": False, "times": 2})
    (post,) = due(harness)
    harness.start_ops()
    harness.start_worker("publish")
    posted(harness, post)
    went_out_once(harness, reference, post)
    assert attempts(harness.engine, post) == ["server_error", "server_error", "done"]
    assert json.loads(reference.calls("publish")[0]["body"])["post"]["postId"] == post
