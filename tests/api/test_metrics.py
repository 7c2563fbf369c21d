"""GET /metrics on a running stack: what it shows of rows, workers and requests, and what it costs when servers hang."""

import threading
import time
from contextlib import contextmanager

import httpx
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from api import metrics as page
from shared.broker import metric_snapshots
from shared.store import gauges
from shared.telemetry.code_version import code_version
from tests import factories
from tests.loopback import LOOPBACK
from tests.shared.telemetry.test_metrics import OF_THE_SCRAPE
from tests.stack import running
from tests.waiting import eventually

STALE = page.FRESH + metric_snapshots.PERIOD + 3


def scrape(stack, **headers):
    return figures(httpx.get(f"{stack.api.url}/metrics", headers=headers, **LOOPBACK, timeout=30))


def figures(answer):
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def shows(stack, **values):
    """Waits until the page shows these gauges; a `__` in a name stands before its one label's value."""

    def shown():
        found = {}
        for (name, *labels), value in scrape(stack).items():
            found[name if not labels else f"{name}__{labels[0][1]}"] = value
        assert {name: found[f"redraft_{name}"] for name in values} == values
        return True

    eventually(shown, within=STALE, every=0.3)


def total(found, name, **labels):
    wanted = set(labels.items())
    return sum(value for (found_name, *given), value in found.items() if found_name == name and wanted <= set(given))


def test_an_applied_edit_is_counted_by_the_api_and_by_its_worker(stack):
    post = stack.post()
    before = scrape(stack)
    assert stack.patch(post, {"caption": "counted"}).status_code == 200
    names = ("redraft_edits_accepted_total", "redraft_edit_seconds_count", "redraft_lock_wait_seconds_count")

    def counted():
        after = scrape(stack)
        assert [total(after, name) - total(before, name) for name in names] == [1, 1, 1]
        assert total(after, "redraft_edits_total", outcome="applied") > total(
            before, "redraft_edits_total", outcome="applied"
        )
        rung = [total(after, "redraft_doorbells_total", outcome=outcome) for outcome in ("listed", "sent")]
        assert sum(rung) > 0
        return after

    after = eventually(counted, within=STALE, every=0.3)
    assert total(after, "redraft_worker_processes", queue="edits") == 2
    assert total(after, "redraft_worker_processes", queue="publish") == 0


def test_what_a_client_makes_up_becomes_no_label(stack):
    for path in ("/v1/made-up-1", "/v1/posts/post_made_up", "/metrics/made-up"):
        stack.http.get(path)
    stack.http.request("PROPFIND", "/v1/posts")
    labels = {label for (_, *given) in scrape(stack) for label in given}
    assert not [label for label in labels if "made" in label[1] or label[1] == "PROPFIND"]
    assert ("route", "/v1/posts/{post_id}") in labels
    assert ("method", "other") in labels


def test_each_kind_of_figure_is_there(stack):
    names = {name for name, *_ in scrape(stack)}
    assert set(OF_THE_SCRAPE) | set(gauges.GAUGES) <= names
    assert "process_resident_memory_bytes" in names


@pytest.fixture
def own_api(database_url, redis_url):
    """A stack without any worker, so that rows stay as a test puts them."""
    with running(database_url, redis_url) as stack:
        yield stack


