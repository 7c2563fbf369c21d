"""`redraft posts`: what is late, what has failed, what goes out next, and one post's story."""

import json

import pytest
from sqlalchemy import Engine, text

from shared.cli import workspaces
from shared.domain import edit_histories
from shared.domain.service_answers import Reply
from tests import factories
from tests.shared.cli.failed_posts import BROKEN, REFUSED, due, failed, redraft, retried
from tests.waiting import eventually
from tests.worker.fake_services import FakeServices, change, expire, fake_services, publish_now, render_now

__all__ = ["fake_services"]

SET_UP_WRONGLY = Reply("misconfigured", message="the service answered 401: token expired")
BUSY = Reply("not_now", message="slow down")


def busy(engine: Engine, fake_services: FakeServices) -> str:
    """A post whose publisher has asked to wait for an hour."""
    post = due(engine)
    fake_services.replies = [BUSY] * 2
    publish_now((post, 1))
    with engine.begin() as tx:
        tx.execute(
            text("UPDATE publish_attempts SET started_at = now() - interval '1 hour' WHERE post_id = :id"), {"id": post}
        )
    expire(engine, post)
    publish_now((post, 1))
    return post


def test_what_failed_alike_is_told_apart_by_class_and_words_and_chosen_by_any_part_of_them(
    engine: Engine, fake_services: FakeServices
) -> None:
    """Red before: 401, 503 and a spent 429 all read `publisher_unavailable`, and a retry knew no more."""
    wrong, broken = failed(engine, fake_services, SET_UP_WRONGLY, 10), failed(engine, fake_services, BROKEN, 10)
    slow, refused = busy(engine, fake_services), failed(engine, fake_services)
    told = {one["postId"]: one for one in json.loads(redraft("list", "--status", "failed", "--json").stdout)}
    assert {one["reason"] for one in told.values()} == {"publisher_unavailable", "suspended"}
    assert [(told[post]["class"], told[post]["lastAnswer"]) for post in (wrong, broken, slow, refused)] == [
        ("misconfigured", "the service answered 401: token expired"),
        ("unavailable", "503"),
        ("busy", "slow down"),
        ("refused", "suspended"),
    ]
    shown = " ".join(redraft("list", "--status", "failed").output.split())
    assert "misconfigured: the service answered 401: token expired" in shown
    assert "4 failed posts by class and last words: 1 refused: suspended 1 busy: slow down" in shown
    for words, posts in (
        ("misconfigured", {wrong}),
        ("misconfigured: the service answered 401", {wrong}),
        ("TOKEN EXPIRED", {wrong}),
        ("unavailable: 503", {broken}),
        ("busy", {slow}),
        ("publisher_unavailable", {wrong, broken, slow}),
        ("refused: susp", {refused}),
        ("answered 404", set()),
    ):
        listed = json.loads(redraft("list", "--status", "failed", "--reason", words, "--json").stdout)
        assert {one["postId"] for one in listed} == posts, words
    assert retried("--reason", "misconfigured") == {wrong: "closed"}
    stored = factories.row(engine, "posts", wrong)
    assert (stored.failure_class, stored.failure_message) == (None, None)


def test_a_refusal_whose_words_are_publish_outcome_unknown_is_a_refusal(
    engine: Engine, fake_services: FakeServices
) -> None:
    post = failed(engine, fake_services, Reply("refused", message="publish_outcome_unknown"))
    [told] = json.loads(redraft("list", "--status", "failed", "--json").stdout)
    assert (told["class"], told["maybeSent"]) == ("refused", False)
    assert "the publisher refused it; it did not go out" in redraft("show", post).output
    assert retried(post) == {post: "due"}


def test_a_post_that_failed_before_classes_were_recorded_shows_what_its_reason_tells(
    engine: Engine, fake_services: FakeServices
) -> None:
    post = failed(engine, fake_services, SET_UP_WRONGLY, 10)
    change(engine, "posts", post, failure_class=None, failure_message=None)
    [told] = json.loads(redraft("list", "--status", "failed", "--json").stdout)
    assert (told["class"], told["lastAnswer"]) == ("unavailable", "the service answered 401: token expired")
    assert retried("--reason", "unavailable: the service answered 401") == {post: "closed"}


