"""What `redraft doctor` finds in the rows of edits, posts, bulk jobs and keys, in sessions, and in workers."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from shared.cli import probes
from shared.cli.facts import DatabaseFacts, Facts, Finding, Late, Queue, WorkerFacts
from shared.cli.findings import diagnose
from shared.domain.waits import Flood
from shared.store import keys
from tests import factories
from tests.shared.cli.database_findings import engine, found, run
from tests.waiting import eventually

__all__ = ["engine"]


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
