"""Row 15 of docs/faults.md: a renderer and a receiver of webhooks that hang and die, and edits that arrive then."""

import json
import os
import signal
import time
from datetime import UTC, datetime, timedelta

import pytest

from tests import factories
from tests.faults.harness import Harness
from tests.faults.publishing import due, judged, posted, reference
from tests.reference_services.client import Reference
from tests.waiting import eventually

__all__ = ["reference"]

CONTENT = {"contentType": "slides", "contentUrl": ["https://cdn.example.com/8.jpg", "https://cdn.example.com/9.jpg"]}


@pytest.mark.faults
def test_row_15_a_hung_renderer_or_receiver_of_webhooks_delays_no_publish(
    harness: Harness, reference: Reference
) -> None:
    harness.environment |= reference.webhooks | {"REDRAFT_SERVICE_TIMEOUT": "20", "REDRAFT_CLAIM_EXPIRY": "60"}
    reference.behave({"mode": "hang", "kind": "render"}, {"mode": "hang", "kind": "webhook"})
    with harness.engine.begin() as tx:
        slides = [factories.slides(tx, created_at=datetime.now(UTC) - timedelta(minutes=1)) for _ in range(30)]
    first = due(harness, 30)
    harness.start_ops()
    for name in ("publish", "render", "webhooks"):
        harness.start_worker(name)
    posted(harness, *first)
    eventually(lambda: len(reference.calls("render")) >= 16 and len(reference.calls("webhook")) >= 30, within=30)
    second = due(harness, 30)
    started = time.monotonic()
    posted(harness, *second)
    assert time.monotonic() - started < 15, "behind one of these calls it would take 20 s"
    assert {harness.row("posts", post).status for post in slides} == {"pending_render"}
    assert {call["status"] for call in reference.calls("webhook")} == {None}


@pytest.mark.faults
def test_row_15_content_edited_during_a_render_is_rendered_anew_and_goes_out(
    harness: Harness, reference: Reference
) -> None:
    harness.environment |= {"REDRAFT_SERVICE_TIMEOUT": "20"}
    reference.behave({"mode": "late", "kind": "render", "seconds": 3, "times": 1})
    with harness.engine.begin() as tx:
        post = factories.slides(
            tx, scheduled_time=factories.soon(-5), created_at=datetime.now(UTC) - timedelta(minutes=1)
        )
    harness.remember([post])
    harness.start_api()
    for name in ("edits", "ops", "render"):
        harness.start_worker(name)
    harness.start_beat()
    eventually(lambda: reference.calls("render"), within=30)
    assert harness.send(post, CONTENT, "meanwhile").status == 200
    harness.start_worker("publish")
    posted(harness, post)
    old, *new = reference.calls("render")
    assert (len(new), json.loads(new[0]["body"])["post"]["contentUrl"]) == (1, CONTENT["contentUrl"])
    (call,) = judged(harness, reference)
    sent = json.loads(call["body"])["post"]
    assert (sent["contentUrl"], sent["renderedUrl"]) == (CONTENT["contentUrl"], harness.row("posts", post).rendered_url)
    assert old["key"] != new[0]["key"]


@pytest.mark.faults
def test_events_survive_a_receiver_and_a_worker_that_die_and_come_in_order(
    harness: Harness, reference: Reference
) -> None:
    harness.environment |= reference.webhooks
    reference.behave({"mode": "die", "kind": "webhook", "effect": True, "times": 1})
    posts = harness.populate(5)
    harness.start_api().start_ops()
    harness.start_worker("edits")
    worker = harness.start_worker("webhooks")
    wanted: dict[str, list[str]] = {post: [] for post in posts}
    for number in range(20):
        post = posts[number % 5]
        answer = harness.send(post, {"caption": f"secret {number}"}, f"edit-{number}")
        wanted[post].append(str(answer.edit_id))
        if number == 10:
            eventually(lambda: not reference.process.running, within=30)
            os.kill(worker.pid, signal.SIGKILL)
            reference.start()
            harness.start_worker("webhooks")
    eventually(lambda: harness.scalar("SELECT count(*) FROM webhook_events WHERE status = 'queued'") == 0, within=30)
    for post, edits in wanted.items():
        told = [json.loads(call["body"]) for call in reference.calls("webhook", post)]
        seen = list(dict.fromkeys(one["id"] for one in told))
        assert list(dict.fromkeys(one["data"]["editId"] for one in told)) == edits
        assert len(seen) == len(edits)
    assert "secret" not in str(reference.journal())