def test_one_failed_posts_story_says_whether_it_may_have_gone_out_and_what_not_sent_means(
    engine: Engine, fake_services: FakeServices
) -> None:
    refused, unknown = failed(engine, fake_services), failed(engine, fake_services, Reply("unknown"), 3)
    shown = redraft("show", refused).output
    assert f"It did not go out. Another try, which leaves it open to edits:\n  redraft posts retry {refused}\n" in shown
    assert "--not-sent" not in shown
    shown = redraft("show", unknown).output
    assert "It may have gone out. Another try asks again under its old key" in shown
    assert f"  redraft posts retry {unknown} --not-sent\n" in shown
    assert "Your word is kept with your name" in " ".join(shown.split())
    told = json.loads(redraft("show", unknown, "--json").stdout)["failure"]
    assert told == {"class": "unknown", "lastAnswer": None, "maybeSent": True, "keyTooOld": False}
    assert max(len(line) for line in shown[shown.index("It may have gone out") :].splitlines()) <= 80


@pytest.mark.parametrize(
    ("reply", "words", "code"),
    [
        (
            SET_UP_WRONGLY,
            "the renderer is set up wrongly (the service answered 401: token expired); 1 of 10",
            "misconfigured",
        ),
        (BROKEN, "the renderer failed (503); 1 of 10", "server_error"),
        (Reply("unknown", message="timed out"), "its last render got lost (timed out); 1 of 10", "unknown"),
        (BUSY, "the renderer asks to wait (slow down); 0 of 10", "not_now"),
        (
            Reply("processing", message="the service is still at work"),
            "the renderer is still at work on it; 0 of 10",
            "processing",
        ),
    ],
    ids=lambda given: given.kind if isinstance(given, Reply) else "",
)
def test_stuck_says_the_renderers_own_answer_the_tries_and_the_next_one(
    engine: Engine, fake_services: FakeServices, reply: Reply, words: str, code: str
) -> None:
    """Red before: nothing that a renderer answered was kept."""
    with engine.begin() as tx:
        post = factories.slides(tx, scheduled_time=factories.soon(-5))
    fake_services.replies = [reply]
    render_now(post)
    with engine.begin() as tx:
        # It is still ahead when the last command looks, on a busy machine too.
        tx.execute(text("UPDATE posts SET retry_at = retry_at + interval '10 minutes' WHERE id = :id"), {"id": post})
    [told] = json.loads(redraft("stuck", "--json").stdout)
    assert (told["reason"], told["triesMost"]) == (f"render_{code}", 10)
    assert told["nextTryAt"] == edit_histories.moment(factories.row(engine, "posts", post).retry_at)
    for command_line in (("stuck",), ("show", post)):
        assert f"{words} tries are used up; the next one comes " in " ".join(redraft(*command_line).output.split())
    told = json.loads(redraft("show", post, "--json").stdout)["lastRender"]
    assert (told["outcome"], told["message"]) == (reply.kind, reply.message)


