"""Row 18 of docs/faults.md: the API is killed around its commit, and the client repeats with its key."""

import httpx
import pytest

from tests import factories
from tests.faults.harness import RESCUE_PERIOD, Harness
from tests.loopback import LOOPBACK
from tests.ports import free_port
from tests.processes import Process, planted_api
from tests.waiting import eventually


def start_crashing_api(harness: Harness) -> Process:
    port = free_port()
    planted = planted_api("tests.faults.crashing_api", port)
    assert "tests.faults.crashing_api:app" in planted
    api = harness.processes.start(planted, **harness.environment)
    api.port = port
    eventually(lambda: _up(api), within=30, because="the planted API answers")
    return api


def _up(api: Process) -> bool:
    try:
        return httpx.get(f"{api.url}/healthz", **LOOPBACK).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize(
    "point",
    [
        "before_bell",
        pytest.param("before_commit", marks=pytest.mark.faults),
        pytest.param("before_answer", marks=pytest.mark.faults),
    ],
)
def test_row_18_an_api_killed_around_its_commit_leaves_one_edit_when_the_client_repeats_with_its_key(
    harness: Harness, point: str
) -> None:
    posts = harness.populate(6)
    with harness.engine.begin() as tx:
        post = factories.post(tx, f"post_{point}")
    harness.remember([post])
    harness.start_ops()
    harness.start_worker()
    crashing = start_crashing_api(harness)
    body = {"caption": "once"}
    headers = {"Authorization": f"Bearer {factories.SECRET}", "Idempotency-Key": "once", "X-Request-Id": "mine"}
    with pytest.raises(httpx.TransportError):
        httpx.patch(f"{crashing.url}/v1/posts/{post}", json=body, headers=headers, timeout=20, **LOOPBACK)
    assert crashing.wait(within=30) == -9
    assert f"struck _{point}" in crashing.output()
    harness.note(f"the API was killed {point}")
    assert len(harness.edits_of(post)) == (0 if point == "before_commit" else 1)

    harness.start_api()
    with harness.load(posts, clients=3):
        again = {"Prefer": "wait=20", "Idempotency-Key": "once"}
        answers = [harness.send(post, body, "mine", **again) for _ in range(3)]
    assert {answer.status for answer in answers} == {200}
    assert len({answer.edit_id for answer in answers}) == 1
    first = answers[0].headers.get("idempotent-replayed")
    assert first == (None if point == "before_commit" else "true")
    assert answers[1].headers["idempotent-replayed"] == "true"
    (edit,) = harness.edits_of(post)
    assert (edit.status, edit.attempts, harness.row("posts", post).revision) == ("applied", 1, 2)
    harness.drained(within=2 * RESCUE_PERIOD)
    harness.judge()


@pytest.mark.parametrize("point", ["before_bell", pytest.param("before_commit", marks=pytest.mark.faults)])
def test_row_18_many_edits_are_recorded_all_or_none_and_once_when_the_client_repeats_with_its_key(
    harness: Harness, point: str
) -> None:
    with harness.engine.begin() as tx:
        posts = [factories.post(tx, f"post_{number}_{point}") for number in range(3)]
    harness.remember(posts)
    harness.start_ops()
    harness.start_worker()
    crashing = start_crashing_api(harness)
    body = {"edits": [{"postId": post, "caption": "once"} for post in posts]}
    headers = {"Authorization": f"Bearer {factories.SECRET}", "Idempotency-Key": "many", "Prefer": "wait=20"}
    with pytest.raises(httpx.TransportError):
        httpx.post(f"{crashing.url}/v1/edits", json=body, headers=headers, timeout=20, **LOOPBACK)
    assert crashing.wait(within=30) == -9
    harness.note(f"the API was killed {point}")
    assert {len(harness.edits_of(post)) for post in posts} == ({0} if point == "before_commit" else {1})

    harness.start_api()
    answers = [harness.http.post("/v1/edits", json=body, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].content == answers[1].content
    assert {fate["status"] for fate in answers[0].json()["data"]} == {"applied"}
    assert ("idempotent-replayed" in answers[0].headers) == (point != "before_commit")
    for post in posts:
        (edit,) = harness.edits_of(post)
        assert (edit.status, harness.row("posts", post).revision) == ("applied", 2)
