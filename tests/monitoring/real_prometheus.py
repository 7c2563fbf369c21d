"""The alert rules and the dashboard in a real Prometheus that scrapes a real stack: `make alerts`.

Needs `prometheus` and `promtool` (Debian: apt-get install prometheus). So `make test` leaves it out, by its name.
"""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import yaml
from sqlalchemy import text

from shared import task_names
from shared.local.postgres import PostgreSQL
from tests import factories
from tests.conftest import TEMPLATE
from tests.loopback import LOOPBACK
from tests.ports import free_port
from tests.processes import Server
from tests.stack import Running, running
from tests.waiting import eventually

DOCS = Path(__file__).parents[2] / "docs"
RULES = DOCS / "alerts.yml"
ALERTS = yaml.safe_load(RULES.read_text())
DASHBOARD = json.loads((DOCS / "grafana-dashboard.json").read_text())
EXPRESSIONS = [(rule["alert"], rule["expr"]) for group in ALERTS["groups"] for rule in group["rules"]]
EXPRESSIONS += [
    (panel["title"], target["expr"].replace("$__rate_interval", "1m"))
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
]
CONFIGURATION = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs: [{{job_name: redraft, static_configs: [{{targets: ["{api}"]}}]}}]
"""


@pytest.fixture(scope="module")
def valkey_of_its_own() -> Iterator[Server]:
    from tests.processes import valkey  # noqa: PLC0415  -- the name of the fixture of the whole run

    with valkey() as server:
        yield server


@contextmanager
def a_receiver_that_fails() -> Iterator[str]:
    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(500)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hooks"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def stack(postgres: PostgreSQL, valkey_of_its_own: Server) -> Iterator[Running]:
    """All roles, after an edit, a publish, a render, a bulk job and a webhook that was not taken."""
    url = postgres.create_database("monitoring", template=TEMPLATE)
    with (
        a_receiver_that_fails() as receiver,
        running(url, valkey_of_its_own.url, *task_names.QUEUES, REDRAFT_WEBHOOK_URL=receiver) as stack,
    ):
        stack.start_beat()
        assert stack.patch(stack.post(), {"caption": "counted"}).status_code == 200
        due, slides, moved = stack.post(scheduled_time=factories.soon(-1)), stack.slides(), stack.post()
        job = stack.http.post("/v1/reschedules", json={"filter": {"postIds": [moved]}, "shift": "PT1H"})
        assert job.status_code == 202, job.text
        eventually(lambda: stack.row("posts", due).status == "posted", within=60)
        eventually(lambda: stack.row("posts", slides).status == "generated", within=60)
        eventually(lambda: stack.scalar("SELECT status FROM reschedules") == "done", within=60)
        eventually(lambda: stack.scalar("SELECT count(*) FROM webhook_tries") > 0, within=60)
        yield stack


@pytest.fixture(scope="module")
def prometheus(stack: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a Prometheus that has scraped the stack."""
    program = shutil.which("prometheus")
    assert program, "there is no Prometheus here (Debian: apt-get install prometheus)"
    assert stack.api is not None
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    configuration = folder / "prometheus.yml"
    configuration.write_text(CONFIGURATION.format(rules=RULES, api=f"127.0.0.1:{stack.api.port}"))
    process = stack.processes.start(
        [
            program,
            f"--config.file={configuration}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
    )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=30, **LOOPBACK) as client:

        def scraped() -> bool:
            assert process.running, process.output()
            with suppress(httpx.TransportError):
                return bool(asked(client, "redraft_scrape_up")) if client.get("/status/config").is_success else False
            return False

        eventually(scraped, within=60, because="Prometheus has scraped the API")
        yield client


def asked(prometheus: httpx.Client, expression: str) -> list[Any]:
    answer = prometheus.get("/query", params={"query": expression})
    said = answer.json()
    assert said["status"] == "success", f"{expression}: {said.get('error')}"
    result: list[Any] = said["data"]["result"]
    return result