def test_on_a_terminal_no_line_is_longer_than_the_screen_and_no_word_is_lost(
    engine: Engine, fake_services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red before: the last words were cut off at 80 columns, and long lines were not wrapped."""
    monkeypatch.setattr(workspaces, "screen_width", lambda: 80)
    words = "The account is suspended until its owner has confirmed the address that it was opened with"
    posts = [failed(engine, fake_services, Reply("refused", message=words)) for _ in range(2)]
    posts.append(failed(engine, fake_services, Reply("unknown", message="timed out"), 3))
    for arguments in (("list", "--status", "failed"), ("retry", "--since", "2026-01-01T00:00Z"), ("show", posts[0])):
        shown = redraft(*arguments, says="n\n").output
        assert max(len(line) for line in shown.splitlines()) <= 80, shown
        assert all(word in shown for word in words.split())
        assert "…" not in shown
        assert "None" not in shown


def test_what_is_late_is_listed_with_what_holds_it_up(engine: Engine) -> None:
    late = due(engine)
    closed = due(engine, claim_kind="publish", claim_token="c", claim_expires_at=factories.soon(2))
    with engine.begin() as tx:
        factories.post(tx)
    told = json.loads(redraft("stuck", "--json").stdout)
    assert {one["postId"] for one in told} == {late, closed}
    assert "being published" in redraft("stuck").output
    assert json.loads(redraft("stuck", "--after", "3600", "--json").stdout) == []
    assert "Only the first 1 are shown" in redraft("stuck", "--limit", "1").stderr
    assert redraft("stuck").stderr == ""


def test_stuck_says_the_publishers_own_answer_the_tries_and_the_next_one(
    engine: Engine, fake_services: FakeServices
) -> None:
    """Red before: it said that a worker had died of every post between two tries whose claim's time was over."""
    post = due(engine)
    fake_services.replies = [Reply("misconfigured", message="the service answered 401: token expired")] * 2
    publish_now((post, 1))
    [told] = json.loads(redraft("stuck", "--json").stdout)
    assert (told["reason"], told["triesUsed"], told["triesMost"]) == ("misconfigured", 1, 10)
    assert told["nextTryAt"] == edit_histories.moment(factories.row(engine, "posts", post).claim_expires_at)
    assert "closed to edits; next try in " in redraft("show", post).output
    expire(engine, post)
    shown = " ".join(redraft("stuck").output.split())
    assert "the publisher is set up wrongly (the service answered 401: token expired)" in shown
    assert "1 of 10 tries are used up; the next one is due now" in shown
    assert "died" not in shown
    assert "the publisher is set up wrongly" in redraft("show", post).output
    publish_now((post, 1))
    assert "2 of 10 tries" in " ".join(redraft("stuck").output.split())


def test_stuck_says_died_of_a_post_whose_worker_did(engine: Engine, fake_services: FakeServices) -> None:
    post = due(engine)
    fake_services.replies = [BROKEN]
    publish_now((post, 1))
    expire(engine, post)
    with engine.begin() as tx:
        tx.execute(text("UPDATE publish_attempts SET outcome = NULL, finished_at = NULL"))
    [told] = json.loads(redraft("stuck", "--json").stdout)
    assert told["reason"] == "died"
    assert "the worker that made try 1 died or hangs" in told["why"]


def test_failed_posts_are_listed_by_reason_time_workspace_and_account(
    engine: Engine, fake_services: FakeServices
) -> None:
    old, new = failed(engine, fake_services), failed(engine, fake_services)
    unknown = failed(engine, fake_services, Reply("unknown", message="timed out"), 3)
    change(engine, "posts", old, failed_at="sql:'2026-03-01T11:59Z'", account_id=factories.INSTAGRAM)
    waits = due(engine)

    def listed(*arguments: str) -> list[str]:
        return [one["postId"] for one in json.loads(redraft("list", *arguments, "--json").stdout)]

    assert listed("--status", "failed") == [unknown, new, old]
    assert listed("--status", "failed", "--reason", "SUSPEND") == [new, old]
    assert listed("--status", "failed", "--since", "2026-03-01T12:00Z") == [unknown, new]
    assert listed("--status", "failed", "--account", factories.INSTAGRAM) == [old]
    assert listed("--status", "failed", "--workspace", factories.WORKSPACE, "--limit", "1") == [unknown]
    assert listed("--status", "generated") == [waits]
    assert listed() == [waits, unknown, new, old]
    [first, *_] = json.loads(redraft("list", "--status", "failed", "--json").stdout)
    assert (first["reason"], first["lastAnswer"], first["maybeSent"]) == (
        "publish_outcome_unknown",
        "timed out",
        True,
    )
    shown = redraft("list", "--status", "failed", "--limit", "2")
    assert "Only the first 2 are shown" in shown.stderr
    assert redraft("list", "--status", "posted").output == "There are no such posts.\n"


@pytest.mark.parametrize("arguments", [("--reason", "x"), ("--status", "posted", "--since", "2026-01-01T00:00Z")])
def test_a_reason_and_a_time_are_asked_of_failed_posts_only(engine: Engine, arguments: tuple[str, ...]) -> None:
    refused = redraft("list", *arguments)
    assert (refused.exit_code, "--status failed" in refused.stderr) == (2, True)


def test_one_posts_story_tells_its_tries_its_edits_and_what_to_do(engine: Engine, fake_services: FakeServices) -> None:
    post = due(engine)
    with engine.begin() as tx:
        edit = factories.edit(tx, post, {"caption": "\x1b[31mred"})
    fake_services.replies = [REFUSED]
    publish_now((post, 1))
    shown = redraft("show", post).output
    key = fake_services.asked[0].key
    for words in (f"{post} in", "failed", f"try 1 of {key}: refused: suspended", edit, f"redraft posts retry {post}"):
        assert words in shown
    assert "\x1b" not in shown
    told = json.loads(redraft("show", post, "--json").stdout)
    assert (told["post"]["failureReason"], told["tries"][0]["outcome"]) == ("suspended", "refused")
    assert redraft("show", "post_nobody").exit_code == 2
    retried(post, "--by", "Kim")
    assert "put back by Kim; before: failed, suspended" in redraft("show", post).output
    (act,) = json.loads(redraft("show", post, "--json").stdout)["acts"]
    assert (act["by"], act["action"], act["before"]["failureReason"]) == ("Kim", "retry", "suspended")


def test_a_late_post_behind_a_lock_names_the_session(engine: Engine) -> None:
    home = due(engine)
    with engine.connect() as holder:
        pid = holder.execute(text("SELECT pg_backend_pid() FROM posts WHERE id = :id FOR UPDATE"), {"id": home})
        named = f"session {pid.scalar_one()} ("
        eventually(lambda: named in redraft("show", home).output, within=10)
        [stuck] = json.loads(redraft("stuck", "--json").stdout)
        assert stuck["why"].startswith(named)
        assert stuck["reason"] == "locked"
    [stuck] = json.loads(redraft("stuck", "--json").stdout)
    assert stuck["reason"] == "no_worker"


def test_an_edit_that_waits_and_brings_a_post_forward_makes_it_late(engine: Engine) -> None:
    """Red before: the post's story said only that it waits for its time."""
    with engine.begin() as tx:
        home = factories.post(tx)
        changes = {"scheduledTime": "2020-01-01T10:00", "timezone": "Europe/Paris"}
        factories.edit(tx, home, changes)
    shown = json.loads(redraft("show", home, "--json").stdout)
    assert shown["reason"] == "edit_waits"
    assert shown["why"].startswith("an edit that waits gives it a time that has passed; 1 edit waits for the post: no")


def test_what_goes_out_next_is_listed_by_time_late_posts_and_renders_included(engine: Engine) -> None:
    with engine.begin() as tx:
        late, tomorrow = (
            factories.post(tx, scheduled_time=factories.soon(-5)),
            factories.post(tx, scheduled_time=factories.soon(1500)),
        )
        soon, rendered = factories.post(tx, scheduled_time=factories.soon(60)), factories.slides(tx)
        tx.execute(
            text("UPDATE posts SET scheduled_time = :at WHERE id = :id"), {"at": factories.soon(5), "id": rendered}
        )
        factories.post(tx, status="posted", posted_at=factories.soon(-5), scheduled_time=factories.soon(-5))
    listed = json.loads(redraft("list", "--due", "24h", "--json").stdout)
    assert [one["postId"] for one in listed] == [late, rendered, soon]
    listed = json.loads(redraft("list", "--due", "2d", "--limit", "10", "--json").stdout)
    assert [one["postId"] for one in listed][-1] == tomorrow
    assert json.loads(redraft("list", "--due", "2d", "--account", factories.INSTAGRAM, "--json").stdout) == []
    for wrong in (["--due", "soon"], ["--due", "24h", "--status", "generated"]):
        assert redraft("list", *wrong).exit_code == 2
