"""`redraft doctor`: what is wrong is found and named, each with what to do, and nothing else is."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
import typer
from sqlalchemy import Engine, text
from typer.testing import CliRunner, Result

from shared import task_names
from shared.broker import queue, redis_state
from shared.cli import finding_weights, findings, probes, redis_findings, service_findings, worker_probes
from shared.cli.doctor import doctor
from shared.cli.facts import DatabaseFacts, Facts, Finding, Late, Queue, RedisFacts, Webhooks, WorkerFacts
from shared.cli.findings import diagnose
from shared.domain.service_answers import Outcome
from shared.domain.waits import Flood
from shared.store import keys
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


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, database_url: str) -> Iterator[Engine]:
    with factories.set_up(monkeypatch, database_url) as engine:
        yield engine


def found(engine: Engine) -> dict[str, Finding]:
    """What is wrong with the database."""
    database = probes._database(engine.url.render_as_string(hide_password=False))
    return {finding.code: finding for finding in diagnose(Facts(database, None, None))}


def run(engine: Engine, statement: str, **given: Any) -> None:
    with engine.begin() as tx:
        tx.execute(text(statement), given)


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


def test_a_database_in_order_has_nothing_to_be_found(engine: Engine) -> None:
    with engine.begin() as tx:
        factories.edit(tx, factories.post(tx), {"caption": "just now"})
        factories.post(tx, status="posted", posted_at=factories.soon(-5), scheduled_time=factories.soon(-5))
    assert found(engine) == {}


def test_an_edit_that_waits_too_long_is_found(engine: Engine) -> None:
    with engine.begin() as tx:
        old = factories.edit(tx, factories.post(tx), {"caption": "a"})
    run(engine, "UPDATE edits SET created_at = now() - interval '5 min' WHERE id = :id", id=old)
    finding = found(engine).pop("old_edits")
    assert "1 edit in the queue; the oldest waits for 5 min" in finding.what
    assert f"The oldest, {old}: no worker has taken it for 5 min" in finding.todo


def test_a_flood_is_named_when_edits_wait_and_a_count_that_ends_says_so() -> None:
    flood = Flood("ws_1", "Acme", "importer", 5000, 5000)

    def said(oldest: float) -> list[str]:
        database = DatabaseFacts(0, 0, flood=flood, queued=10_001, oldest=timedelta(seconds=oldest))
        return [one.what for one in diagnose(Facts(database, None, None))]

    words = "The key importer of workspace Acme floods the queue: of 5,000 edits that wait, 5,000 are its own"
    assert said(10) == []
    assert said(11) == [words]
    assert said(31) == [words, "10,000+ edits in the queue; the oldest waits for 31 s"]


def test_bulk_jobs_that_failed_within_a_day_are_found(engine: Engine) -> None:
    insert = """INSERT INTO reschedules
            (id, workspace_id, api_key_id, requested_by, status, dry_run, plan, error, finished_at)
        VALUES (:id, 'ws_test', 'k', 'k', :status, false, '{}', :error, now() - make_interval(hours => :ago))"""
    run(engine, insert, id="rsch_1", status="failed", error="Gave up", ago=25)
    run(engine, insert, id="rsch_2", status="failed", error="Gave up", ago=23)
    run(engine, insert, id="rsch_3", status="canceled", error=None, ago=1)
    assert found(engine)["failed_jobs"].what == "1 bulk job failed within a day: rsch_2 (Gave up)"


def test_workers_of_one_name_are_found_and_the_clock_that_is_wrong_is_seen() -> None:
    workers = WorkerFacts((Queue("edits", 0, ("edits@a", "edits@a")),), namesakes={"edits@a": 2})
    [finding] = diagnose(Facts(None, None, workers))
    assert finding.what == "2 workers are named edits@a: Flower and the metrics take them for one"


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({}, "look for beat"),
        ({"claim_kind": "publish", "claim_token": "t", "claim_expires_at": factories.soon(-1)}, "it was put back"),
        ({"claim_kind": "publish", "claim_token": "t", "claim_expires_at": factories.soon(600)}, "being published now"),
        ({"retry_at": factories.soon(600)}, "the next one comes in"),
        ({"status": "pending_render"}, "waits for its render"),
    ],
)
def test_a_post_that_should_have_gone_out_is_found_with_the_reason(
    engine: Engine, columns: dict[str, Any], why: str
) -> None:
    with engine.begin() as tx:
        late = factories.post(tx, scheduled_time=factories.soon(-5), **columns)
        factories.post(tx, scheduled_time=factories.soon(5), **columns)
        if not columns:
            factories.post(tx, scheduled_time=factories.soon(-5), deleted_at=factories.soon(-6))
    [(code, finding)] = found(engine).items()
    assert code == "late_posts"
    assert finding.what.startswith("1 post")
    assert late in finding.what
    assert why in finding.what


def test_failed_edits_dead_webhooks_and_stalled_jobs_are_found(engine: Engine) -> None:
    with engine.begin() as tx:
        failed = factories.edit(tx, factories.post(tx), {"caption": "a"})
        tx.execute(
            text("UPDATE edits SET status = 'failed', error_code = 'internal', finalized_at = now() WHERE id = :id"),
            {"id": failed},
        )
        tx.execute(
            text("""INSERT INTO webhook_events (id, workspace_id, post_id, type, data, status, finished_at)
                    VALUES ('evt_1', 'ws_test', 'post_1', 'edit.applied', '{}', 'dead', now())""")
        )
        tx.execute(
            text("""INSERT INTO reschedules (id, workspace_id, api_key_id, requested_by, plan, touched_at) VALUES
                    ('rs_old', 'ws', 'key', 'tests', '{}', now() - interval '5 min'),
                    ('rs_new', 'ws', 'key', 'tests', '{}', now())""")
        )
    findings = found(engine)
    assert set(findings) == {"failed_edits", "dead_webhooks", "stalled_jobs"}
    dead = "1 webhook event is dead: the receiver answered 410, or did not take it for 24 hours"
    assert findings["dead_webhooks"].what == dead
    assert "rs_old" in findings["stalled_jobs"].what
    assert "rs_new" not in findings["stalled_jobs"].what


def test_keys_that_expire_within_a_week_are_found(engine: Engine) -> None:
    ends = {"importer": "6 days", "demo": "1 hour", "later": "8 days", "over": "-1 day"}
    with engine.begin() as tx:
        for name, left in ends.items():
            keys.create_key(tx, factories.WORKSPACE, name, keys.SCOPES, None)
            tx.execute(
                text("""UPDATE api_keys SET expires_at = clock_timestamp() + CAST(:left AS interval),
                        created_at = created_at - interval '90 days' WHERE name = :name"""),
                {"name": name, "left": left},
            )
    [(code, finding)] = found(engine).items()
    assert code == "keys_end_soon"
    assert re.fullmatch(
        r"2 API keys will expire within a week: demo \(key_\w+\) in 59 min 59 s, importer \(key_\w+\) in 5 d 23 h",
        finding.what,
    )


def test_of_late_posts_one_is_named_for_each_kind_of_reason() -> None:
    minute = timedelta(minutes=1)
    latest = (Late("post_1", minute, "503 once", "server_error"), Late("post_2", minute, "503 twice", "server_error"))
    facts = DatabaseFacts(0, 0.1, late=3, latest=(*latest, Late("post_3", minute, "unsent", "unsent")))
    [finding] = diagnose(Facts(facts, None, None))
    assert finding.what.endswith("first of them post_1 (1 min: 503 once); post_3 (1 min: unsent)")


def test_posts_that_failed_within_a_day_are_found_with_their_reasons(engine: Engine) -> None:
    with engine.begin() as tx:
        for reason, hours in (("suspended", 1), ("suspended", 2), ("publisher_unavailable", 3), ("suspended", 30)):
            at = factories.soon(-60 * hours)
            factories.post(tx, scheduled_time=at, status="failed", failure_reason=reason, failed_at=at)
        # One that was put in as failed, as the demo's are, failed at a time that nobody knows.
        factories.post(tx, status="failed", failure_reason="suspended", scheduled_time=factories.soon(-5))
    finding = found(engine).pop("failed_posts")
    assert finding.what == "3 posts failed within a day: 2 refused: suspended; 1 unavailable: publisher_unavailable"
    assert "redraft posts retry --reason" in finding.todo


@pytest.mark.parametrize(("failure", "service"), [("misconfigured", "publisher"), ("render_misconfigured", "renderer")])
def test_posts_that_failed_because_a_service_is_set_up_wrongly_are_found_with_its_words(
    engine: Engine, failure: str, service: str
) -> None:
    """Red before: once its posts had failed, a service that was set up wrongly was seen no more."""
    with engine.begin() as tx:
        for words, minutes in (("the service answered 404", 9), ("the service answered 401", 5), ("old", 60 * 30)):
            factories.post(
                tx,
                status="failed",
                failure_reason=f"{service}_unavailable",
                failure_class=failure,
                failure_message=words,
                failed_at=factories.soon(-minutes),
                scheduled_time=factories.soon(-60),
            )
    findings = found(engine)
    assert set(findings) == {f"failed_{service}_set_up_wrongly", "failed_posts"}
    finding = findings[f"failed_{service}_set_up_wrongly"]
    assert finding.what == (
        f"2 posts failed within a day because the {service} is set up wrongly; last words: the service answered 401"
    )
    assert f"REDRAFT_{service.upper()}_URL" in finding.todo
    assert finding.todo.endswith(f"`redraft posts retry --reason {failure}`.")


@pytest.mark.parametrize(
    ("outcome", "code", "words"),
    [
        (
            "misconfigured",
            "renderer_set_up_wrongly",
            'The renderer answers "it said so" to 1 post. It will answer every post like that',
        ),
        ("server_error", "renderer_failing", "The latest try of the renderer failed for 1 post: it said so"),
        ("never_started", "renderer_failing", "The latest try of the renderer failed for 1 post: it said so"),
        ("unknown", "renderer_failing", "The latest try of the renderer failed for 1 post: it said so"),
        ("not_now", "renderer_busy", None),
        ("processing", "renderer_busy", None),
    ],
)
@pytest.mark.parametrize("claimed", [False, True], ids=["between two tries", "being rendered again"])
def test_a_renderer_that_renders_nothing_is_found(
    engine: Engine, outcome: str, code: str, words: str | None, *, claimed: bool
) -> None:
    claim = {"claim_kind": "render", "claim_token": "t", "claim_expires_at": factories.soon(1)}
    with engine.begin() as tx:
        factories.slides(
            tx,
            render_outcome=outcome,
            render_message="it said so",
            render_answered_at=factories.soon(-1),
            render_waits_since=factories.soon(-20),
            **claim if claimed else {"retry_at": factories.soon(1)},
        )
        factories.slides(tx)
    [(found_code, finding)] = found(engine).items()
    assert found_code == code
    if words is not None:
        assert finding.what == words
    else:
        assert "for 20 min" in finding.what or "for 21 min" in finding.what


def test_a_renderer_that_makes_a_post_wait_for_some_minutes_is_no_finding(engine: Engine) -> None:
    with engine.begin() as tx:
        factories.slides(tx, render_outcome="processing", render_waits_since=factories.soon(-5))
    assert found(engine) == {}


def answered(engine: Engine, outcome: str, message: str | None) -> None:
    """A post between two tries, with the publisher's last answer."""
    with engine.begin() as tx:
        claimed = factories.post(tx, claim_kind="publish", claim_token="t", claim_expires_at=factories.soon(9))
        tx.execute(
            text("""INSERT INTO publish_attempts (post_id, schedule_revision, idempotency_key, body, try_number,
                        claim_token, finished_at, outcome, message)
                    VALUES (:id, 1, 'pub_1', '{}', 1, :token, now(), :outcome, :message)"""),
            {"id": claimed, "token": f"t_{claimed}", "outcome": outcome, "message": message},
        )


