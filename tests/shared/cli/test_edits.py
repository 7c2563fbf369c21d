"""`redraft edits`: what an operator reads of an edit and does about one that failed, as a person and as a script."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, text
from typer.testing import CliRunner, Result

from shared.broker import queue
from shared.cli import edit_listing, workspaces
from shared.cli import edits as command
from shared.cli import posts as posts_command
from shared.domain import edit_histories
from shared.domain.ids import new_id
from shared.domain.reschedule_jobs import audit_id
from shared.store import edit_lists, operator_actions
from shared.store.acts import Actor
from shared.store.db import transaction
from tests import factories
from tests.waiting import eventually
from worker import apply

FAILED = (
    "status = 'failed', attempts = 5, finalized_at = clock_timestamp(), error_code = 'internal', error_message = 'x'"
)


def redraft(*arguments: str, says: str | None = None) -> Result:
    return CliRunner().invoke(command.app, list(arguments), input=says)


def answer(*arguments: str) -> Any:
    """What a script gets."""
    result = redraft(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, database_url: str, redis_url: str) -> Iterator[Engine]:
    with factories.set_up(monkeypatch, database_url, redis_url) as engine:
        yield engine


def post(engine: Engine, **columns: Any) -> str:
    with engine.begin() as tx:
        return factories.post(tx, **columns)


def edit(engine: Engine, post_id: str, changes: dict[str, Any], state: str = "", **given: Any) -> str:
    with engine.begin() as tx:
        edit_id = factories.edit(tx, post_id, changes, **given)
        if state:
            tx.execute(text(f"UPDATE edits SET {state} WHERE id = :id"), {"id": edit_id})
    return edit_id


def failed(engine: Engine, post_id: str, changes: dict[str, Any], **given: Any) -> str:
    return edit(engine, post_id, changes, FAILED, **given)


def applied(engine: Engine, post_id: str, changes: dict[str, Any]) -> str:
    """An edit that the worker's own code has applied."""
    edit_id = edit(engine, post_id, changes)
    apply.apply_edits([post_id])
    assert factories.row(engine, "edits", edit_id).status == "applied"
    return edit_id


def test_a_requeued_edit_comes_last_with_no_attempts_and_is_applied(engine: Engine) -> None:
    home = post(engine)
    poison = failed(engine, home, {"caption": "mine"})
    later = applied(engine, home, {"soundId": "7"})
    waiting = edit(engine, home, {"caption": "waiting"})
    assert answer("requeue", poison, "--yes") == [{"editId": poison, "done": True, "rung": True}]
    row = factories.row(engine, "edits", poison)
    assert (row.status, row.attempts, row.started_at, row.finalized_at, row.error_code) == ("queued", 0) + (None,) * 3
    assert row.seq > factories.row(engine, "edits", waiting).seq > factories.row(engine, "edits", later).seq
    apply.apply_edits([home])
    assert factories.row(engine, "posts", home).caption == "mine"
    assert factories.row(engine, "edits", poison).revision == factories.row(engine, "edits", waiting).revision + 1


def test_a_requeue_rings_for_its_post(engine: Engine) -> None:
    home = post(engine)
    poison = failed(engine, home, {"caption": "mine"})
    assert queue.free_capacity("edits") == 1000
    answer("requeue", poison, "--yes")
    assert queue.free_capacity("edits") == 999


def test_before_it_asks_it_names_the_later_changes_that_would_be_overwritten(engine: Engine) -> None:
    home = post(engine)
    poison = failed(engine, home, {"caption": "old", "soundId": "7"})
    harmless = applied(engine, home, {"scheduledTime": "2030-01-01T10:00", "timezone": "Asia/Tokyo"})
    newer = applied(engine, home, {"caption": "newer"})
    said_no = redraft("requeue", poison, says="n\n")
    assert said_no.exit_code == 1
    assert "overwrite a change" in said_no.output
    assert f"caption as {newer} set it" in said_no.output
    assert '"newer" -> "old"' in said_no.output
    assert harmless not in said_no.output
    assert factories.row(engine, "edits", poison).status == "failed"
    assert redraft("requeue", poison, says="y\n").exit_code == 0
    assert factories.row(engine, "edits", poison).status == "queued"


