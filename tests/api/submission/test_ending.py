"""SIGTERM: whoever waits for an edit hears within seconds that it is safe; nobody's connection is closed unanswered."""

import signal
from concurrent.futures import ThreadPoolExecutor

from shared.local.stack import EDGES, GRACE
from tests.stack import running
from tests.waiting import eventually

# What `redraft up` grants.
WITHIN = GRACE[EDGES] - 1


def test_whoever_waits_as_the_api_ends_is_answered_though_they_would_have_waited_for_longer(
    database_url: str, redis_url: str
) -> None:
    wait = {"Prefer": "wait=30"}
    with running(database_url, redis_url) as stack, ThreadPoolExecutor(2) as pool:
        assert stack.api is not None
        post = stack.post()
        patched = pool.submit(stack.patch, post, {"caption": "safe"}, **wait)
        eventually(lambda: len(stack.edits_of(post)) == 1, within=30, because="the edit is recorded; no worker runs")
        [edit] = stack.edits_of(post)
        looked = pool.submit(stack.http.get, f"/v1/edits/{edit.id}", headers=wait)
        eventually(lambda: "redraft_waiting_requests 2" in stack.http.get("/metrics").text, within=30)
        stack.api.signal(signal.SIGTERM)
        assert (patched.result(WITHIN).status_code, patched.result().json()["editId"]) == (202, edit.id)
        assert (looked.result(WITHIN).status_code, looked.result().json()["status"]) == (200, "queued")
        assert stack.api.wait(within=30) == 0, "a clean end is no failure"