def rules(prometheus: httpx.Client) -> dict[str, Any]:
    groups = prometheus.get("/rules").json()["data"]["groups"]
    return {rule["name"]: rule for group in groups for rule in group["rules"]}


def test_promtool_takes_the_rules() -> None:
    program = shutil.which("promtool")
    assert program, "there is no promtool here (Debian: apt-get install prometheus)"
    done = subprocess.run([program, "check", "rules", RULES], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS)
def test_every_expression_is_evaluated_and_each_of_its_series_is_there(
    prometheus: httpx.Client, where: str, expression: str
) -> None:
    asked(prometheus, expression)
    for name in set(re.findall(r"\bredraft_\w+", expression)):
        eventually(lambda name=name: asked(prometheus, name), within=30, because=f"{where}: there is a series {name}")


def test_what_the_panels_draw_is_not_empty(prometheus: httpx.Client) -> None:
    """A label that is misspelt finds a series, and draws nothing."""

    def drawn() -> bool:
        panels = [(where, one) for where, one in EXPRESSIONS if not where.startswith("Redraft")]
        empty = [(where, one) for where, one in panels if not asked(prometheus, one)]
        assert empty == []
        return True

    eventually(drawn, within=90, every=1)


def test_every_rule_is_healthy(prometheus: httpx.Client) -> None:
    def healthy() -> bool:
        found = rules(prometheus)
        assert found.keys() == {rule["alert"] for group in ALERTS["groups"] for rule in group["rules"]}
        assert {name: rule.get("lastError") for name, rule in found.items() if rule["health"] != "ok"} == {}
        return True

    eventually(healthy, within=60)


def state_of(prometheus: httpx.Client, alert: str) -> str:
    return str(rules(prometheus)[alert]["state"])


def test_alerts_fire_for_what_was_planted(stack: Running, prometheus: httpx.Client, valkey_of_its_own: Server) -> None:
    named = (
        "RedraftRedisRefusesWrites", "RedraftWebhooksBehind", "RedraftWebhooksDead", "RedraftReceiverFailing",
        "RedraftRedisMemory", "RedraftRedisSavingFails", "RedraftClockSkew", "RedraftCodeDiffers", "RedraftNoWorker",
    )  # fmt: skip
    before = {alert: state_of(prometheus, alert) for alert in named}
    assert {alert for alert, state in before.items() if state != "inactive"} <= {"RedraftReceiverFailing"}
    with stack.engine.begin() as tx:
        tx.execute(
            text("""INSERT INTO webhook_events (id, workspace_id, post_id, type, data, status, created_at, finished_at)
                    VALUES ('evt_dead', 'ws_test', 'post_dead', 'edit.applied', '{}', 'dead', now(), now()),
                        ('evt_old', 'ws_test', 'post_old', 'edit.applied', '{}', 'queued', now() - interval '1 h', NULL)
                 """)
        )
    eventually(lambda: state_of(prometheus, "RedraftWebhooksDead") == "firing", within=60)
    # Those with a `for` wait for it; that the expression holds is what the rule is made of.
    eventually(lambda: state_of(prometheus, "RedraftWebhooksBehind") in ("pending", "firing"), within=60)
    eventually(lambda: state_of(prometheus, "RedraftReceiverFailing") in ("pending", "firing"), within=60)
    with redis.Redis.from_url(valkey_of_its_own.url) as client:
        client.config_set("maxmemory", 1)
        try:
            eventually(lambda: state_of(prometheus, "RedraftRedisRefusesWrites") == "firing", within=60)
            eventually(lambda: state_of(prometheus, "RedraftRedisMemory") in ("pending", "firing"), within=60)
        finally:
            client.config_set("maxmemory", 0)
    eventually(lambda: state_of(prometheus, "RedraftRedisRefusesWrites") == "inactive", within=60)
