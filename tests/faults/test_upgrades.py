"""Row 26: processes of the version before run beside new ones, whichever was replaced first."""

import httpx
import pytest

from tests.faults.harness import RESCUE_PERIOD, Harness
from tests.loopback import LOOPBACK
from tests.ports import free_port
from tests.processes import planted_api
from tests.waiting import eventually

OLDER_WORKER = "--include=tests.faults.older_worker"


def start_older_api(harness: Harness) -> None:
    port = free_port()
    api = harness.processes.start(planted_api("tests.faults.older_api", port), **harness.environment)
    api.port = port

    def up() -> bool:
        try:
            return httpx.get(f"{api.url}/healthz", **LOOPBACK).status_code == 200
        except httpx.TransportError:
            return False

    eventually(up, within=30, because="the older API answers")
    harness.address = api.url


@pytest.mark.parametrize(
    ("apis", "workers"),
    [(["older"], ["new"]), (["new"], ["older"]), (["new"], ["older", "new"]), (["older", "new"], ["new", "older"])],
    ids=["the API last", "the workers last", "half of the workers", "half of everything"],
)
def test_row_26_old_and_new_processes_apply_each_edit_once_and_in_time(
    harness: Harness, apis: list[str], workers: list[str]
) -> None:
    posts = harness.populate()
    for number, kind in enumerate(workers):
        harness.start_worker("edits", f"--hostname=edits@{number}", *([OLDER_WORKER] if kind == "older" else []))
    harness.start_ops()
    addresses = []
    for kind in apis:
        if kind == "older":
            start_older_api(harness)
        else:
            harness.start_api()
        addresses.append(harness.address)
    with harness.load(posts, clients=4) as load:
        for address in addresses:
            harness.address = address
            so_far = load.accepted
            eventually(lambda so_far=so_far: load.accepted >= so_far + 80, within=60)
    assert load.slowest() < RESCUE_PERIOD
    harness.drained(within=RESCUE_PERIOD)
    harness.judge()