def test_a_move_by_a_bulk_job_counts_as_a_later_change_of_the_time(engine: Engine) -> None:
    home = post(engine)
    poison = failed(engine, home, {"scheduledTime": "2030-01-01T10:00", "timezone": "Asia/Tokyo"})
    moved = edit(
        engine,
        home,
        {"move": {"scheduledTime": "2030-02-01T10:00:00Z", "timezone": None}},
        "status = 'applied', revision = 2, finalized_at = now(), reschedule_id = 'rs_1'",
    )
    [overwritten] = answer("show", poison)["requeue"]["overwrites"]
    assert (overwritten["editId"], overwritten["fields"]) == (moved, ["time"])


def test_what_was_agreed_to_is_what_is_done(engine: Engine) -> None:
    """Between the question and the answer somebody else's edit came in: it is asked again."""
    home = post(engine)
    poison = failed(engine, home, {"caption": "old"})
    with transaction() as tx:
        seen = operator_actions.prospect(tx, poison)
    assert seen is not None
    applied(engine, home, {"caption": "newer"})
    with transaction() as tx:
        ended = operator_actions.requeue(tx, poison, Actor("kim"), seen.mark)
    assert isinstance(ended, operator_actions.NotDone)
    assert ended.prospect is not None
    assert len(ended.prospect.overwrites) == 1
    assert factories.row(engine, "edits", poison).status == "failed"
    with transaction() as tx:
        assert isinstance(
            operator_actions.requeue(tx, poison, Actor("kim"), ended.prospect.mark), operator_actions.Done
        )


def test_it_says_beforehand_that_the_edit_would_be_refused_or_that_the_post_would_go_out_at_once(
    engine: Engine,
) -> None:
    gone_out = post(engine, status="posted", posted_at=factories.soon(-1))
    refused = answer("show", failed(engine, gone_out, {"caption": "late"}))["requeue"]
    assert "posted" in refused["refusal"]
    waits = post(engine)
    passed = edit(
        engine,
        waits,
        {"scheduledTime": "2024-01-01T10:00", "timezone": "Asia/Tokyo"},
        f"{FAILED}, created_at = '2023-12-31'",
    )
    assert answer("show", passed)["requeue"]["goesOutAtOnce"] is True
    assert "go out at once" in redraft("show", passed).output


def test_only_a_failed_edit_is_requeued(engine: Engine) -> None:
    home = post(engine)
    fine = applied(engine, home, {"caption": "a"})
    refused = redraft("requeue", fine, "--yes")
    assert (refused.exit_code, "Only failed edits" in refused.output) == (1, True)
    assert factories.row(engine, "edits", fine).status == "applied"