def test_different_failures_of_a_publisher_are_counted_each_under_its_own_words(engine: Engine) -> None:
    """Red before: all were counted under the words of the latest."""
    for outcome, message, times in (
        ("server_error", "Down for maintenance", 2),
        ("server_error", "a page, not JSON", 3),
        ("unknown", None, 1),
        *(("never_started", f"refused by host {number}", 1) for number in range(4)),
    ):
        for _ in range(times):
            answered(engine, outcome, message)
    what = found(engine)["publisher_failing"].what
    assert what.startswith(
        "The latest try of the publisher failed for 10 posts: 3 a page, not JSON; 2 Down for maintenance; 1 refused by"
    )
    assert what.endswith("; 2 with other words")


def test_a_publisher_that_answers_every_post_alike_is_found(engine: Engine) -> None:
    answered(engine, "misconfigured", "the service answered 401")
    finding = found(engine).pop("publisher_set_up_wrongly")
    assert "answers 401 to 1 post. It will answer every post like that" in finding.what
    assert "REDRAFT_PUBLISHER_URL" in finding.todo


def test_a_session_that_idles_in_a_transaction_is_named_with_what_it_holds_up(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "SESSION_IDLE", 0.2)
    with engine.begin() as tx:
        home = factories.post(tx)
    take = text("SELECT pg_backend_pid() FROM posts WHERE id = :id FOR UPDATE")

    def wait_for_it() -> None:
        with engine.begin() as other:
            other.execute(take, {"id": home})

    with ThreadPoolExecutor(1) as thread:
        with engine.connect() as idle:
            pid = idle.execute(take, {"id": home}).scalar_one()
            waiting = thread.submit(wait_for_it)

            def named() -> Finding | None:
                finding = found(engine).get("idle_transaction")
                return finding if finding and "holds up 1 other" in finding.what else None

            finding = eventually(named, within=30)
            assert not waiting.done()
        waiting.result(timeout=5)
    assert f"Session {pid} " in finding.what
    assert f"pg_terminate_backend({pid})" in finding.todo
    assert found(engine) == {}


