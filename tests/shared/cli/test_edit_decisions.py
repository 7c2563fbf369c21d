"""`redraft edits requeue` and `discard`: what each does, to which edits, and what is kept of it."""

import pytest
from sqlalchemy import Engine, text

from shared.broker import queue
from shared.domain import edit_histories
from shared.store import operator_actions
from shared.store.acts import Actor
from shared.store.db import transaction
from tests import factories
from tests.factories import FAILED
from tests.shared.cli.edits_command import answer, applied, edit, failed, post, redraft
from tests.waiting import eventually
from worker import apply


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