def test_a_requeue_waits_for_whoever_holds_the_post_and_then_says_who_to_ask(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDRAFT_LOCK_TIMEOUT", "0.2")
    factories.forget_caches()
    home = post(engine)
    poison = failed(engine, home, {"caption": "a"})
    with engine.begin() as other:
        other.execute(text("SELECT FROM posts WHERE id = :id FOR UPDATE"), {"id": home})
        refused = redraft("requeue", poison, "--yes")
    assert refused.exit_code == 1
    assert "redraft doctor" in refused.output
    assert factories.row(engine, "edits", poison).status == "failed"


@pytest.mark.parametrize("state", ["", FAILED])
def test_a_discarded_edit_is_rejected_for_good_and_the_rest_of_the_queue_goes_on(engine: Engine, state: str) -> None:
    home = post(engine)
    unwanted = edit(engine, home, {"caption": "unwanted"}, state)
    wanted = edit(engine, home, {"soundId": "7"})
    assert answer("discard", unwanted, "--yes")[0]["done"] is True
    row = factories.row(engine, "edits", unwanted)
    assert (row.status, row.error_code, row.revision, row.before) == ("rejected", "discarded", 1, None)
    assert row.finalized_at is not None
    assert queue.free_capacity("edits") == 999
    apply.apply_edits([home])
    assert factories.row(engine, "edits", wanted).status == "applied"
    assert factories.row(engine, "posts", home).caption == "first"


def test_what_took_effect_is_not_discarded(engine: Engine) -> None:
    fine = applied(engine, post(engine), {"caption": "a"})
    assert redraft("discard", fine, "--yes").exit_code == 1
    assert factories.row(engine, "edits", fine).status == "applied"


def test_a_discard_tells_the_receiver_of_webhooks(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDRAFT_WEBHOOK_URL", "http://127.0.0.1:9/hook")
    factories.forget_caches()
    home = post(engine)
    answer("discard", failed(engine, home, {"caption": "a"}), "--yes")
    with engine.connect() as tx:
        assert tx.execute(text("SELECT type, post_id FROM webhook_events")).all() == [("edit.rejected", home)]


def test_the_story_of_an_edit_has_its_times_and_says_what_to_do(engine: Engine) -> None:
    home = post(engine)
    done = applied(engine, home, {"caption": "a"})
    story = answer("show", done)
    row = factories.row(engine, "edits", done)
    assert story["before"] == {"caption": "first"}
    assert story["createdAt"] < story["startedAt"] < story["finalizedAt"]
    assert (story["lockWaitMs"], story["revision"], story["requestId"]) == (0, 2, row.request_id)
    told = redraft("show", done).output
    for word in ("accepted", "started", "post locked", "applied", '"first" -> "a"', "Nothing to do"):
        assert word in told


def test_lists_filter_by_status_and_post_and_are_cut_off(engine: Engine) -> None:
    one, two = post(engine), post(engine)
    first, second = failed(engine, one, {"caption": "a"}), failed(engine, two, {"caption": "b"})
    third, fourth = edit(engine, one, {"caption": "c"}), edit(engine, one, {"caption": "d"})

    def listed(*arguments: str) -> list[str]:
        return [each["editId"] for each in answer("list", *arguments)]

    assert listed() == [fourth, third, second, first]
    assert listed("--status", "failed") == [second, first]
    assert listed("--status", "queued") == [third, fourth]  # the longest waiting first
    assert listed("--post", one) == [fourth, third, first]
    assert listed("--post", one, "--status", "failed") == [first]
    assert listed("--limit", "1") == [fourth]
    assert listed("--workspace", factories.WORKSPACE, "--status", "applied") == []
    assert redraft("list", "--workspace", "nobody").exit_code == 2


def test_nothing_in_a_story_steers_the_terminal_or_gives_a_signed_url_away(engine: Engine) -> None:
    home = post(engine)
    urls = {"contentType": "video", "contentUrl": "https://cdn.example.com/b.mp4?signature=hush"}
    done = applied(engine, home, {"caption": "red \x1b[31m", **urls})
    told = redraft("show", done).output + redraft("show", done, "--json").output
    assert "hush" not in told
    assert "b.mp4?…" in told
    assert "\x1b[31m" not in redraft("show", done).output


@pytest.mark.parametrize(("verb", "status"), [("requeue", "queued"), ("discard", "rejected")])
def test_what_a_decision_overwrites_is_kept_with_who_made_it(engine: Engine, verb: str, status: str) -> None:
    """Red before: a requeue nulled the error, the attempts and the times, and nothing said that it had been made."""
    poison = failed(engine, post(engine), {"caption": "mine"})
    stood = factories.row(engine, "edits", poison)
    answer(verb, poison, "--yes", "--by", "Kim")
    assert factories.row(engine, "edits", poison).status == status
    with engine.connect() as tx:
        [act] = tx.execute(text("SELECT * FROM acts")).all()
    assert (act.actor, act.api_key_id, act.action, act.from_state) == ("Kim", None, verb, "failed")
    assert (act.subject, act.subject_id, act.workspace_id) == ("edit", poison, factories.WORKSPACE)
    assert act.before == {
        "status": "failed",
        "place": stood.seq,
        "attempts": 5,
        "startedAt": None,
        "lockWaitMs": None,
        "finalizedAt": edit_histories.moment(stood.finalized_at),
        "revision": None,
        "before": None,
        "after": None,
        "error": {"code": "internal", "message": "x", "details": None},
    }
    done = {"requeue": "requeued", "discard": "discarded"}[verb]
    assert f"{done} by Kim; before: failed, internal (x)" in redraft("show", poison).output
    [told] = answer("show", poison)["acts"]
    assert (told["by"], told["action"], told["before"]["attempts"]) == ("Kim", verb, 5)


def test_a_discard_of_a_queued_edit_is_kept_too_and_one_that_was_refused_is_not(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "robin")
    home = post(engine)
    unwanted, fine = edit(engine, home, {"caption": "unwanted"}), applied(engine, post(engine), {"caption": "a"})
    answer("discard", unwanted, "--yes")
    assert redraft("discard", fine, "--yes").exit_code == 1
    assert redraft("requeue", fine, "--yes").exit_code == 1
    with engine.connect() as tx:
        acts = tx.execute(text("SELECT actor, action, subject_id, from_state FROM acts")).all()
    assert acts == [("robin", "discard", unwanted, "queued")]


@pytest.mark.usefixtures("engine")
def test_an_unknown_edit_is_refused_with_what_to_type() -> None:
    for verb in ("show", "requeue", "discard"):
        refused = redraft(verb, "edit_unknown")
        assert (refused.exit_code, "redraft edits list" in refused.output) == (2, True)


def test_a_script_has_to_say_yes_itself(engine: Engine) -> None:
    poison = failed(engine, post(engine), {"caption": "a"})
    assert redraft("requeue", poison, "--json").exit_code == 2
    assert factories.row(engine, "edits", poison).status == "failed"


def test_several_are_decided_one_by_one(engine: Engine) -> None:
    home = post(engine)
    some = [failed(engine, home, {"caption": str(number)}) for number in range(3)]
    assert redraft("requeue", *some, says="y\nn\ny\n").exit_code == 1
    states = [factories.row(engine, "edits", one).status for one in some]
    assert states == ["queued", "failed", "queued"]


def test_without_redis_it_is_done_all_the_same_and_says_so(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDRAFT_REDIS_URL", "redis://127.0.0.1:9/0")
    factories.forget_caches()
    poison = failed(engine, post(engine), {"caption": "a"})
    result = redraft("requeue", poison, "--yes")
    assert (result.exit_code, "rescue finds the edit" in result.output) == (0, True), result.output
    eventually(lambda: factories.row(engine, "edits", poison).status == "queued", within=1)


def test_a_list_goes_on_to_its_end_past_the_moves_of_a_bulk_job(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many rows one transaction looks at."""
    monkeypatch.setattr(edit_lists, "LOOKED_AT", 3)
    monkeypatch.setattr(edit_lists, "LOOKS", 2)
    home = post(engine)
    mine = failed(engine, home, {"caption": "mine"})
    with engine.begin() as tx:
        for number in range(20):
            moved = factories.edit(tx, home, {"move": {}})
            tx.execute(
                text(f"UPDATE edits SET {FAILED}, reschedule_id = 'rs_1', id = :audit WHERE id = :id"),
                {"id": moved, "audit": audit_id("rs_1", number)},
            )
    assert [one["editId"] for one in answer("list", "--workspace", factories.WORKSPACE)] == [mine]
    assert [one["editId"] for one in answer("list")] == [mine]
    assert len(answer("list", "--job", "rs_1")) == 20
    shown = redraft("list", "--job", "rs_1", "--limit", "7")
    assert "Only the first 7 are shown" in shown.stderr
    assert "Only the first" not in redraft("list", "--job", "rs_1", "--limit", "20").stderr


def test_a_queue_of_which_not_all_was_looked_at_is_told(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    home = post(engine)
    for _ in range(3):
        edit(engine, home, {"caption": "waits"})
    assert redraft("list", "--status", "queued").stderr == ""
    monkeypatch.setattr(edit_lists, "QUEUE_LOOKED_AT", 2)
    assert "More than 2 edits wait" in redraft("list", "--status", "queued").stderr


@pytest.mark.parametrize("width", [80, 120])
def test_a_list_takes_one_line_an_edit_on_a_terminal(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr(edit_listing, "screen_width", lambda: width)
    monkeypatch.setattr(workspaces, "screen_width", lambda: width)
    home = post(engine, post_id=new_id("post"))
    made = [failed(engine, home, {"caption": "mine"}) for _ in range(3)]
    lines = redraft("list").stdout.splitlines()
    assert max(map(len, lines)) <= width
    assert [line.split()[0] for line in lines if "failed" in line] == made[::-1]
    assert all(home in line for line in lines if "failed" in line)


def test_a_list_is_filtered_by_key_request_account_error_and_time(engine: Engine) -> None:
    mine = edit(
        engine,
        post(engine),
        {"caption": "mine"},
        FAILED.replace("'x'", "'Boom'") + ", request_id = 'trace/7', requested_by = 'studio', api_key_id = 'key_7'",
    )
    other = failed(engine, post(engine, account_id=factories.INSTAGRAM, platform="instagram"), {"caption": "other"})
    for chosen in (
        ("--key", "studio"),
        ("--key", "key_7"),
        ("--request", "trace/7"),
        ("--account", factories.TIKTOK),
        ("--error", "boom"),
        ("--reason", "INTERNAL: Boom"),
    ):
        assert [one["editId"] for one in answer("list", *chosen)] == [mine], chosen
    assert [one["editId"] for one in answer("list", "--status", "failed", "--since", "2020-01-01T00:00Z")] == [
        other,
        mine,
    ]
    assert answer("list", "--status", "failed", "--until", "2020-01-01T00:00Z") == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--account", "nobody"), "There is no account nobody"),
        (("--workspace", "nobody"), "There is no workspace nobody"),
        (("--since", "yesterday"), "--since takes a time in UTC"),
        (("--until", "now"), "--until takes a time in UTC"),
        (("--error", " "), "--error is empty"),
    ],
)
def test_a_filter_that_names_nothing_is_refused(engine: Engine, given: tuple[str, str], said: str) -> None:
    refused = redraft("list", *given)
    assert (refused.exit_code, said in refused.stderr) == (2, True)


def test_show_takes_the_id_of_a_request(engine: Engine) -> None:
    home = post(engine)
    mine = edit(engine, home, {"caption": "mine"}, "request_id = 'req_mine'")
    several = [edit(engine, home, {"caption": "x"}, "request_id = 'req_several'") for _ in range(2)]
    assert answer("show", "req_mine")["editId"] == mine
    refused = redraft("show", "req_several")
    assert refused.exit_code == 2
    assert all(f"redraft edits show {one}" in refused.stderr for one in several)
    assert redraft("show", "req_none").exit_code == 2


def test_show_names_the_account_and_tells_times_in_the_posts_zone(engine: Engine) -> None:
    home = post(engine, timezone="America/New_York")
    with engine.begin() as tx:
        tx.execute(text("UPDATE accounts SET name = 'Coffee' WHERE id = :id"), {"id": factories.TIKTOK})
    moved = applied(engine, home, {"scheduledTime": "2030-01-01T10:00", "timezone": "Asia/Tokyo"})
    shown = redraft("show", moved).stdout
    assert f"account {factories.TIKTOK} (Coffee)" in shown
    assert "2030-01-01 10:00 Asia/Tokyo" in shown
    assert "America/New_York ->" in shown
    assert answer("show", moved)["accountName"] == "Coffee"
    shown_post = CliRunner().invoke(posts_command.app, ["show", home])
    assert f"{factories.TIKTOK} (Coffee)" in shown_post.stdout
    assert "(2030-01-01 10:00 Asia/Tokyo)" in shown_post.stdout


def test_an_edit_behind_a_lock_names_the_session_and_not_nothing_to_do(engine: Engine) -> None:
    home = post(engine)
    waiting = edit(engine, home, {"caption": "x"})
    with engine.connect() as holder:
        pid = holder.execute(text("SELECT pg_backend_pid() FROM posts WHERE id = :id FOR UPDATE"), {"id": home})
        named = f"session {pid.scalar_one()} ("
        shown = eventually(lambda: said if named in (said := redraft("show", waiting).output) else None, within=10)
        assert "Nothing to do" not in shown
        assert answer("show", waiting)["waits"] == "locked"
        [listed] = answer("list", "--post", home)
        assert listed["advice"].startswith(f"It waits: {named}")
    # Nothing has it locked any more; but no worker runs here.
    assert answer("show", waiting)["waits"] == "no_worker"