def test_the_gauges_of_rows_say_what_the_rows_say(own_api):
    past, soon = "now() - interval '40 seconds'", "now() + interval '20 seconds'"
    with own_api.engine.begin() as tx:
        old = factories.edit(tx, factories.post(tx), {"caption": "waits"})
        failed = factories.edit(tx, factories.post(tx), {"caption": "fails"})
        tx.execute(text("UPDATE edits SET created_at = now() - interval '1 hour' WHERE id = :id"), {"id": old})
        tx.execute(
            text("UPDATE edits SET status = 'failed', error_code = 'internal', finalized_at = now() WHERE id = :id"),
            {"id": failed},
        )
        overdue, between, unsent, sent, claimed, rendering = (factories.post(tx) for _ in range(6))
        waiting, busy = factories.post(tx), factories.post(tx)
        unrendered = factories.slides(tx)
        for post, what in (
            (overdue, f"scheduled_time = {past}, enqueued_revision = schedule_revision"),
            (between, f"scheduled_time = {past}, retry_at = now() + interval '5 minutes'"),
            (unsent, f"scheduled_time = {soon}, created_at = now() - interval '1 minute'"),
            (sent, f"scheduled_time = {soon}, created_at = now() - interval '1 day', enqueued_revision = 1"),
            (
                claimed,
                f"scheduled_time = {past}, claim_kind = 'publish', claim_token = 'a', claim_expires_at = {past}",
            ),
            *(
                (post, f"scheduled_time = {past}, claim_kind = 'publish', claim_token = id, claim_expires_at = {soon}")
                for post in (waiting, busy)
            ),
            (rendering, f"scheduled_time = {past}, deleted_at = now()"),
            (unrendered, f"scheduled_time = {soon}"),
        ):
            tx.execute(text(f"UPDATE posts SET {what} WHERE id = :id"), {"id": post})
        # Between two tries, and under way once more: the last answer belongs to a claim that is over.
        for post, token in ((waiting, waiting), (busy, "clm_before")):
            tx.execute(
                text("""INSERT INTO publish_attempts (post_id, schedule_revision, idempotency_key, body, try_number,
                            claim_token, finished_at, outcome)
                        VALUES (:post, 1, 'pub_1', '{}', 1, :token, now(), 'not_now')"""),
                {"post": post, "token": token},
            )
        for reason, failure, hours in (
            ("suspended", None, 1),
            ("publisher_unavailable", None, 2),
            ("publisher_unavailable", "misconfigured", 2),
            ("publisher_unavailable", "busy", 2),
            ("publish_outcome_unknown", "refused", 2),
            ("renderer_unavailable", "render_misconfigured", 2),
            ("publish_outcome_unknown", None, 30),
        ):
            at = factories.soon(-60 * hours)
            factories.post(tx, status="failed", failure_reason=reason, failed_at=at, failure_class=failure)
        for outcome in ("misconfigured", "server_error", "processing"):
            factories.slides(
                tx,
                render_waits_since=factories.soon(-15),
                retry_at=factories.soon(1),
                render_outcome=outcome,
                render_answered_at=factories.soon(-1),
            )
        tx.execute(
            text("""INSERT INTO reschedules (id, workspace_id, api_key_id, requested_by, plan, status, total, chunks,
                        applied, touched_at)
                    VALUES ('job_1', 'ws_test', 'key_test', 'tests', '{}', 'running', 10, 2, 4,
                        now() - interval '3 minutes')""")
        )
        for number, status in enumerate(("queued", "queued", "dead", "delivered")):
            tx.execute(
                text("""INSERT INTO webhook_events (id, workspace_id, post_id, type, data, status, finished_at)
                        VALUES (:id, 'ws_test', 'post_x', 'post.posted', '{}', :status,
                            CASE WHEN :status = 'queued' THEN NULL ELSE now() END)"""),
                {"id": f"evt_{number}", "status": status},
            )
    shows(
        own_api,
        edits_queued=1,
        edits_failed=1,
        posts_overdue=1,
        posts_unsent=1,
        posts_between_tries=2,
        publishes_answered__not_now=2,
        posts_unrendered=1,
        posts_failed__refused=2,
        posts_failed__unavailable=1,
        posts_failed__misconfigured=1,
        posts_failed__busy=1,
        posts_failed__render_misconfigured=1,
        posts_failed__unknown=0,
        renders_answered__misconfigured=1,
        renders_answered__server_error=1,
        renders_answered__processing=1,
        renders_answered__unknown=0,
        claims__publish=3,
        claims_expired__publish=1,
        claims_expired__render=0,
        jobs__running=1,
        jobs_posts=10,
        jobs_posts_decided=4,
        webhook_events__queued=2,
        webhook_events__dead=1,
    )
    found = scrape(own_api)
    assert 3600 <= total(found, "redraft_oldest_edit_seconds") < 3700
    assert 40 <= total(found, "redraft_posts_late_seconds") < 140
    assert 40 <= total(found, "redraft_claimed_late_seconds") < 140
    assert 180 <= total(found, "redraft_jobs_untouched_seconds") < 280
    assert 900 <= total(found, "redraft_renderer_waiting_seconds") < 1060


def test_a_lock_that_somebody_holds_and_somebody_waits_for_is_seen(own_api):
    post = own_api.post()
    statement = text("SELECT id FROM posts WHERE id = :id FOR UPDATE")
    with own_api.engine.connect() as holder:
        holder.execute(statement, {"id": post})
        eventually(lambda: total(scrape(own_api), "redraft_idle_transaction_seconds") > 0.5, within=STALE, every=0.3)
        assert total(scrape(own_api), "redraft_lock_waiting_seconds") == 0
        with waiter(own_api, statement, post):
            eventually(lambda: total(scrape(own_api), "redraft_lock_waiting_seconds") > 0.5, within=STALE, every=0.3)
        holder.rollback()