def test_pending_and_unknown_migrations_are_found(engine: Engine) -> None:
    run(engine, "UPDATE alembic_version SET version_num = '0001'")
    assert "redraft migrate" in found(engine)["pending_migrations"].todo
    run(engine, "UPDATE alembic_version SET version_num = '0015'")
    run(engine, "ALTER TABLE posts RENAME released_at TO later")
    said = found(engine)
    assert "0016 and 0017" in said["pending_migrations"].what
    assert "unread" not in said, "an old schema is no overload"
    run(engine, "ALTER TABLE posts RENAME later TO released_at")
    run(engine, "UPDATE alembic_version SET version_num = '9999'")
    assert "9999" in found(engine)["unknown_migrations"].what


def test_a_redis_that_forgets_or_drops_is_found(monkeypatch: pytest.MonkeyPatch, own_valkey: Server) -> None:
    monkeypatch.setenv("REDRAFT_REDIS_URL", own_valkey.url)
    factories.forget_caches()

    def codes() -> set[str]:
        return {finding.code for finding in diagnose(Facts(None, probes._redis(), None))}

    assert codes() == set()
    with redis.Redis.from_url(own_valkey.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        assert codes() == {"redis_eviction"}
        client.config_set("appendonly", "no")
        assert codes() == {"redis_eviction", "redis_persistence"}
    factories.forget_caches()


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


def test_clocks_are_held_against_the_databases() -> None:
    """A machine that is wrong beside a database and workers that are right names itself alone."""
    queues = (Queue("edits", 0, ("edits@a",)),)

    def off(database: float, worker: float, within: float = 0.01) -> list[str]:
        facts = Facts(DatabaseFacts(database, within), None, WorkerFacts(queues, {"edits@a": worker}))
        return [finding.what for finding in diagnose(facts) if finding.code == "clock_skew"]

    def of_api(database: float, api: float) -> list[str]:
        return [finding.what for finding in diagnose(Facts(DatabaseFacts(database, 0.01), None, None, api_skew=api))]

    # An answer's date is exact to a second.
    assert of_api(0, 1.9) == of_api(0.9, -1) == []
    assert of_api(0, -600) == ["The clock of the API's machine is 10 min behind the database's"]
    assert off(0.2, 0.2) == []
    assert off(5, 5) == ["This machine's clock is 5.0 s behind the database's"]
    assert off(0, -4) == ["The clock of worker edits@a is 4.0 s behind the database's"]
    assert off(3, -3) == [
        "This machine's clock is 3.0 s behind the database's",
        "The clock of worker edits@a is 6.0 s behind the database's",
    ]
    assert off(3, 3, within=2.5) == []  # so slow an answer says nothing


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


@pytest.mark.parametrize(
    ("webhooks", "code", "what"),
    [
        (Webhooks(), None, None),
        (Webhooks(3, timedelta(minutes=1)), None, None),
        (Webhooks(3, timedelta(minutes=1), outcome=Outcome.DONE, words="taken (200)", since=timedelta(0)), None, None),
        (
            Webhooks(3, timedelta(minutes=11)),
            "webhooks_behind",
            "3 webhook events wait, the oldest for 11 min; the receiver was not asked yet",
        ),
        (
            Webhooks(1, timedelta(hours=2), 0, Outcome.UNKNOWN, "timed out", timedelta(seconds=40)),
            "webhooks_behind",
            "1 webhook event waits, the oldest for 2 h; the receiver's last answer, 40 s ago: timed out",
        ),
        (
            Webhooks(1, timedelta(seconds=20), 0, Outcome.SERVER_ERROR, "503: away", timedelta(seconds=12)),
            "receiver_failing",
            "1 webhook event waits, the oldest for 20 s; the receiver's last answer, 12 s ago: 503: away",
        ),
        (
            Webhooks(1, timedelta(seconds=20), 0, Outcome.MISCONFIGURED, "401: no", timedelta(0)),
            "receiver_set_up_wrongly",
            "1 webhook event waits, the oldest for 20 s; the receiver's last answer, 0 ms ago: 401: no",
        ),
        (Webhooks(0, None, 0, Outcome.SERVER_ERROR, "500", timedelta(hours=9)), None, None),
        (
            Webhooks(0, None, 2),
            "dead_webhooks",
            "2 webhook events are dead: the receiver answered 410, or did not take them for 24 hours",
        ),
    ],
)  # fmt: skip
def test_a_receiver_that_does_not_take_events_is_found(webhooks: Webhooks, code: str | None, what: str | None) -> None:
    """Red before: neither a backlog nor the receiver's answers were looked at."""
    findings = diagnose(Facts(DatabaseFacts(0, 0.1, webhooks=webhooks), None, None))
    assert [(one.code, one.what) for one in findings] == ([(code, what)] if code else [])


def test_a_backlog_of_webhooks_is_read_from_the_rows(engine: Engine) -> None:
    run(
        engine,
        """INSERT INTO webhook_events (id, workspace_id, post_id, type, data, created_at)
           VALUES ('evt_1', 'ws_test', 'post_1', 'edit.applied', '{}', now() - interval '11 min'),
                  ('evt_2', 'ws_test', 'post_1', 'edit.applied', '{}', now())""",
    )
    run(
        engine,
        """INSERT INTO webhook_tries (event_seq, number, workspace_id, outcome, status, message)
           SELECT seq, 1, 'ws_test', 'server_error', 500, 'out of order' FROM webhook_events WHERE id = 'evt_1'""",
    )
    finding = found(engine)["webhooks_behind"]
    assert re.match(
        r"2 webhook events wait, the oldest for 11 min( \d+ s)?; the receiver's last answer, ", finding.what
    )
    assert finding.what.endswith("500: out of order")


def test_what_postgresql_does_not_tell_in_time_hides_nothing_else(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(tx: Any) -> dict[str, Any]:
        tx.execute(text("SELECT pg_sleep(20)"))
        return {}

    monkeypatch.setattr(probes, "STATEMENTS_WITHIN", 0.2)
    monkeypatch.setattr(probes, "_READS", {"late posts": slow} | dict(probes._READS) | {"late posts": slow})
    run(
        engine,
        """INSERT INTO webhook_events (id, workspace_id, post_id, type, data, status, finished_at)
           VALUES ('evt_1', 'ws_test', 'post_1', 'edit.applied', '{}', 'dead', now())""",
    )
    findings = found(engine)
    assert set(findings) == {"unread", "dead_webhooks"}
    assert findings["unread"].what.startswith("PostgreSQL did not tell of late posts: canceling statement")


def redis_codes() -> dict[str, Finding]:
    return {finding.code: finding for finding in diagnose(Facts(None, probes._redis(), None))}


def test_a_redis_that_refuses_writes_is_found_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, own_valkey: Server
) -> None:
    """Red before: a Redis that answers questions was taken for one that works."""
    monkeypatch.setenv("REDRAFT_REDIS_URL", own_valkey.url)
    factories.forget_caches()
    with redis.Redis.from_url(own_valkey.url) as client:
        assert redis_codes() == {}
        assert 0 < client.ttl(redis_state.TRIAL_KEY) <= redis_state.TRIAL_KEPT
        client.config_set("maxmemory", 1)
        full = redis_codes()
        # One finding with its cause: no second one with a senseless percentage.
        assert set(full) == {"redis_refuses_writes"}
        assert "maxmemory" in full["redis_refuses_writes"].what
        assert "and its maxmemory is 1 B." in full["redis_refuses_writes"].todo
        client.config_set("maxmemory", 0)
        client.replicaof("127.0.0.1", 9)
        assert "read only replica" in redis_codes()["redis_refuses_writes"].what
        client.replicaof("NO", "ONE")
        assert redis_codes() == {}
    factories.forget_caches()


def test_of_a_redis_that_refuses_writes_the_workers_that_could_not_be_asked_are_no_second_finding(
    monkeypatch: pytest.MonkeyPatch, database_url: str, own_valkey: Server
) -> None:
    """Red before: "The workers could not be looked at: OutOfMemoryError"."""
    monkeypatch.setenv("REDRAFT_REDIS_URL", own_valkey.url)
    factories.forget_caches()
    with redis.Redis.from_url(own_valkey.url) as client:
        client.config_set("maxmemory", 1)
        codes = [one.code for one in diagnose(probes.examine(database_url))]
        client.config_set("maxmemory", 0)
    assert codes == ["redis_refuses_writes"]
    factories.forget_caches()


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
        Path(str(one.__file__)).read_text(encoding="utf-8") for one in (findings, redis_findings, service_findings)
    )
    for code in frozenset().union(*finding_weights.WEIGHTS):
        made = code.replace("publisher", "{service.name}").replace("renderer", "{service.name}")
        assert any(one in source for one in (f'"{code}"', f'"{made}"', f'f"{made}"')) or code.startswith(
            ("unreachable_", "untrusted_")
        ), code


