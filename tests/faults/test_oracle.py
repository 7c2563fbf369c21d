"""The oracle finds what it is there to find: each promise of docs/faults.md, broken by hand in an honest history."""

import json
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from tests import factories
from tests.faults.evidence import Call, Evidence, Exchange, PostRow, gather, snapshot
from tests.faults.oracle import judge
from worker.apply import apply_edits
from worker.outbound.call_pool import CallPool
from worker.publish import publish
from worker.render import render

DUE = (datetime.now(UTC) - timedelta(days=2)).strftime("%Y-%m-%dT12:00")


@dataclass
class History:
    """A few edits as clients, workers and the publisher lived them, one after the other."""

    engine: Engine
    first: dict[str, PostRow] = field(default_factory=dict)
    exchanges: list[Exchange] = field(default_factory=list)
    journal: list[Call] = field(default_factory=list)

    def post(self, *, slides: bool = False) -> str:
        with self.engine.begin() as tx:
            post = (factories.slides if slides else factories.post)(tx)
        self.first |= snapshot(self.engine, [post])
        return post

    def edit(self, post: str, body: dict[str, Any], *, key: str | None = None) -> str:
        """Sent, recorded, applied, answered."""
        sent, name = time.time(), f"req-{next(factories.numbers)}"
        with self.engine.begin() as tx:
            edit = factories.edit(tx, post, body)
            tx.execute(
                text("UPDATE edits SET request_id = :name, created_at = now() - interval '1 year' WHERE id = :id"),
                {"id": edit, "name": name},
            )
        end = apply_edits([post]).results[0]
        applied = end.status == "applied"
        answer = json.loads(end.result) if end.result else {"error": {"code": end.error_code}}
        headers = {"edit-id": edit} | ({"etag": f'"{end.revision}"'} if applied else {})
        self.exchanges.append(
            Exchange(name, post, body, sent, time.time(), 200 if applied else 409, headers, answer, key)
        )
        return edit

    def publish(self, post: str) -> None:
        """Claimed, called for, finished."""
        revision = factories.row(self.engine, "posts", post).schedule_revision
        publish([(post, revision)], CallPool(1), lambda _: None)
        (attempt,) = self.evidence().attempts
        self.journal.append(Call(time.time(), attempt.idempotency_key, attempt.body))

    @property
    def published(self) -> str:
        return self.exchanges[0].post_id

    def plant(self, statement: str, **given: Any) -> None:
        """Break it, past everything that would refuse to."""
        with self.engine.begin() as tx:
            assert tx.execute(text(statement), given).rowcount >= 1

    def evidence(self) -> Evidence:
        return gather(self.engine, self.first, self.exchanges, self.journal)

    def kinds(self) -> set[str]:
        return {violation.kind for violation in judge(self.evidence())}


@pytest.fixture
def history(engine: Engine) -> History:
    """Edits of two posts, one of which has gone out; honest from end to end."""
    told = History(engine)
    post, other, slides = told.post(), told.post(), told.post(slides=True)
    told.edit(post, {"caption": "one"})
    told.edit(post, {"caption": "one"})
    told.edit(post, {"scheduledTime": DUE, "timezone": "Europe/Paris", "caption": "two"}, key="k1")
    told.edit(other, {"contentType": "video", "contentUrl": "https://cdn.example.com/b.mp4"})
    told.edit(slides, {"caption": "s"})
    render(slides, 1, lambda _: None)
    told.edit(slides, {"soundId": "7001"})
    render(slides, 2, lambda _: None)
    told.publish(post)
    told.edit(post, {"caption": "late"})
    return told


def the_edit(history: History, number: int) -> str:
    return str(history.exchanges[number].edit_id)


def test_an_honest_history_shows_nothing(history: History) -> None:
    assert judge(history.evidence()) == []
    assert [exchange.status for exchange in history.exchanges] == [200] * 6 + [409]


def test_an_edit_that_has_no_row_is_lost(history: History) -> None:
    history.plant("DELETE FROM edits WHERE id = :id", id=the_edit(history, 1))
    assert "lost" in history.kinds()


def test_an_edit_that_is_still_queued_is_lost_once_the_queue_should_be_empty(history: History) -> None:
    post = history.post()
    with history.engine.begin() as tx:
        factories.edit(tx, post, {"caption": "waits"})
    assert history.kinds() == {"lost"}
    assert judge(history.evidence(), settled=False) == []


def test_an_effect_that_came_twice_is_found_by_its_revision(history: History) -> None:
    history.plant("UPDATE posts SET revision = revision + 1 WHERE id = :id", id=history.published)
    assert history.kinds() == {"doubled"}


def test_two_edits_that_took_the_same_revision_are_found(history: History) -> None:
    history.plant("UPDATE edits SET revision = 2 WHERE id = :id", id=the_edit(history, 2))
    assert "doubled" in history.kinds()