@contextmanager
def waiter(stack, statement, post):
    """Somebody who waits for a locked row while the block runs."""
    connection = stack.engine.connect()
    pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()

    def wait():
        with pytest.raises(Exception, match="canceling statement"):
            connection.execute(statement, {"id": post})

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        stack.scalar("SELECT pg_cancel_backend(:pid)", pid=pid)
        thread.join(timeout=10)
        connection.close()


def test_messages_on_a_queue_are_seen(own_api):
    post = own_api.post()
    assert own_api.patch(post, {"caption": "rung for"}, Prefer="respond-async").status_code == 202
    eventually(lambda: total(scrape(own_api), "redraft_queue_messages", queue="edits") == 1, within=STALE, every=0.3)


def test_a_figure_of_the_database_is_shown_again_for_some_seconds(own_api):
    """Many scrapes cost the database as much as one."""
    began = time.monotonic()
    first = total(scrape(own_api), "redraft_edits_queued")
    with own_api.engine.begin() as tx:
        factories.edit(tx, factories.post(tx), {"caption": "new"})
    repeated = total(scrape(own_api), "redraft_edits_queued")
    assert repeated == first or time.monotonic() - began > page.FRESH
    eventually(lambda: total(scrape(own_api), "redraft_edits_queued") == first + 1, within=STALE, every=0.3)


def test_a_frozen_database_leaves_the_figures_that_need_none(own_postgres, redis_url):
    with running(own_postgres.url, redis_url) as stack:
        assert total(scrape(stack), "redraft_scrape_up", source="edits") == 1
        own_postgres.process.freeze()
        try:

            def without():
                found = scrape(stack)
                assert total(found, "redraft_scrape_up", source="edits") == 0
                assert not [name for name, *_ in found if name == "redraft_edits_queued"]
                assert total(found, "redraft_scrape_up", source="redis") == 1
                return found

            found = eventually(without, within=40)
            assert total(found, "redraft_http_requests_total", route="/metrics") > 0
        finally:
            own_postgres.process.thaw()
        eventually(lambda: total(scrape(stack), "redraft_scrape_up", source="edits") == 1, within=30, every=0.3)


def test_without_redis_the_gauges_of_rows_are_shown_all_the_same(database_url, own_valkey):
    with running(database_url, own_valkey.url) as stack:
        own_valkey.process.kill()
        with stack.engine.begin() as tx:
            factories.edit(tx, factories.post(tx), {"caption": "waits"})

        def without():
            found = scrape(stack)
            assert [total(found, "redraft_scrape_up", source=one) for one in ("workers", "redis", "edits")] == [0, 0, 1]
            return total(found, "redraft_edits_queued") == 1

        eventually(without, within=STALE, every=0.3)


def test_with_a_token_set_nobody_reads_it_without(database_url, redis_url):
    with running(database_url, redis_url, REDRAFT_METRICS_TOKEN="scrape-me") as stack:
        assert stack.api is not None
        url = f"{stack.api.url}/metrics"
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Bearer {factories.SECRET}"}):
            answer = httpx.get(url, headers=headers, **LOOPBACK)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthenticated")
        assert scrape(stack, Authorization="Bearer scrape-me")


def values(families):
    return {sample.name: sample.value for family in families for sample in family.samples}


def test_a_redis_that_refuses_writes_is_seen(monkeypatch, own_valkey):
    monkeypatch.setenv("REDRAFT_REDIS_URL", own_valkey.url)
    factories.forget_caches()
    with redis.Redis.from_url(own_valkey.url) as client:
        well = values(page._ask_redis())
        assert well == {
            "redraft_redis_takes_writes": 1,
            "redraft_redis_saving_fails": 0,
            "redraft_redis_memory_share": 0,
        }
        client.config_set("maxmemory", 1)
        full = values(page._ask_redis())
        assert full["redraft_redis_takes_writes"] == 0
        assert full["redraft_redis_memory_share"] > 1
    factories.forget_caches()


@pytest.mark.parametrize("off", [0.0, 90.0, -5.0])
def test_a_clock_that_is_off_is_seen(monkeypatch, database_url, off):
    now = time.time
    with factories.set_up(monkeypatch, database_url):
        monkeypatch.setattr(time, "time", lambda: now() + off)
        try:
            skew = values(page._ask_clock())["redraft_api_clock_skew_seconds"]
        finally:
            page._engine().dispose()
            page._engine.cache_clear()
    assert abs(skew - off) < 1


def test_api_and_workers_say_which_code_they_run(stack):
    version, code = code_version()
    same = (("code", code), ("version", version))

    def said():
        found = scrape(stack)
        assert found[("redraft_api_code", *same)] == 1
        assert total(found, "redraft_worker_code", code=code, version=version) >= 1
        return True

    eventually(said, within=STALE, every=0.3)
