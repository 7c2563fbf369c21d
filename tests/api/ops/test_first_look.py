"""The first look at a page in a process: its templates are compiled, and requests of others do not wait for that."""

import httpx

from tests.loopback import LOOPBACK
from tests.stack import running
from tests.waiting import eventually
from tests.watchdog import held_up


def test_nobody_waits_while_the_templates_are_compiled(database_url: str, redis_url: str) -> None:
    with running(database_url, redis_url, REDRAFT_OPS_PASSWORD="operators-only") as stack:
        api = stack.start_planted("tests.api.ops.slow_templates")
        with httpx.Client(base_url=api.url, auth=("ops", "operators-only"), timeout=40, **LOOPBACK) as client:
            assert client.get("/ops").status_code == 200
            # Its watchdog has looked again since.
            eventually(lambda: client.get("/readyz").status_code == 200, within=30)
            assert "parts.html takes long" in api.output()
            assert held_up(api) == []