def test_a_slow_receiver_is_found_while_events_wait() -> None:
    slow = Webhooks(
        3, timedelta(seconds=20), 0, Outcome.DONE, "taken (200) after 4.0 s", timedelta(), timedelta(seconds=4)
    )
    [finding] = service_findings.webhooks(slow)
    assert finding.code == "receiver_slow"
    assert finding.what == "The receiver of webhooks is slow: a call takes 4.0 s, and 3 events wait"
    assert list(service_findings.webhooks(replace(slow, took=timedelta(seconds=0.9)))) == []
    assert list(service_findings.webhooks(replace(slow, queued=0, oldest=None))) == []


def test_a_redis_whose_snapshot_failed_is_found_although_it_has_an_append_only_file(
    monkeypatch: pytest.MonkeyPatch, own_valkey: Server
) -> None:
    monkeypatch.setenv("REDRAFT_REDIS_URL", own_valkey.url)
    factories.forget_caches()
    with redis.Redis.from_url(own_valkey.url) as client:
        folder, name = (client.config_get(one)[one] for one in ("dir", "dbfilename"))
        # Where the snapshot is to go, a folder stands in its way.
        (Path(folder) / name).unlink(missing_ok=True)
        (Path(folder) / name / "x").mkdir(parents=True)
        client.config_set("save", "1 1")
        client.set("anything", "1")
        client.bgsave()
        eventually(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", within=30)
        codes = redis_codes()
    assert set(codes) == {"redis_saving_fails", "redis_refuses_writes"}
    assert "MISCONF" in codes["redis_refuses_writes"].what
    factories.forget_caches()


def test_workers_that_run_other_code_are_found() -> None:
    queues = (Queue("edits", 0, ("edits@a",)),)

    def of(own: str, **versions: str) -> list[str]:
        facts = Facts(None, None, WorkerFacts(queues, versions=versions), version=own)
        return [finding.what for finding in diagnose(facts)]

    assert of("0.1.0 (aaa)", a="0.1.0 (aaa)", b="0.1.0 (aaa)") == []
    assert of("", a="0.1.0 (aaa)") == []
    assert of("0.2.0 (bbb)", a="0.1.0 (aaa)", b="0.2.0 (bbb)") == [
        "Different code runs: 0.2.0 (bbb) on this command and b; 0.1.0 (aaa) on a"
    ]


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
