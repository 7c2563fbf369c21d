"""Fault 15 of docs/faults.md: a renderer and a receiver of webhooks that hang and die, and edits that arrive then."""

import json
import os
import signal
import time
from datetime import UTC, datetime, timedelta

import pytest

from tests import factories
from tests.faults.publishing import due, judged, posted, reference
from tests.faults.scene import Scene
from tests.reference_services.client import Reference
from tests.waiting import eventually

__all__ = ["reference"]

CONTENT = {"contentType": "slides", "contentUrl": ["https://cdn.example.com/8.jpg", "https://cdn.example.com/9.jpg"]}


@pytest.mark.faults
def test_row_15_a_hung_renderer_or_receiver_of_webhooks_delays_no_publish(scene: Scene, reference: Reference) -> None:
    scene.environment |= reference.webhooks | {"REDRAFT_SERVICE_TIMEOUT": "20", "REDRAFT_CLAIM_EXPIRY": "60"}
    reference.behave({"mode": "hang", "kind": "render"}, {"mode": "hang", "kind": "webhook"})
    with scene.engine.begin() as tx:
        slides = [factories.slides(tx, created_at=datetime.now(UTC) - timedelta(minutes=1)) for _ in range(30)]
    first = due(scene, 30)
    scene.start_ops()
    for name in ("publish", "render", "webhooks"):
        scene.start_worker(name)
    posted(scene, *first)
    eventually(lambda: len(reference.calls("render")) >= 16 and len(reference.calls("webhook")) >= 30, within=20)
    second = due(scene, 30)
    started = time.monotonic()
    posted(scene, *second)
    assert time.monotonic() - started < 15, "behind one of these calls it would take 20 s"
    assert {scene.row("posts", post).status for post in slides} == {"pending_render"}
    assert {call["status"] for call in reference.calls("webhook")} == {None}


@pytest.mark.faults
def test_row_15_content_edited_during_a_render_is_rendered_anew_and_goes_out(
    scene: Scene, reference: Reference
) -> None:
    scene.environment |= {"REDRAFT_SERVICE_TIMEOUT": "20"}
    reference.behave({"mode": "late", "kind": "render", "seconds": 3, "times": 1})
    with scene.engine.begin() as tx:
        post = factories.slides(
            tx, scheduled_time=factories.soon(-5), created_at=datetime.now(UTC) - timedelta(minutes=1)
        )
    scene.remember([post])
    scene.start_api()
    for name in ("edits", "ops", "render"):
        scene.start_worker(name)
    scene.start_beat()
    eventually(lambda: reference.calls("render"), within=20)
    assert scene.send(post, CONTENT, "meanwhile").status == 200
    scene.start_worker("publish")
    posted(scene, post)
    old, *new = reference.calls("render")
    assert (len(new), json.loads(new[0]["body"])["post"]["contentUrl"]) == (1, CONTENT["contentUrl"])
    (call,) = judged(scene, reference)
    sent = json.loads(call["body"])["post"]
    assert (sent["contentUrl"], sent["renderedUrl"]) == (CONTENT["contentUrl"], scene.row("posts", post).rendered_url)
    assert old["key"] != new[0]["key"]


@pytest.mark.faults
def test_events_survive_a_receiver_and_a_worker_that_die_and_come_in_order(scene: Scene, reference: Reference) -> None:
    scene.environment |= reference.webhooks
    reference.behave({"mode": "die", "kind": "webhook", "effect": True, "times": 1})
    posts = scene.populate(5)
    scene.start_api().start_ops()
    scene.start_worker("edits")
    worker = scene.start_worker("webhooks")
    wanted: dict[str, list[str]] = {post: [] for post in posts}
    for number in range(20):
        post = posts[number % 5]
        answer = scene.send(post, {"caption": f"secret {number}"}, f"edit-{number}")
        wanted[post].append(str(answer.edit_id))
        if number == 10:
            eventually(lambda: not reference.process.running, within=10)
            os.kill(worker.pid, signal.SIGKILL)
            reference.start()
            scene.start_worker("webhooks")
    eventually(lambda: scene.scalar("SELECT count(*) FROM webhook_events WHERE status = 'queued'") == 0, within=30)
    for post, edits in wanted.items():
        told = [json.loads(call["body"]) for call in reference.calls("webhook", post)]
        seen = list(dict.fromkeys(one["id"] for one in told))
        assert list(dict.fromkeys(one["data"]["editId"] for one in told)) == edits
        assert len(seen) == len(edits)
    assert "secret" not in str(reference.journal())
