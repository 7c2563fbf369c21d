"""`redraft doctor`: whom it asks, what it says and in what order. Each kind of finding has tests of its own."""

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
import typer
from typer.testing import CliRunner, Result

from shared import task_names
from shared.broker import queue
from shared.cli import finding_weights, findings, probes, redis_findings, service_findings, worker_probes
from shared.cli.doctor import doctor
from shared.cli.facts import DatabaseFacts, Facts, Queue, RedisFacts, Webhooks, WorkerFacts
from shared.cli.findings import diagnose
from shared.domain import start_rules
from tests import certificates, factories
from tests.old_postgresql import old_postgresql
from tests.processes import Processes, Server
from tests.shared.cli.test_service_probes import serving
from tests.waiting import eventually

app = typer.Typer()
app.command()(doctor)
NOWHERE = "redis://127.0.0.1:9/0"


def redraft(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def told() -> tuple[int, Any]:
    result = redraft("--json")
    return result.exit_code, json.loads(result.stdout)


def test_a_healthy_stack_is_well_and_without_beat_and_workers_it_is_not(
    monkeypatch: pytest.MonkeyPatch, database_url: str, own_valkey: Server, processes: Processes
) -> None:
    with factories.set_up(monkeypatch, database_url, own_valkey.url):
        environment = {"REDRAFT_DATABASE_URL": database_url, "REDRAFT_REDIS_URL": own_valkey.url}
        everything = f"--queues={','.join(task_names.QUEUES)}"
        worker = processes.start("worker", "edits", everything, **environment)
        beat = processes.start("beat", **environment)
        worker.says("ready.", within=30)

        def all_is_well() -> Any:
            code, said = told()
            assert (code, said["findings"]) == (0, [])
            return said

        well = eventually(all_is_well, within=40)
        assert well["ok"] is well["facts"]["beat"] is True
        assert all(len(one["workers"]) == 1 for one in well["facts"]["queues"].values())
        [skew] = well["facts"]["workerClockSkewSeconds"].values()
        assert abs(skew) < 1
        assert "All is well." in redraft().output

        beat.kill()

        def beat_is_missed() -> bool:
            code, worse = told()
            return (code, [finding["code"] for finding in worse["findings"]]) == (1, ["no_beat"])

        # What it sent just before its end may be taken, and heard, only while the doctor listens already.
        eventually(beat_is_missed, within=40)

        worker.kill_tree()
        code, worst = told()
        named = [finding["what"] for finding in worst["findings"] if finding["code"] == "no_worker"]
        assert code == 1
        # Nobody is to be told of anything, so that nobody misses a worker for webhooks.
        wanted = [name for name in task_names.QUEUES if name != "webhooks"]
        assert len(named) == len(wanted)
        assert all(any(name in what for what in named) for name in wanted)


def test_a_beat_that_sends_nothing_because_its_messages_wait_is_not_taken_for_dead(
    monkeypatch: pytest.MonkeyPatch, database_url: str, redis_url: str
) -> None:
    with factories.set_up(monkeypatch, database_url, redis_url), redis.Redis.from_url(redis_url) as broker:
        monkeypatch.setattr(worker_probes, "LISTEN", 0.1)
        monkeypatch.setattr(worker_probes, "REPLIES_WITHIN", 0.1)
        monkeypatch.setenv("REDRAFT_DISPATCH_PERIOD", "0.1")
        broker.lpush("ops", *["{}"] * (queue.WAITING_BEATS - 1))
        assert worker_probes.workers().beat is False
        broker.lpush("ops", "{}")
        assert worker_probes.workers().beat is None


def test_servers_that_do_not_answer_are_named_once_each_and_passwords_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REDRAFT_DATABASE_URL", "postgresql+psycopg://user:hushhush@127.0.0.1:9/name")
    monkeypatch.setenv("REDRAFT_REDIS_URL", "redis://:hushhush@127.0.0.1:9/0")
    monkeypatch.setenv("REDRAFT_PUBLISHER_URL", "http://127.0.0.1:9/publish?token=hushhush")
    factories.forget_caches()
    result = redraft("--json")
    assert result.exit_code == 1
    codes = [finding["code"] for finding in json.loads(result.stdout)["findings"]]
    assert codes == ["unreachable_postgresql", "unreachable_redis", "unreachable_publisher"]
    assert "hushhush" not in result.output + redraft().output


def test_it_asks_which_servers_where_nothing_says_so(tmp_path: Path) -> None:
    result = redraft("--data-dir", str(tmp_path))
    assert (result.exit_code, "REDRAFT_DATABASE_URL and REDRAFT_REDIS_URL" in result.output) == (2, True)


def test_it_looks_at_the_stack_that_runs_in_the_folder(tmp_path: Path, database_url: str) -> None:
    names = ("apiUrl", "flowerUrl")
    stack = dict.fromkeys(names, "http://127.0.0.1:9") | {"databaseUrl": database_url, "redisUrl": NOWHERE}
    (tmp_path / "stack.json").write_text(json.dumps(stack))
    result = redraft("--data-dir", str(tmp_path), "--json")
    codes = [finding["code"] for finding in json.loads(result.stdout)["findings"]]
    assert codes == ["unreachable_redis", "unreachable_api", "unreachable_flower"]


def test_every_finding_says_what_to_do() -> None:
    old = timedelta(minutes=5)
    database = DatabaseFacts(9, 0.1, ("0002",), ("9",), 1, old, 1, 1, (), (), ("rs_1",), Webhooks(1, old, 1))
    workers = WorkerFacts((Queue("edits", 2000, ()),), {"x": 0}, beat=False)
    everything = Facts(database, RedisFacts("volatile-lru", "rdb", used=95, most=100), workers, {"PostgreSQL": "gone"})
    findings = diagnose(everything)
    codes = [finding.code for finding in findings]
    assert len(set(codes)) >= 14
    assert all(finding.todo.endswith((".", ")")) and finding.what for finding in findings)


def test_a_postgresql_that_is_too_old_is_named_and_asked_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    with old_postgresql("17.6") as old:
        monkeypatch.setenv("REDRAFT_DATABASE_URL", old)
        monkeypatch.setenv("REDRAFT_REDIS_URL", NOWHERE)
        factories.forget_caches()
        code, said = told()
        shown = redraft().output
    assert code == 1
    assert [one["code"] for one in said["findings"]] == ["unreachable_redis", "postgresql_too_old"]
    assert said["findings"][1]["what"] == "PostgreSQL 17.6 is too old: Redraft needs 18 or newer"
    assert said["facts"]["database"]["version"] == "17.6"
    assert "PostgreSQL  17" not in shown, "nothing is said of its queue, which was not asked for"


def test_the_heaviest_finding_comes_first() -> None:
    old = timedelta(minutes=5)
    database = DatabaseFacts(9, 0.1, ("0002",), (), 1, old, 1, 1, (), (), ("rs_1",), Webhooks(1, old, 1))
    workers = WorkerFacts((Queue("edits", 2000, ()),), {"x": 0}, beat=False)
    facts = Facts(database, RedisFacts("volatile-lru", "rdb", refuses="full"), workers, {"Flower": "gone"})
    codes = [finding.code for finding in diagnose(facts)]
    places = [
        codes.index(one) for one in ("redis_refuses_writes", "no_worker", "old_edits", "failed_edits", "redis_eviction")
    ]
    assert places == sorted(places)
    assert codes.index("unreachable_flower") > codes.index("failed_edits")
    assert set(codes[:2]) == {"redis_refuses_writes", "pending_migrations"}


def test_the_weights_name_codes_that_exist() -> None:
    source = "".join(
        Path(str(one.__file__)).read_text(encoding="utf-8")
        for one in (findings, redis_findings, service_findings, start_rules)
    )
    for code in frozenset().union(*finding_weights.WEIGHTS):
        made = code.replace("publisher", "{service.name}").replace("renderer", "{service.name}")
        assert any(one in source for one in (f'"{code}"', f'"{made}"', f'f"{made}"')) or code.startswith(
            ("unreachable_", "untrusted_")
        ), code


def test_a_receiver_with_an_untrusted_certificate_and_a_probe_that_fails_are_found_side_by_side(
    monkeypatch: pytest.MonkeyPatch, database_url: str, tmp_path: Path
) -> None:
    def broken() -> None:
        raise KeyError("maxmemory_policy")

    monkeypatch.setattr(probes, "_redis", broken)
    monkeypatch.setattr(worker_probes, "workers", lambda: WorkerFacts(()))
    with serving(certificate=certificates.written(tmp_path)) as (url, _), serving() as (well, _):
        monkeypatch.setenv("REDRAFT_WEBHOOK_URL", url)
        monkeypatch.setenv("REDRAFT_RENDERER_URL", well)
        with factories.set_up(monkeypatch, database_url, NOWHERE):
            code, said = told()
    assert code == 1
    assert [one["code"] for one in said["findings"]] == ["untrusted_receiver", "probe_failed_redis"]
    assert said["findings"][0]["what"] == (
        "The certificate of the receiver of webhooks is not trusted: self-signed certificate"
    )
    assert said["facts"]["untrusted"] == {"receiver of webhooks": "self-signed certificate"}
    assert said["facts"]["database"]["queuedEdits"] == 0


def test_flower_is_asked_at_its_inner_address(monkeypatch: pytest.MonkeyPatch, database_url: str) -> None:
    """Red before: a Flower that operators reach through a proxy was asked for from inside by its outer address."""
    monkeypatch.setattr(worker_probes, "workers", lambda: WorkerFacts(()))
    with serving() as (url, lines):
        inner = url.partition("/hooks")[0]
        monkeypatch.setenv("REDRAFT_FLOWER_INNER_URL", inner)
        monkeypatch.setenv("REDRAFT_FLOWER_URL", "http://127.0.0.1:9")
        with factories.set_up(monkeypatch, database_url, NOWHERE):
            _, said = told()
    assert lines == ["GET /healthcheck HTTP/1.1"]
    assert [one["code"] for one in said["findings"]] == ["unreachable_redis"]


def camel(value: Any) -> bool:
    """Whether all names of our own in it are in camelCase. Names of workers and parts are not ours."""
    if isinstance(value, dict):
        return all(re.fullmatch(r"[a-z]+([A-Z][a-z]*)*", name) for name in value) and all(map(camel, value.values()))
    return all(map(camel, value)) if isinstance(value, list) else True


def test_what_scripts_get_has_the_shape_that_the_docs_say(monkeypatch: pytest.MonkeyPatch, database_url: str) -> None:
    monkeypatch.setattr(
        worker_probes, "workers", lambda: WorkerFacts((Queue("edits", 1, ("edits@a",)),), {"edits@a": 0.1})
    )
    with factories.set_up(monkeypatch, database_url, NOWHERE):
        _, said = told()
    facts = said["facts"]
    assert camel(
        {name: value for name, value in facts.items() if name not in ("workerClockSkewSeconds", "unreachable")}
    )
    page = (Path(__file__).parents[3] / "docs/operations.md").read_text()
    section = page[page.index("## What does `redraft doctor --json` say?") :].partition("\n## ")[0]
    for name in (*said, *facts, *facts["database"], "policy", "refusesWrites", "savingFails"):
        assert f"`{name}`" in section, name
