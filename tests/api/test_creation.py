"""POST /v1/posts/video and /slideshow: one post for each account, all or none, and what is rung for them."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests import factories
from tests.api.answers import error, fields, messages
from tests.stack import Running
from tests.waiting import eventually

VIDEO = {"accountIds": [factories.TIKTOK], "contentUrl": "https://cdn.example.com/new.mp4"}
SLIDES = {
    "accountIds": [factories.TIKTOK],
    "contentUrls": ["https://cdn.example.com/1.jpg", "https://cdn.example.com/2.jpg"],
}
TOMORROW = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT12:00")


def create(stack: Running, kind: str, body: Any, **headers: str) -> httpx.Response:
    return stack.http.post(f"/v1/posts/{kind}", json=body, headers=headers)


def count(stack: Running) -> int:
    found: int = stack.scalar("SELECT count(*) FROM posts")
    return found


def test_a_video_is_created_for_each_account_and_can_be_read_at_once(stack: Running) -> None:
    body = VIDEO | {
        "accountIds": [factories.INSTAGRAM, factories.TIKTOK],
        "caption": "hello",
        "scheduledTime": TOMORROW,
        "timezone": "Asia/Tokyo",
    }
    answer = create(stack, "video", body)
    assert answer.status_code == 201, answer.text
    posts = answer.json()["posts"]
    assert [(post["accountId"], post["platform"]) for post in posts] == [
        (factories.INSTAGRAM, "instagram"), (factories.TIKTOK, "tiktok"),
    ]  # fmt: skip
    for post in posts:
        assert (post["status"], post["contentType"], post["caption"]) == ("generated", "video", "hello")
        assert (post["scheduledTime"], post["timezone"]) == (f"{TOMORROW[:10]}T03:00:00Z", "Asia/Tokyo")
        shown = stack.http.get(f"/v1/posts/{post['postId']}")
        assert {name: shown.json()[name] for name in post} == post
        assert shown.headers["etag"] == '"1"'
        assert stack.row("posts", post["postId"]).enqueued_revision is None


def test_a_post_without_a_time_is_due_now_has_no_zone_and_its_publish_is_rung(stack: Running) -> None:
    post = create(stack, "video", VIDEO).json()["posts"][0]
    assert (post["timezone"], post["caption"], post["soundId"]) == (None, "", None)
    assert post["scheduledTime"] == post["createdAt"]
    row = stack.row("posts", post["postId"])
    assert (row.enqueued_revision, row.scheduled_time) == (1, row.created_at)
    assert row.enqueued_at is not None
    rung = eventually(
        lambda: [arguments for arguments, _ in messages(stack, "publish") if [post["postId"], 1] in arguments[0]],
        within=30,
        because="the publish is rung",
    )
    assert len(rung) == 1


def test_a_post_within_the_horizon_is_rung_with_its_time_as_eta(stack: Running) -> None:
    # Not in the last seconds of a minute, or the next one would have passed before the request is accepted.
    eventually(lambda: datetime.now(UTC).second < 50, within=30)
    soon = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    local = (soon + timedelta(hours=9)).strftime("%Y-%m-%dT%H:%M")
    post = create(stack, "video", VIDEO | {"scheduledTime": local, "timezone": "Asia/Tokyo"}).json()["posts"][0]
    eta = eventually(
        lambda: [head["eta"] for arguments, head in messages(stack, "publish") if [post["postId"], 1] in arguments[0]],
        within=30,
    )
    assert datetime.fromisoformat(eta[0]) == soon


def test_slides_to_be_rendered_wait_for_their_render_which_is_rung(stack: Running) -> None:
    body = SLIDES | {"renderAsVideo": True, "slideDuration": 6, "soundId": "7001"}
    post = create(stack, "slideshow", body | {"scheduledTime": TOMORROW, "timezone": "Europe/Paris"}).json()["posts"][0]
    assert (post["status"], post["contentType"]) == ("pending_render", "slides")
    assert (post["contentUrl"], post["soundId"]) == (SLIDES["contentUrls"], "7001")
    row = stack.row("posts", post["postId"])
    assert (row.render_as_video, row.slide_duration, row.enqueued_revision) == (True, 6, 1)
    eventually(lambda: [post["postId"], 1] in [arguments for arguments, _ in messages(stack, "render")], within=30)


def test_slides_as_they_are_need_no_render_and_a_render_has_a_duration(stack: Running) -> None:
    plain = create(stack, "slideshow", SLIDES).json()["posts"][0]
    assert plain["status"] == "generated"
    assert stack.row("posts", plain["postId"]).slide_duration is None
    rendered = create(stack, "slideshow", SLIDES | {"renderAsVideo": True}).json()["posts"][0]
    assert stack.row("posts", rendered["postId"]).slide_duration == 4


@pytest.mark.parametrize(
    ("kind", "change", "code", "field"),
    [
        ("video", {"accountIds": []}, "invalid_request", "accountIds"),
        ("video", {"accountIds": "acc_tiktok"}, "invalid_request", "accountIds"),
        ("video", {"accountIds": [factories.TIKTOK, 5]}, "invalid_request", "accountIds[1]"),
        ("video", {"accountIds": [factories.TIKTOK, factories.TIKTOK]}, "invalid_request", "accountIds[1]"),
        ("video", {"accountIds": ["a\0b"]}, "invalid_request", "accountIds[0]"),
        ("video", {"accountIds": None}, "invalid_request", "accountIds"),
        ("video", {"contentUrl": None}, "invalid_request", "contentUrl"),
        ("video", {"contentUrl": ["https://a.example/b.mp4"]}, "invalid_request", "contentUrl"),
        ("video", {"contentUrl": "ftp://a.example/b.mp4"}, "invalid_content", "contentUrl"),
        ("video", {"caption": None}, "invalid_request", "caption"),
        ("video", {"caption": "x" * 2201}, "invalid_caption", "caption"),
        ("video", {"caption": "\U0001f600" * 1101}, "invalid_caption", "caption"),
        ("slideshow", {"caption": "x" * 4001}, "invalid_caption", "caption"),
        ("slideshow", {"caption": "x" * 2201, "renderAsVideo": True}, "invalid_caption", "caption"),
        ("video", {"scheduledTime": TOMORROW}, "missing_required_fields", "timezone"),
        ("video", {"timezone": "Asia/Tokyo"}, "missing_required_fields", "scheduledTime"),
        ("video", {"scheduledTime": "2020-01-01T00:00", "timezone": "Asia/Tokyo"}, "invalid_scheduled_time",
         "scheduledTime"),
        ("video", {"accountIds": [factories.TIKTOK, factories.INSTAGRAM], "soundId": "1"}, "sound_not_supported",
         "soundId"),
        ("video", {"renderAsVideo": True}, "invalid_request", "renderAsVideo"),
        ("slideshow", {"contentUrls": []}, "invalid_content", "contentUrls"),
        ("slideshow", {"contentUrls": ["https://a.example/1.jpg"] * 36}, "invalid_content", "contentUrls"),
        ("slideshow", {"contentUrls": ["https://a.example/1.jpg", "nonsense"]}, "invalid_content", "contentUrls[1]"),
        ("slideshow", {"accountIds": [factories.INSTAGRAM], "contentUrls": ["https://a.example/1.jpg"]},
         "invalid_content", "contentUrls"),
        ("slideshow", {"renderAsVideo": "yes"}, "invalid_request", "renderAsVideo"),
        ("slideshow", {"slideDuration": 5}, "invalid_request", "slideDuration"),
        ("slideshow", {"slideDuration": True}, "invalid_request", "slideDuration"),
    ],
)  # fmt: skip
def test_bad_input_is_a_400_that_names_the_field_and_creates_nothing(
    stack: Running, kind: str, change: dict[str, Any], code: str, field: str
) -> None:
    before = count(stack)
    answer = create(stack, kind, (VIDEO if kind == "video" else SLIDES) | change)
    assert (error(answer, 400)["code"], field in fields(answer)) == (code, True), answer.text
    assert count(stack) == before


@pytest.mark.parametrize("missing", ["accountIds", "contentUrl"])
def test_what_a_post_cannot_do_without_is_named(stack: Running, missing: str) -> None:
    body = {name: value for name, value in VIDEO.items() if name != missing}
    answer = create(stack, "video", body)
    assert (error(answer, 400)["code"], fields(answer)) == ("missing_required_fields", [missing])
    assert error(create(stack, "video", []), 400)["code"] == "invalid_request"


def test_an_unknown_account_is_a_404_and_nothing_is_created(stack: Running) -> None:
    with stack.engine.begin() as tx:
        factories.workspace(tx, "ws_there", "_there", "sk_there_0123456789")
    before = count(stack)
    for account in ("acc_nowhere", f"{factories.TIKTOK}_there"):
        answer = create(
            stack, "video", VIDEO | {"accountIds": [factories.TIKTOK, account]}, **{"Idempotency-Key": account}
        )
        assert error(answer, 404)["message"] == f"Account {account} not found"
    assert count(stack) == before
    assert stack.scalar("SELECT count(*) FROM idempotency_keys WHERE key = 'acc_nowhere'") == 0


def test_a_repeat_with_the_same_key_is_answered_with_the_first_posts_whatever_became_of_them(stack: Running) -> None:
    key = {"Idempotency-Key": "create-once"}
    first = create(stack, "video", VIDEO, **key)
    post = first.json()["posts"][0]["postId"]
    assert stack.patch(post, {"caption": "changed"}).status_code == 200
    repeated = create(stack, "video", dict(reversed(VIDEO.items())), **key)
    assert (repeated.status_code, repeated.content) == (201, first.content)
    assert (repeated.headers["idempotent-replayed"], "idempotent-replayed" in first.headers) == ("true", False)
    for other in (
        create(stack, "video", VIDEO | {"caption": "another"}, **key),
        create(stack, "video", {"nonsense": 1}, **key),
        create(stack, "slideshow", SLIDES, **key),
        stack.patch(post, {"caption": "x"}, **key),
    ):
        assert error(other, 422)["code"] == "idempotency_key_reused"


def test_a_patchs_key_does_not_create_and_a_refused_request_keeps_no_key(stack: Running) -> None:
    post = stack.post()
    stack.patch(post, {"caption": "a"}, **{"Idempotency-Key": "of-a-patch"})
    assert error(create(stack, "video", VIDEO, **{"Idempotency-Key": "of-a-patch"}), 422)
    assert create(stack, "video", VIDEO | {"caption": 1}, **{"Idempotency-Key": "refused-first"}).status_code == 400
    assert create(stack, "video", VIDEO, **{"Idempotency-Key": "refused-first"}).status_code == 201


def test_thirty_concurrent_repeats_create_one_post(stack: Running) -> None:
    before = count(stack)
    with ThreadPoolExecutor(30) as clients:
        answers = list(clients.map(lambda _: create(stack, "video", VIDEO, **{"Idempotency-Key": "thirty"}), range(30)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert count(stack) == before + 1


def test_a_repeat_that_meets_the_first_in_another_process_waits_for_its_end(stack: Running) -> None:
    """Another process is in the middle of its transaction: here a person's, which then rolls back."""
    with stack.engine.connect() as other, ThreadPoolExecutor(1) as clients:
        open_transaction = other.begin()
        other.exec_driver_sql(
            "INSERT INTO idempotency_keys (api_key_id, key, fingerprint, resource) VALUES (%s, 'met', '', 'x')",
            (factories.KEY_ID,),
        )
        waits = clients.submit(create, stack, "video", VIDEO, **{"Idempotency-Key": "met"})
        eventually(
            lambda: stack.scalar("SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted"),
            within=30,
            because="the repeat waits",
        )
        assert not waits.done()
        open_transaction.rollback()
        answer = waits.result(timeout=10)
    assert (answer.status_code, "idempotent-replayed" in answer.headers) == (201, False)