def test_an_effect_without_its_audit_record_is_found(history: History) -> None:
    history.plant("UPDATE posts SET caption = 'nobody asked' WHERE id = :id", id=history.published)
    assert "state" in history.kinds()


def test_an_audit_record_that_tells_another_change_is_found(history: History) -> None:
    history.plant("UPDATE edits SET before = '{}', after = '{}' WHERE id = :id", id=the_edit(history, 0))
    assert "history" in history.kinds()


def test_an_edit_recorded_as_changed_from_what_the_post_never_was_is_found(history: History) -> None:
    history.plant('UPDATE edits SET before = \'{"caption": "x"}\' WHERE id = :id', id=the_edit(history, 0))
    assert history.kinds() == {"history"}


def test_edits_applied_in_another_order_than_answered_and_sent_are_found(history: History) -> None:
    post = history.post()
    history.edit(post, {"caption": "first"})
    history.edit(post, {"caption": "second"})
    assert history.kinds() == set()
    # The same honest rows, had the clients sent them the other way round.
    *before, one, two = history.exchanges
    moved: dict[str, Any] = {"sent": two.sent, "answered": two.answered}
    history.exchanges = [*before, replace(two, sent=one.sent, answered=one.answered), replace(one, **moved)]
    assert history.kinds() == {"order"}


def test_an_edit_applied_after_a_publish_claimed_the_post_is_found(history: History) -> None:
    late = the_edit(history, 6)
    history.plant("UPDATE posts SET caption = 'late', revision = revision + 1 WHERE id = :id", id=history.published)
    history.plant(
        """UPDATE edits SET status = 'applied', revision = 4, before = '{"caption": "two"}', error_code = NULL,
           after = '{"caption": "late"}' WHERE id = :id""",
        id=late,
    )
    history.exchanges = history.exchanges[:-1]
    assert history.kinds() == {"claim"}


def test_an_edit_applied_after_a_claim_that_changed_nothing_is_found_too(history: History) -> None:
    history.plant(
        """UPDATE edits SET status = 'applied', before = '{}', after = '{}', error_code = NULL,
           changes = '{"caption": "two"}', revision = 3 WHERE id = :id""",
        id=the_edit(history, 6),
    )
    history.exchanges = history.exchanges[:-1]
    assert history.kinds() == {"claim"}


def test_two_bodies_under_one_key_are_found_in_the_journal_and_in_the_attempts(history: History) -> None:
    call = history.journal[0]
    history.journal.append(replace(call, body=call.body.replace('"two"', '"three"')))
    assert history.kinds() == {"body"}
    history.journal.pop()
    history.plant(
        """INSERT INTO publish_attempts (post_id, schedule_revision, idempotency_key, body, try_number, claim_token,
               outcome, finished_at)
           SELECT post_id, schedule_revision, idempotency_key, replace(body, '"two"', '"three"'), 2, 'clm_' || id,
               'unknown', now() FROM publish_attempts WHERE post_id = :id""",
        id=history.published,
    )
    assert "body" in history.kinds()


def test_a_second_key_for_one_publish_is_found(history: History) -> None:
    history.plant(
        """INSERT INTO publish_attempts (post_id, schedule_revision, idempotency_key, body, try_number, claim_token,
               outcome, finished_at)
           SELECT post_id, schedule_revision, 'pub_second', body, 1, 'clm_' || id, 'unknown', now()
           FROM publish_attempts WHERE post_id = :id""",
        id=history.published,
    )
    assert history.kinds() == {"keys"}


def test_a_call_that_has_no_attempt_is_found(history: History) -> None:
    history.journal.append(replace(history.journal[0], key="pub_nobody"))
    assert history.kinds() == {"keys"}


def test_a_request_that_made_two_edits_is_found(history: History) -> None:
    post, request = history.post(), history.exchanges[2].request
    with history.engine.begin() as tx:
        again = factories.edit(tx, post, {"caption": "two"})
        tx.execute(text("UPDATE edits SET request_id = :request WHERE id = :id"), {"id": again, "request": request})
    apply_edits([post])
    assert history.kinds() == {"replayed"}


def test_a_repeat_that_was_answered_with_another_edit_is_found(history: History) -> None:
    one, two = history.exchanges[2], history.exchanges[3]
    history.exchanges.append(replace(one, headers={**one.headers, "edit-id": str(two.edit_id)}, status=202))
    assert "replayed" in history.kinds()


def test_an_answer_that_the_row_does_not_bear_out_is_found(history: History) -> None:
    first = history.exchanges[0]
    history.exchanges[0] = replace(first, answer={**first.answer, "caption": "other"})
    assert history.kinds() == {"answer"}
    history.exchanges[0] = replace(first, headers={**first.headers, "etag": '"9"'})
    assert history.kinds() == {"answer"}


def test_a_posted_post_without_a_finished_attempt_is_found(history: History) -> None:
    history.plant("UPDATE publish_attempts SET outcome = 'unknown' WHERE post_id = :id", id=history.published)
    assert history.kinds() == {"keys"}
