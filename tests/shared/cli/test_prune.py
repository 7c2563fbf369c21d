"""`redraft prune`: what is old and needed by nobody goes; what a promise or an operator needs stays, however old."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine, pool, text
from typer.testing import CliRunner

from shared.cli.main import app
from shared.domain.ids import new_id
from shared.settings import settings
from shared.store import retention
from tests import factories

OLD, YOUNG = "now() - interval '100 days'", "now() - interval '80 days'"


@pytest.fixture
def engine(database_url):
    engine = create_engine(database_url, poolclass=pool.NullPool)
    with engine.begin() as tx:
        factories.workspace(tx)
    return engine


@pytest.fixture
def prune(database_url):
    """Runs the command to its end: (exit code, output)."""

    def run(*arguments):
        settings.cache_clear()
        environment = {"REDRAFT_DATABASE_URL": database_url, "COLUMNS": "200"}
        done = CliRunner().invoke(app, ["prune", *arguments], env=environment)
        return done.exit_code, done.output

    return run


def add(engine, table, row_id, **columns):
    """A row; values are SQL."""
    with engine.begin() as tx:
        given = {"id": f"'{row_id}'"} | columns
        tx.execute(text(f"INSERT INTO {table} ({', '.join(given)}) VALUES ({', '.join(given.values())})"))
    return row_id


def edit(engine, row_id, when=OLD, status="applied", **columns):
    made = {
        "post_id": "'post_1'",
        "workspace_id": "'ws_test'",
        "changes": "'{}'",
        "requested_by": "'tests'",
        "created_at": when,
        "status": f"'{status}'",
        "finalized_at": when if status != "queued" else "NULL",
        "revision": "2" if status == "applied" else "NULL",
        "error_code": "'cannot_edit'" if status in ("rejected", "failed") else "NULL",
    }
    return add(engine, "edits", row_id, **(made | columns))


def job(engine, row_id, when=OLD, status="done", **columns):
    made = {
        "workspace_id": "'ws_test'",
        "api_key_id": "'key_test'",
        "requested_by": "'tests'",
        "plan": "'{}'",
        "status": f"'{status}'",
        "total": "0",
        "chunks": "1",
        "created_at": OLD,
        "finished_at": when if status not in ("queued", "running") else "NULL",
    }
    add(engine, "reschedules", row_id, **(made | columns))
    with engine.begin() as tx:
        tx.execute(
            text(
                "INSERT INTO reschedule_chunks (reschedule_id, number, first, post_ids) VALUES (:id, 0, 0, '{post_1}')"
            ),
            {"id": row_id},
        )
    return row_id


def post(engine, post_id, **columns):
    with engine.begin() as tx:
        factories.post(tx, post_id)
        for name, value in columns.items():
            tx.execute(text(f"UPDATE posts SET {name} = {value} WHERE id = :id"), {"id": post_id})
    return post_id


def attempt(engine, post_id, when=OLD):
    with engine.begin() as tx:
        tx.execute(
            text(f"""INSERT INTO publish_attempts (post_id, schedule_revision, idempotency_key, body, try_number,
                         claim_token, started_at, finished_at, outcome)
                     VALUES (:post, 1, 'pub_1', '{{}}', 1, :token, {when}, {when}, 'unknown')"""),
            {"post": post_id, "token": f"clm_{post_id}_{next(factories.numbers)}"},
        )


def ids(engine, table, column="id"):
    with engine.connect() as tx:
        return set(tx.execute(text(f"SELECT {column} FROM {table}")).scalars())


def test_old_edits_that_ended_go_and_all_others_stay(engine, prune):
    edit(engine, "edit_applied")
    edit(engine, "edit_rejected", status="rejected")
    kept = {
        edit(engine, "edit_young", YOUNG),
        edit(engine, "edit_queued", status="queued", post_id="'post_2'"),
        edit(engine, "edit_accepted_long_ago", finalized_at=YOUNG),
    }
    code, output = prune("--older-than=90d", "--yes")
    assert code == 0, output
    assert ids(engine, "edits") == kept
    assert "2  edits" in output


def test_a_failed_edit_stays_with_all_that_a_requeue_of_it_would_overwrite(engine, prune):
    edit(engine, "edit_elsewhere", post_id="'post_2'")
    kept = {edit(engine, "edit_failed", status="failed"), edit(engine, "edit_later")}
    assert prune("--older-than=90d", "--yes")[0] == 0
    assert ids(engine, "edits") == kept


def test_an_idempotency_key_never_outlives_its_edit_nor_goes_before_its_day(engine, prune):
    edit(engine, "edit_old")
    edit(engine, "edit_young", "now() - interval '20 hours'")
    for key, resource, when in (("a", "edit_old", OLD), ("b", "edit_young", "now() - interval '20 hours'")):
        with engine.begin() as tx:
            tx.execute(
                text(f"""INSERT INTO idempotency_keys (api_key_id, key, fingerprint, resource, created_at)
                         VALUES ('key_test', :key, '\\x00', :resource, {when})"""),
                {"key": key, "resource": resource},
            )
    assert prune("--older-than=24h", "--yes")[0] == 0
    assert ids(engine, "idempotency_keys", "resource") == ids(engine, "edits") == {"edit_young"}


@pytest.mark.parametrize("age", ["23h", "0d", "-5d", "90", "d", "90 days", "1m"])
def test_an_age_that_breaks_a_promise_or_is_none_is_refused(prune, age):
    code, output = prune(f"--older-than={age}", "--yes")
    assert code == 2
    assert "--older-than" in output


def test_the_tries_of_a_post_stay_for_as_long_as_it_may_be_published(engine, prune):
    gone = [
        post(engine, "post_posted", status="'posted', posted_at = now() - interval '100 days'"),
        post(engine, "post_deleted", deleted_at=OLD),
    ]
    kept = [
        post(engine, "post_posted_lately", status="'posted', posted_at = now()"),
        post(engine, "post_waiting"),
        post(engine, "post_failed", status="'failed', failure_reason = 'publish_outcome_unknown'"),
        post(engine, "post_held", claim_kind="'publish', claim_token = 't', claim_expires_at = now()"),
    ]
    for post_id in (*gone, *kept):
        attempt(engine, post_id)
    attempt(engine, "post_posted", YOUNG)
    assert prune("--older-than=90d", "--yes")[0] == 0
    assert ids(engine, "publish_attempts", "post_id") == {*kept, "post_posted"}
    with engine.connect() as tx:
        left = tx.execute(text("SELECT count(*) FROM publish_attempts WHERE post_id = 'post_posted'")).scalar_one()
    assert left == 1
    assert ids(engine, "posts") == {*gone, *kept}


def test_webhook_events_go_when_they_are_over_and_old(engine, prune):
    for name, status, when in (
        ("delivered", "delivered", OLD),
        ("dead", "dead", OLD),
        ("queued", "queued", None),
        ("young", "dead", YOUNG),
    ):
        add(
            engine,
            "webhook_events",
            name,
            workspace_id="'ws_test'",
            post_id="'post_1'",
            type="'post.posted'",
            data="'{}'",
            status=f"'{status}'",
            created_at=OLD,
            finished_at=when or "NULL",
        )
    assert prune("--older-than=90d", "--yes")[0] == 0
    assert ids(engine, "webhook_events") == {"queued", "young"}


def test_a_job_goes_with_its_chunks_and_results_and_stays_with_them(engine, prune):
    for name, when, status in (("old", OLD, "done"), ("canceled", OLD, "canceled")):
        job(engine, f"job_{name}", when, status)
        edit(engine, f"edit_{name}", reschedule_id=f"'job_{name}'")
    kept = {job(engine, "job_running", status="running"), job(engine, "job_lately", YOUNG)}
    for job_id in kept:
        edit(engine, job_id.replace("job", "edit"), reschedule_id=f"'{job_id}'")
    assert prune("--older-than=90d", "--yes")[0] == 0
    assert ids(engine, "reschedules") == ids(engine, "reschedule_chunks", "reschedule_id") == kept
    assert ids(engine, "edits", "reschedule_id") == kept


def test_a_job_that_is_being_reverted_stays_with_what_it_did(engine, prune):
    kept = {job(engine, "job_a"), job(engine, "job_b", status="running", reverts="'job_a'")}
    edit(engine, "edit_a", reschedule_id="'job_a'")
    job(engine, "job_c")
    job(engine, "job_d", reverts="'job_c'")
    assert prune("--older-than=90d", "--yes")[0] == 0
    assert ids(engine, "reschedules") == kept
    assert ids(engine, "edits") == {"edit_a"}


def test_a_dry_run_counts_what_a_real_one_removes_and_removes_nothing(engine, prune):
    job(engine, "job_old")
    for number in range(3):
        edit(engine, f"edit_{number}", reschedule_id="'job_old'" if number else "NULL")
    attempt(engine, post(engine, "post_posted", status=f"'posted', posted_at = {OLD}"))
    code, output = prune("--older-than=90d", "--dry-run", "--json")
    assert code == 0, output
    found = json.loads(output)["found"]
    assert found == dict(zip(retention.KINDS, (0, 1, 3, 1, 0), strict=True))
    assert len(ids(engine, "edits")) == 3
    removed = json.loads(prune("--older-than=90d", "--yes", "--json")[1])["removed"]
    assert removed == found
    assert json.loads(prune("--older-than=90d", "--dry-run", "--json")[1])["found"] == dict.fromkeys(retention.KINDS, 0)


def test_without_an_answer_nothing_is_removed(engine, prune):
    edit(engine, "edit_old")
    code, output = prune("--older-than=90d")
    assert code == 1
    assert "Remove all this for good?" in output
    assert ids(engine, "edits") == {"edit_old"}


def test_many_rows_go_in_small_steps_and_none_is_passed_over(engine):
    """As real ids: they sort by time."""
    count = 2 * retention.ROWS_LOOKED_AT + 7
    with engine.begin() as tx:
        tx.execute(
            text(f"""INSERT INTO edits (id, post_id, workspace_id, changes, requested_by, status, finalized_at,
                         revision, created_at)
                     SELECT 'edit_0' || lpad(CAST(n AS text), 25, '0'), 'post_' || n, 'ws_test', '{{}}', 'tests',
                         'applied', CASE WHEN n % 2 = 0 THEN {OLD} ELSE now() END, 2, {OLD}
                     FROM generate_series(1, {count}) n""")
        )
    before = datetime.now(UTC) - timedelta(days=90)
    removed, steps, after = [], 0, None
    while steps == 0 or after is not None:
        with engine.begin() as tx:
            swept = retention.sweep(tx, "edits", before, after, remove=True)
        removed.append(swept.rows)
        steps, after = steps + 1, swept.after
    assert steps == 3
    assert max(removed) <= retention.ROWS_LOOKED_AT
    assert sum(removed) == count // 2
    with engine.connect() as tx:
        assert tx.execute(text("SELECT count(*) FROM edits")).scalar_one() == count - count // 2


def test_the_walk_ends_where_edits_are_young(engine, monkeypatch):
    """A table of years is not read to its end for what cannot be old."""
    day = 86_400
    now = datetime.now(UTC)
    edit(engine, new_id("edit", now.timestamp() - 100 * day))
    for number in range(5):
        edit(engine, new_id("edit", now.timestamp() - number), "now()")
    monkeypatch.setitem(retention._KINDS, "edits", replace(retention._KINDS["edits"], limit=2))
    with engine.begin() as tx:
        first = retention.sweep(tx, "edits", now - timedelta(days=90), remove=False)
        second = retention.sweep(tx, "edits", now - timedelta(days=90), first.after, remove=False)
    assert (first.rows, second.rows, second.after) == (1, 0, None)
