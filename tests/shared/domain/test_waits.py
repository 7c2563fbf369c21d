"""Why an edit or a post waits, from what was found outside its row. Pure."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.domain import reasons, waits
from shared.domain.edit_histories import EditHistory
from shared.domain.reasons import LastTry, Row
from shared.domain.service_answers import Outcome, Past
from shared.domain.waits import Broker, Flood, Lock, Session, Waits
from shared.task_names import QUEUES

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LOCK = Lock(4711, "psql, kim", idle=True, since=timedelta(minutes=3))
LOCKED = Waits({"post_1": LOCK})
ELSEWHERE = Waits({"post_2": LOCK})
ALL, NONE = dict.fromkeys(QUEUES, 1), dict.fromkeys(QUEUES, 0)
FULL = "command not allowed when used memory > 'maxmemory'."
AWAY, REFUSES = Waits(broker=Broker(away="no answer in time")), Waits(broker=Broker(refuses=FULL, workers=NONE))
ALONE, WELL = Waits(broker=Broker(workers=NONE)), Waits(broker=Broker(workers=ALL, waiting=dict.fromkeys(QUEUES, 7)))
HELD = (
    "session 4711 (psql, kim) has had the post locked for up to 3 min, and does nothing: ask its user to end it, or "
    "end it with SELECT pg_terminate_backend(4711)"
)


def edit(waited: float = 2.0, **given: Any) -> EditHistory:
    usual: dict[str, Any] = dict.fromkeys(EditHistory.__slots__)
    usual |= {"id": "edit_1", "post_id": "post_1", "status": "queued", "attempts": 0, "changes": {}}
    return EditHistory(**usual | {"created_at": NOW - timedelta(seconds=waited), "read_at": NOW} | given)


@pytest.mark.parametrize(
    ("queued", "found", "code", "words"),
    [
        (edit(), Waits(), "waits", "Nothing to do: its worker takes it within seconds."),
        (edit(), WELL, "waits", "Nothing to do: its worker takes it within seconds."),
        (edit(), ELSEWHERE, "waits", "Nothing to do: its worker takes it within seconds."),
        # What is known is said at once, and not after some time.
        (edit(), LOCKED, "locked", f"It waits: {HELD}."),
        (edit(attempts=2), LOCKED, "locked", f"It waits: {HELD}."),
        (
            edit(),
            AWAY,
            "redis_away",
            "It waits: Redis does not answer (no answer in time), so no worker is woken: start it.",
        ),
        # Workers report through Redis: one that takes no writes hears of none of them.
        (
            edit(),
            REFUSES,
            "redis_refuses_writes",
            (
                "It waits: Redis refuses writes (command not allowed when used memory > 'maxmemory'), so no worker is "
                "woken: `redraft doctor` says more."
            ),
        ),
        (
            edit(),
            ALONE,
            "no_worker",
            "It waits: no worker of the queue edits is heard of: start one with `redraft worker --queues edits`.",
        ),
        (
            edit(attempts=1),
            WELL,
            "worker_died",
            (
                "It waits: it was started once and its worker died; it runs alone now, and ends as failed when its "
                "attempts are spent; the worker's log says why it died."
            ),
        ),
        (edit(5), WELL, "waits", None),
        # A worker that hangs is missed after 30 s only. Until then nothing is known, and that is not "nothing to do".
        (
            edit(6),
            Waits(),
            "not_taken",
            "It waits: no worker has taken it for 6.0 s; `redraft doctor` looks at every part.",
        ),
        (
            edit(31),
            WELL,
            "not_taken",
            (
                "It waits: no worker has taken it for 31 s; 7 messages wait on the queue edits; `redraft doctor` "
                "looks at every part."
            ),
        ),
    ],
)
def test_why_an_edit_waits(queued: EditHistory, found: Waits, code: str, words: str | None) -> None:
    said = waits.of_edit(queued, found)
    assert said is not None
    assert said.code == code
    if words is not None:
        assert waits.advice(queued, found) == words


def test_an_edit_that_has_ended_waits_for_nothing() -> None:
    for status in ("applied", "rejected", "failed"):
        assert waits.of_edit(edit(status=status, finalized_at=NOW), LOCKED) is None
    # Red before: it named the lines of an error only, and a worker that was killed writes none.
    said = waits.advice(edit(status="failed", finalized_at=NOW), LOCKED)
    assert "attempt_spent with the edit's id" in said
    assert "worker_died with the post's id" in said


def post(**given: Any) -> Row:
    usual: dict[str, Any] = {"id": "post_1", "status": "generated", "scheduled_time": NOW - timedelta(seconds=30)}
    return Row(**usual | given)


SOON, GONE = NOW + timedelta(hours=1), NOW - timedelta(seconds=3)
DIED = "the worker that made try 3 died or hangs; rescue takes the post over within seconds, under the same key"
NO_PUBLISH = "no worker of the queue publish is heard of: start one with `redraft worker --queues publish`"


@pytest.mark.parametrize(
    ("row", "found", "code", "words"),
    [
        (post(enqueued_at=GONE), LOCKED, "locked", HELD),
        (post(), LOCKED, "locked", HELD),
        (post(status="pending_render"), LOCKED, "locked", HELD),
        (post(enqueued_at=GONE), ALONE, "no_worker", NO_PUBLISH),
        (post(), Waits(broker=Broker(workers=ALL | {"ops": 0})), "no_worker", None),
        (post(enqueued_at=GONE), Waits(broker=Broker(workers=ALL | {"ops": 0, "render": 0})), "sent", None),
        (post(status="pending_render"), Waits(broker=Broker(workers=ALL | {"publish": 0})), "unrendered", None),
        (post(enqueued_at=GONE), REFUSES, "redis_refuses_writes", None),
        (
            post(enqueued_at=GONE),
            WELL,
            "sent",
            "it was sent to the workers: look for a publish worker (redraft doctor)",
        ),
        # The time of its next try has not come: nothing keeps it but that.
        (post(retry_at=SOON), LOCKED, "between_tries", None),
        (post(retry_at=GONE), LOCKED, "between_tries", f"its last try failed; the next one is due now; {HELD}"),
        (post(claim="publish", claim_token="c", claim_expires_at=SOON), LOCKED, "publishing", None),
        # Put back by an operator, and not taken up.
        (post(claim="publish", claim_token="c", claim_expires_at=GONE), LOCKED, "locked", HELD),
        (post(status="posted"), LOCKED, "posted", None),
        (post(deleted=True), LOCKED, "deleted", None),
        (post(scheduled_time=SOON), LOCKED, "waits", "it waits for its time"),
        (
            post(scheduled_time=SOON, edits=1),
            LOCKED,
            "edit_waits",
            f"it waits for its time; 1 edit waits for it: {HELD}",
        ),
        (post(scheduled_time=SOON, edits=2), WELL, "waits", "it waits for its time; 2 edits wait for it"),
        (
            post(scheduled_time=SOON, edits=2, wanted=GONE),
            LOCKED,
            "edit_waits",
            f"an edit that waits gives it a time that has passed; 2 edits wait for the post: {HELD}",
        ),
    ],
)
def test_why_a_post_waits(row: Row, found: Waits, code: str, words: str | None) -> None:
    said = reasons.of(row, None, Past(), NOW, found=found)
    assert said.code == code
    if words is not None:
        assert said.words == words


def test_the_publishers_last_answer_is_said_beside_what_keeps_the_next_try() -> None:
    claimed = post(claim="publish", claim_token="c", claim_expires_at=GONE)
    failed = LastTry(3, "c", NOW, "server_error", "503")
    past = Past.of([(Outcome.SERVER_ERROR, NOW)] * 3)
    said = reasons.of(claimed, failed, past, NOW, found=ALONE)
    assert said.words == f"the publisher failed (503); 3 of 10 tries are used up; the next one is due now; {NO_PUBLISH}"
    assert (said.code, said.tries) == ("server_error", 3)
    dead = reasons.of(claimed, LastTry(3, "c", NOW), past, NOW, found=ALONE)
    assert dead.words == f"{DIED}; {NO_PUBLISH}"
    # While its next try is not due, the answer is the whole reason.
    later = post(claim="publish", claim_token="c", claim_expires_at=SOON)
    assert reasons.of(later, failed, past, NOW, found=LOCKED).words.endswith("the next one comes in 1 h")


@pytest.mark.parametrize(
    ("broker", "webhooks", "said"),
    [
        (Broker(), True, []),
        (Broker(workers=ALL), True, []),
        (Broker(away="no connection"), True, ["Redis does not answer (no connection)"]),
        (Broker(refuses=FULL, workers=NONE), True, ["Redis refuses writes (command not allowed"]),
        (Broker(workers=ALL | {"edits": 0}), True, ["No worker of the queue edits was heard"]),
        (Broker(workers=ALL | {"webhooks": 0, "ops": 0}), True, ["No worker of the queues webhooks and ops was"]),
        # Without a receiver there is nothing to deliver, unless messages wait.
        (Broker(workers=ALL | {"webhooks": 0}), False, []),
        (Broker(workers=ALL | {"webhooks": 0}, waiting={"webhooks": 1}), False, ["No worker of the queue webhooks"]),
    ],
)
def test_what_stops_all_work_of_a_kind(broker: Broker, webhooks: bool, said: list[str]) -> None:
    found = waits.troubles(broker, webhooks=webhooks)
    assert len(found) == len(said)
    for sentence, begins in zip(found, said, strict=True):
        assert sentence.startswith(begins)


def test_a_session_is_named_with_what_it_holds_up() -> None:
    session = Session(7, None, "psql", "10.0.0.7", idle=False, seconds=61, blocks=1)
    assert session.words == "Session 7 (psql, 10.0.0.7) is in one transaction for 1 min 1 s, and holds up 1 other"
    assert Lock(7, waits.who(None, "")).words.startswith("session 7 (unknown) has had the post locked: ask its user")


@pytest.mark.parametrize(
    ("database", "said"),
    [
        (0.0, None),
        # Between the two readings, and a second beside them.
        (0.4, None),
        (-1.0, None),
        (1.5, None),
        (-1.1, "1.1 s ahead of"),
        (600.5, "10 min behind"),
    ],
)
def test_an_apis_clock_is_held_against_the_databases(database: float, said: str | None) -> None:
    at = NOW + timedelta(seconds=database)
    found = waits.clock_trouble(NOW, at, NOW + timedelta(seconds=0.5))
    assert (found is None) if said is None else (found is not None and f"is {said} the database's" in found)


@pytest.mark.parametrize(
    ("waiting", "looked_at", "a_second", "oldest", "words"),
    [
        (5000, 5001, 0.0, 11, "floods the queue: of 5,001 edits that wait, 5,000 are its own"),
        (5000, 5001, 900.0, 11, "floods the queue: of 5,001 edits that wait, 5,000 are its own"),
        # What waits is its own, but none waits for long.
        (5000, 5001, 0.0, 10, None),
        (5000, 5001, 0.0, None, None),
        (1000, 2000, 0.0, 11, None),
        (999, 999, 0.0, 11, None),
        # The workers keep up, and the edits of others take longer.
        (5000, 5001, 431.6, 1, "sends 432 edits a second, more than all other keys together"),
        (64, 64, 100.0, None, "sends 100 edits a second, more than all other keys together"),
        (64, 64, 99.9, None, None),
    ],
)
def test_a_flood_is_named_with_the_commands_that_end_it(
    waiting: int, looked_at: int, a_second: float, oldest: float | None, words: str | None
) -> None:
    flood = Flood("ws_1", "Acme", "the importer", waiting, looked_at, a_second)
    said = flood.said(None if oldest is None else timedelta(seconds=oldest))
    assert (said and said[0]) == (words and f"The key the importer of workspace Acme {words}")
    if said is not None and words is not None:
        assert "`redraft keys list ws_1`" in said[1]
        discard = "`redraft edits discard --status queued --key 'the importer' --workspace ws_1`"
        assert (discard in said[1]) == words.startswith("floods")
        assert ("`redraft keys create ws_1 NAME --rate-limit N`" in said[1]) == words.startswith("sends")
