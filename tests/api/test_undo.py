"""POST /v1/edits/{editId}/undo against a running API and worker."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from shared.store import acts
from tests import factories
from tests.api.answers import error, fields
from tests.stack import Running

DAY = (datetime.now(UTC) + timedelta(days=3)).strftime("%Y-%m-%d")
TIME = {"scheduledTime": f"{DAY}T12:00", "timezone": "Asia/Tokyo"}


def edited(stack: Running, post: str, **body: Any) -> str:
    """The id of an applied edit."""
    answer = stack.patch(post, body)
    assert answer.status_code == 200, answer.text
    return answer.headers["edit-id"]


def undo(stack: Running, edit: str, body: Any = None, **headers: str) -> httpx.Response:
    return stack.http.post(f"/v1/edits/{edit}/undo", json=body, headers=headers)


def kept_acts(stack: Running, subject: str) -> list[Any]:
    with stack.engine.connect() as tx:
        return acts.of(tx, subject, 10)


@contextmanager
def locked(stack: Running, post: str) -> Iterator[None]:
    with stack.engine.begin() as person:
        person.execute(text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE"), {"id": post})
        yield


def test_an_undo_is_a_new_edit_that_sets_back_what_the_edit_changed(stack: Running) -> None:
    post = stack.post(sound_id="1", timezone="Asia/Tokyo")
    was = stack.http.get(f"/v1/posts/{post}").json()
    edited(stack, post, scheduledTime=f"{DAY}T09:00", timezone="Asia/Tokyo")
    at_nine = stack.http.get(f"/v1/posts/{post}").json()
    edit = edited(stack, post, caption="new", soundId=None, **TIME)
    answer = undo(stack, edit)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {name: at_nine[name] for name in answer.json()}
    assert (answer.json()["caption"], answer.json()["soundId"]) == (was["caption"], "1")
    assert answer.headers["etag"] == '"4"'
    new = stack.row("edits", answer.headers["edit-id"])
    assert answer.headers["location"] == f"/v1/edits/{new.id}"
    assert new.changes == {
        "caption": "first",
        "soundId": "1",
        "scheduledTime": f"{DAY}T09:00",
        "timezone": "Asia/Tokyo",
    }
    assert (new.status, new.requested_by, new.request_id) == ("applied", "tests", answer.headers["x-request-id"])
    assert new.if_match == ['"3"'], "it was recorded for the revision that it looked at"


def test_the_act_is_kept_with_who_did_it_and_what_stood_there(stack: Running) -> None:
    post = stack.post()
    edit = edited(stack, post, caption="new")
    answer = undo(stack, edit)
    (act,) = kept_acts(stack, edit)
    assert (act.action, act.actor, act.by_client, act.from_state) == ("undo", "tests", True, "applied")
    assert act.before == {"caption": "new", "undoneBy": answer.headers["edit-id"]}
    assert act.words() == "undone by tests; before: applied"
    assert kept_acts(stack, answer.headers["edit-id"]) == []


def test_an_undo_can_be_undone(stack: Running) -> None:
    post = stack.post()
    first = undo(stack, edited(stack, post, caption="new"))
    assert undo(stack, first.headers["edit-id"]).json()["caption"] == "new"


def test_a_later_edit_of_the_same_field_is_a_conflict_that_names_it(stack: Running) -> None:
    post = stack.post()
    edit = edited(stack, post, caption="new")
    edited(stack, post, **TIME)
    edited(stack, post, caption="new")  # changes nothing
    later = edited(stack, post, caption="later")
    answer = undo(stack, edit)
    said = error(answer, 409)
    assert (said["code"], fields(answer)) == ("conflict", [later])
    assert "edit-id" not in answer.headers
    assert (len(stack.edits_of(post)), kept_acts(stack, edit)) == (4, [])
    for body in ({}, {"force": False}):
        assert error(undo(stack, edit, body), 409)["code"] == "conflict"
    forced = undo(stack, edit, {"force": True})
    assert (forced.status_code, forced.json()["caption"]) == (200, "first")
    assert kept_acts(stack, edit)[0].before["caption"] == "later"


def test_a_queued_edit_of_the_same_field_is_a_conflict_and_one_of_another_is_none(stack: Running) -> None:
    post = stack.post()
    edit = edited(stack, post, caption="new")
    with locked(stack, post):
        waiting = stack.patch(post, {"soundId": "7"}, Prefer="respond-async")
        assert waiting.status_code == 202
        free = undo(stack, edit, Prefer="respond-async")
        assert free.status_code == 202, free.text
        assert free.json()["changes"] == {"caption": "first"}
        again = undo(stack, edit, Prefer="respond-async")
        assert (error(again, 409)["code"], fields(again)) == ("conflict", [free.json()["editId"]])
    done = stack.http.get(free.headers["location"], headers={"Prefer": "wait=10"}).json()
    assert (done["status"], done["revision"]) == ("applied", 4)
    assert (stack.row("posts", post).caption, stack.row("posts", post).sound_id) == ("first", "7")


@pytest.mark.parametrize(
    ("columns", "status", "code"),
    [
        ({"status": "posted", "posted_at": factories.soon(-1)}, 409, "cannot_edit"),
        ({"deleted_at": factories.soon(-1)}, 404, "not_found"),
    ],
)
def test_a_post_that_takes_no_edit_takes_no_undo(
    stack: Running, columns: dict[str, Any], status: int, code: str
) -> None:
    post = stack.post()
    edit = edited(stack, post, caption="new")
    sets = ", ".join(f"{name} = :{name}" for name in columns)
    with stack.engine.begin() as tx:
        tx.execute(text(f"UPDATE posts SET {sets} WHERE id = :id"), columns | {"id": post})
    answer = undo(stack, edit)
    assert error(answer, status)["code"] == code
    assert (len(stack.edits_of(post)), kept_acts(stack, edit)) == (1, [])


def test_a_time_that_has_passed_is_not_set_again(stack: Running) -> None:
    post = stack.post(timezone="Asia/Tokyo", scheduled_time=factories.soon(60).replace(second=0, microsecond=0))
    edit = edited(stack, post, **TIME)
    with stack.engine.begin() as tx:
        tx.execute(
            text("""UPDATE edits SET before = '{"scheduledTime": "2024-01-01T00:00:00Z"}' WHERE id = :id"""),
            {"id": edit},
        )
    assert error(undo(stack, edit), 400)["code"] == "invalid_scheduled_time"


def test_an_edit_that_was_refused_and_one_that_is_not_there_cannot_be_undone(stack: Running) -> None:
    post = stack.post()
    refused = stack.patch(post, {"caption": "x"}, **{"If-Match": '"9"'}).headers["edit-id"]
    assert "is rejected" in error(undo(stack, refused), 409)["message"]
    for name in ("edit_nowhere", "x" * 300, "edit%00"):
        assert error(undo(stack, name), 404)["code"] == "not_found"


@pytest.mark.parametrize(
    ("body", "field"), [([], None), ({"force": 1}, "force"), ({"force": None}, "force"), ({"froce": True}, "froce")]
)
def test_a_bad_body_is_a_400(stack: Running, body: Any, field: str | None) -> None:
    edit = edited(stack, stack.post(), caption="new")
    answer = undo(stack, edit, body)
    assert error(answer, 400)["code"] == "invalid_request"
    assert field in [None, *fields(answer)]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-Match": '"2"'}, 200),
        ({"If-Match": '"1", "2"'}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Match": '"1"'}, 412),
        ({"If-Match": 'W/"2"'}, 412),
        ({"If-None-Match": '"2"'}, 412),
        ({"If-None-Match": '"1"'}, 200),
        ({"If-Match": "2"}, 400),
    ],
)
@pytest.mark.parametrize("body", [None, {"force": True}])
def test_preconditions_are_those_of_a_patch(stack: Running, headers: dict[str, str], status: int, body: Any) -> None:
    post = stack.post()
    answer = undo(stack, edited(stack, post, caption="new"), body, **headers)
    assert answer.status_code == status, answer.text
    if status == 412:
        assert answer.headers["etag"] == '"2"'
    assert stack.row("posts", post).caption == ("first" if status == 200 else "new")


def test_a_repeat_gets_the_first_ones_result_and_undoes_nothing_more(stack: Running) -> None:
    post, key = stack.post(), {"Idempotency-Key": "undo-once"}
    edit = edited(stack, post, caption="new")
    first = undo(stack, edit, **key)
    edited(stack, post, caption="since")
    again = undo(stack, edit, **key)
    assert (again.status_code, again.content, again.headers["edit-id"]) == (
        200,
        first.content,
        first.headers["edit-id"],
    )
    assert (again.headers["idempotent-replayed"], again.headers["etag"]) == ("true", first.headers["etag"])
    assert error(undo(stack, edit, {"force": True}, **key), 422)["code"] == "idempotency_key_reused"
    assert error(undo(stack, edit, [], **key), 422)["code"] == "idempotency_key_reused"
    assert (stack.row("posts", post).caption, len(kept_acts(stack, edit))) == ("since", 1)
    refused = {"Idempotency-Key": "undo-refused"}
    assert undo(stack, edit, **refused).status_code == 409
    assert undo(stack, edit, {"force": True}, **refused).status_code == 200, "a refusal keeps no key"


@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "undo-twins"}])
def test_of_twins_at_once_one_undoes(stack: Running, key: dict[str, str]) -> None:
    post = stack.post()
    edit = edited(stack, post, caption="new")
    with ThreadPoolExecutor(6) as clients:
        answers = list(clients.map(lambda _: undo(stack, edit, **key), range(6)))
    statuses = [answer.status_code for answer in answers]
    if key:
        assert set(statuses) == {200}
        assert len({answer.headers["edit-id"] for answer in answers}) == 1
    else:
        assert statuses.count(200) == 1
        assert set(statuses) <= {200, 409, 412}
    assert (stack.row("posts", post).caption, stack.row("posts", post).revision) == ("first", 3)


def test_a_time_that_a_bulk_job_moved_is_undone_too(stack: Running) -> None:
    post = stack.post(timezone="Asia/Tokyo")
    moved = edited(stack, post, **TIME)
    with stack.engine.begin() as tx:
        tx.execute(
            text("""UPDATE edits SET result = NULL, after = '{"scheduledTime": "2031-01-01T03:00:00Z"}',
                before = CAST(:before AS jsonb), reschedule_id = 'rsch_1',
                changes = '{"move": {"scheduledTime": "2031-01-01T03:00:00Z", "timezone": "Asia/Tokyo"}}'
                WHERE id = :id"""),
            {"id": moved, "before": f'{{"scheduledTime": "{DAY}T00:30:00Z"}}'},
        )
    answer = undo(stack, moved)
    assert (answer.status_code, answer.json()["scheduledTime"]) == (200, f"{DAY}T00:30:00Z")
