"""At most twenty bulk jobs of a workspace wait or run: one more is a 429 that says what to do."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import httpx
import pytest

from shared.domain.reschedule_jobs import LIVE_AT_MOST, cannot_start
from tests import factories
from tests.api.answers import client, error
from tests.stack import Running

PATH = "/v1/reschedules"
SHIFT = {"filter": {"all": True}, "shift": "P1D"}
numbers = count(1)


@pytest.fixture
def http(stack: Running) -> Iterator[httpx.Client]:
    """A key of a workspace of its own. No worker runs bulk jobs here: what is started waits."""
    number = next(numbers)
    secret = f"sk_jobs{number}_0123456789"
    with stack.engine.begin() as tx:
        factories.workspace(tx, f"ws_jobs{number}", f"_jobs{number}", secret)
    with client(stack, secret) as http:
        yield http


def test_the_rule() -> None:
    assert cannot_start(0) is None
    assert cannot_start(LIVE_AT_MOST - 1) is None
    full = cannot_start(LIVE_AT_MOST)
    assert full is not None
    assert (full.code, full.retry_after) == ("rate_limited", 5)


def test_the_twenty_first_live_job_is_429_until_one_has_ended(stack: Running, http: httpx.Client) -> None:
    key = {"Idempotency-Key": "the-last"}
    started = [http.post(PATH, json=SHIFT | {"dryRun": bool(number % 2)}) for number in range(19)]
    started.append(http.post(PATH, json=SHIFT, headers=key))
    assert {answer.status_code for answer in started} == {202}
    refused = http.post(PATH, json=SHIFT, headers={"Idempotency-Key": "one-more"})
    said = error(refused, 429)
    assert said["code"] == "rate_limited"
    assert "20 bulk jobs of this workspace" in said["message"]
    assert "/cancel" in said["message"]
    assert refused.headers["retry-after"] == "5"
    repeated = http.post(PATH, json=SHIFT, headers=key)
    assert (repeated.status_code, repeated.json()["id"]) == (202, started[-1].json()["id"]), "a repeat starts nothing"
    assert stack.http.post(PATH, json=SHIFT).status_code == 202, "another workspace's is taken"
    assert http.post(f"{PATH}/{started[0].json()['id']}/cancel").status_code == 200
    assert http.post(PATH, json=SHIFT, headers={"Idempotency-Key": "one-more"}).status_code == 202
    error(http.post(PATH, json=SHIFT), 429)


def test_many_at_once_do_not_slip_in(stack: Running, http: httpx.Client) -> None:
    with ThreadPoolExecutor(30) as clients:
        found = Counter(clients.map(lambda _: http.post(PATH, json=SHIFT).status_code, range(30)))
    assert found[202] <= 20
    assert set(found) <= {202, 429, 503}, "503 where the machine is too busy to ask the database in time"
    while http.post(PATH, json=SHIFT).status_code != 429:
        found[202] += 1
    assert found[202] == 20
