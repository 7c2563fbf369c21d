"""`redraft posts`: what is late, one post's story, and another try, as a person and as a script."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine, text
from typer.testing import CliRunner, Result

from shared.broker import queue
from shared.cli import post_retries, workspaces
from shared.cli import posts as command
from shared.domain import edit_histories
from shared.domain.service_answers import Reply
from tests import factories
from tests.waiting import eventually
from tests.worker.fake_services import (
    MADE,
    FakeServices,
    attempts,
    change,
    expire,
    fake_services,
    publish_now,
    render_now,
)
from worker import apply

__all__ = ["fake_services"]

REFUSED = Reply("refused", message="suspended")
BROKEN = Reply("server_error", message="503")


def redraft(*arguments: str, says: str | None = None) -> Result:
    return CliRunner().invoke(command.app, list(arguments), input=says)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, database_url: str, redis_url: str) -> Iterator[Engine]:
    with factories.set_up(monkeypatch, database_url, redis_url) as engine:
        yield engine


@pytest.fixture
def rung(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What is sent: (task, args)."""
    rung: list[tuple[str, Any]] = []

    def send(task: str, args: Any, **_: Any) -> bool:
        rung.append((task, args))
        return True

    monkeypatch.setattr(queue, "send", send)
    return rung


def retried(*arguments: str, code: int = 0) -> dict[str, str | None]:
    result = redraft("retry", *arguments, "--yes", "--json")
    assert result.exit_code == code, result.output
    return {one["postId"]: one["back"] for one in json.loads(result.stdout)}


def due(engine: Engine, **columns: Any) -> str:
    with engine.begin() as tx:
        return factories.post(tx, scheduled_time=factories.soon(-5), **columns)


def failed(engine: Engine, fake_services: FakeServices, reply: Reply = REFUSED, tries: int = 1) -> str:
    post = due(engine)
    fake_services.replies = [reply] * tries
    for _ in range(tries):
        publish_now((post, 1))
        if factories.row(engine, "posts", post).claim_kind:
            expire(engine, post)
    assert factories.row(engine, "posts", post).status == "failed"
    return post


def test_a_refused_post_is_due_again_open_to_edits_and_keeps_its_key_while_its_body_stays(
    engine: Engine, fake_services: FakeServices, rung: list[Any]
) -> None:
    post = failed(engine, fake_services)
    assert retried(post) == {post: "due"}
    assert rung == [("posts.publish", [[[post, 1]]])]
    stored = factories.row(engine, "posts", post)
    assert (stored.status, stored.claim_kind, stored.failure_reason, stored.failed_at) == (
        "generated",
        None,
        None,
        None,
    )
    assert (stored.revision, stored.enqueued_revision, stored.retry_at) == (3, 1, None)
    assert publish_now((post, 1))[0] == {post: "done"}
    first, second = fake_services.asked
    assert (first.key, first.body, second.attempt) == (second.key, second.body, 2)


def test_a_post_mended_by_an_edit_after_its_retry_goes_out_under_a_new_key(
    engine: Engine, fake_services: FakeServices
) -> None:
    post = failed(engine, fake_services)
    retried(post)
    with engine.begin() as tx:
        factories.edit(tx, post, {"caption": "mended"})
    assert publish_now((post, 1))[0] == {post: "done"}
    assert fake_services.asked[0].key != fake_services.asked[1].key


@pytest.mark.parametrize(("reply", "tries"), [(Reply("unknown"), 3), (BROKEN, 10)], ids=["unknown", "unavailable"])
def test_a_post_that_may_have_gone_out_comes_back_closed_to_edits_under_its_old_key_and_body(
    engine: Engine, fake_services: FakeServices, rung: list[Any], reply: Reply, tries: int
) -> None:
    post = failed(engine, fake_services, reply, tries)
    assert retried(post) == {post: "closed"}
    assert rung == [("posts.publish", [[[post, 1]]])]
    with engine.begin() as tx:
        edit = factories.edit(tx, post, {"caption": "another"})
    apply.apply_edits([post])
    assert factories.row(engine, "edits", edit).error_details[0]["message"] == "being published"
    assert publish_now((post, 1))[0] == {post: "done"}
    assert len({(asked.key, asked.body) for asked in fake_services.asked}) == 1
    assert fake_services.asked[-1].attempt == tries + 1


def test_tries_before_a_retry_do_not_count_against_the_post(engine: Engine, fake_services: FakeServices) -> None:
    post = failed(engine, fake_services, Reply("unknown"), 3)
    retried(post)
    fake_services.replies = [Reply("unknown")] * 2
    for _ in range(2):
        assert publish_now((post, 1))[0] == {post: "unknown"}
        expire(engine, post)
    assert publish_now((post, 1))[0] == {post: "done"}
    assert [row.forgiven for row in attempts(engine, post)] == [True] * 3 + [False] * 3


def test_a_post_that_failed_in_its_render_is_rendered_again(
    engine: Engine, fake_services: FakeServices, rung: list[Any]
) -> None:
    with engine.begin() as tx:
        slides = factories.slides(tx, content_revision=4)
    fake_services.replies = [REFUSED]
    render_now(slides, 4)
    assert retried(slides) == {slides: "render"}
    assert rung == [("posts.render", [slides, 4])]
    stored = factories.row(engine, "posts", slides)
    assert (stored.render_outcome, stored.render_message, stored.render_answered_at) == (None, None, None)
    fake_services.usual = MADE
    assert render_now(slides, 4)[0] == "done"


def test_posts_are_chosen_by_reason_and_by_when_they_failed(engine: Engine, fake_services: FakeServices) -> None:
    old, new = failed(engine, fake_services), failed(engine, fake_services)
    unknown = failed(engine, fake_services, Reply("unknown"), 3)
    change(engine, "posts", old, failed_at="sql:'2026-03-01T11:59Z'")
    change(engine, "posts", new, failed_at="sql:'2026-03-01T12:00Z'")
    assert retried("--reason", "publish_outcome_unknown") == {unknown: "closed"}
    assert retried("--reason", "suspended", "--since", "2026-03-01T12:00Z") == {new: "due"}
    assert retried("--since", "2026-01-01T00:00Z") == {old: "due"}
    assert retried("--since", "2026-01-01T00:00Z") == {}


def test_a_reason_matches_a_part_and_workspace_and_account_narrow_the_choice(
    engine: Engine, fake_services: FakeServices
) -> None:
    here, there, other = (failed(engine, fake_services) for _ in range(3))
    change(engine, "posts", there, account_id=factories.INSTAGRAM)
    with engine.begin() as tx:
        factories.workspace(tx, "ws_other", "_other", "sk_test_other")
    change(engine, "posts", other, workspace_id="ws_other")
    assert retried("--reason", "SUSPEND", "--account", factories.INSTAGRAM) == {there: "due"}
    assert retried("--reason", "banned") == {}
    assert retried("--workspace", "ws_other") == {other: "due"}
    assert redraft("retry", "--workspace", "nobody", "--yes").exit_code == 2
    # A variable that was never set must not choose every failed post.
    assert redraft("retry", "--reason", "", "--not-sent", "--yes").exit_code == 2
    assert retried("--account", factories.TIKTOK) == {here: "due"}


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


def test_a_retry_keeps_what_it_overwrites_and_who_did_it(engine: Engine, fake_services: FakeServices) -> None:
    post = failed(engine, fake_services)
    before = factories.row(engine, "posts", post)
    retried(post, "--by", "Kim")
    with engine.connect() as tx:
        (act,) = tx.execute(text("SELECT * FROM acts"))
    assert (act.actor, act.api_key_id, act.action) == ("Kim", None, "retry")
    assert (act.subject, act.subject_id, act.workspace_id, act.from_state) == (
        "post",
        post,
        factories.WORKSPACE,
        "failed",
    )
    assert abs((act.at - datetime.now(UTC)).total_seconds()) < 60
    # PostgreSQL leaves the noughts at a fraction's end away.
    assert datetime.fromisoformat(act.before.pop("failedAt")) == before.failed_at
    assert act.before == {
        "status": "failed",
        "failureReason": "suspended",
        "failureClass": "refused",
        "failureMessage": "suspended",
        "revision": 2,
        "retryAt": None,
        "renderTries": 0,
        "idempotencyKey": fake_services.asked[0].key,
    }


def test_a_post_whose_key_the_publisher_may_have_forgotten_is_left_and_the_command_says_what_to_do(
    engine: Engine, fake_services: FakeServices
) -> None:
    old, new = failed(engine, fake_services, Reply("unknown"), 3), failed(engine, fake_services)
    with engine.begin() as tx:
        tx.execute(
            text("UPDATE publish_attempts SET started_at = now() - interval '3 days' WHERE post_id = :id"), {"id": old}
        )
    shown = " ".join(redraft("show", old).output.split())
    assert "Its key is older than the publisher must remember, so a plain retry leaves it as it is." in shown
    assert (shown.count("posts retry"), f"redraft posts retry {old} --not-sent" in shown) == (1, True)
    assert json.loads(redraft("show", old, "--json").stdout)["failure"]["keyTooOld"]
    result = redraft("retry", old, new, "--yes")
    assert result.exit_code == 1
    assert "1 of 2 failed posts are tried again." in result.output
    said = " ".join(result.output.split())
    assert "1 is left as it is: it may have gone out, and its key is older than the publisher must remember." in said
    assert f"If it did not go out: redraft posts retry {old} --not-sent" in said
    assert "1 of these will be left as failed: the key is older than the publisher must remember" in said
    assert "have changed" not in said
    assert factories.row(engine, "posts", old).status == "failed"
    failed(engine, fake_services)
    asked = redraft("retry", "--since", "2026-01-01T00:00Z", says="n\n").output
    assert "Try 1 of 2 again? [y/N]" in asked
    assert "are tried under their old keys" not in asked
    # Of posts that stay as they are nothing is asked.
    for arguments in ((old,), (old, "--yes"), ("--reason", "outcome_unknown")):
        alone = redraft("retry", *arguments)
        assert alone.exit_code == 1
        assert (
            alone.stderr.split()
            == (
                "None can be tried again. It may have gone out, and its key is too old. Look at the platform first. "
                f"If it did not go out: redraft posts retry {old} --not-sent"
            ).split()
        )
        assert "again?" not in alone.output
    answer = redraft("retry", old, "--yes", "--json")
    assert json.loads(answer.stdout) == [{"postId": old, "done": False, "back": None, "why": "key_too_old"}]
    assert retried(old, "--not-sent") == {old: "due"}


def test_only_the_operators_word_opens_a_post_that_may_have_gone_out_and_it_is_kept(
    engine: Engine, fake_services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    post = failed(engine, fake_services, Reply("unknown"), 3)
    monkeypatch.setattr("getpass.getuser", lambda: "robin")
    assert retried(post, "--not-sent") == {post: "due"}
    with engine.begin() as tx:
        acts = tx.execute(text("SELECT actor, action FROM acts")).all()
        edit = factories.edit(tx, post, {"caption": "another"})
    assert acts == [("robin", "retry_not_sent")]
    apply.apply_edits([post])
    assert factories.row(engine, "edits", edit).status == "applied"
    assert [row.not_sent for row in attempts(engine, post)] == [True] * 3
    assert publish_now((post, 1))[0] == {post: "done"}
    assert fake_services.asked[-1].key != fake_services.asked[0].key


def test_how_many_is_said_first_and_how_many_may_have_gone_out(engine: Engine, fake_services: FakeServices) -> None:
    failed(engine, fake_services)
    post = failed(engine, fake_services, Reply("unknown", message="timed out"), 3)
    first, rest = redraft("retry", "--since", "2026-01-01T00:00Z", "--yes").output.split("2 failed posts.\n")
    assert "unknown: timed out" in " ".join(first.split())
    assert rest.startswith("  1 unknown: timed out\n  1 refused: suspended\n")
    assert "1 of them may have gone out: those are tried under their old keys, and closed to edits." in rest
    assert "If you know that it did not go out: --not-sent.\n" in rest
    assert f"{post} may have gone out: it is tried again" in rest


def test_of_many_retried_posts_the_sum_is_said(engine: Engine, fake_services: FakeServices) -> None:
    for _ in range(post_retries.NAMED + 1):
        failed(engine, fake_services)
    said = redraft("retry", "--reason", "suspended", "--yes").output
    assert said.endswith("6 of 6 failed posts are tried again.\n")
    assert "is due again" not in said


def test_where_no_failed_post_is_meant_nothing_is_counted(engine: Engine) -> None:
    said = redraft("retry", "--reason", "nosuch", "--yes")
    assert (said.exit_code, said.output) == (0, 'No failed post has "nosuch" in class, last words or reason.\n')
    assert redraft("retry", "--account", "acc_1", "--yes").output == "No failed post matches.\n"


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


def test_a_post_that_was_tried_again_since_it_was_seen_is_left_alone(
    engine: Engine, fake_services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator's word that it did not go out is about the tries that the operator has seen."""
    post = failed(engine, fake_services, Reply("unknown"), 3)
    preview = post_retries.preview

    def meanwhile(*given: Any, **named: Any) -> None:
        preview(*given, **named)
        change(engine, "posts", post, revision=9)

    monkeypatch.setattr(post_retries, "preview", meanwhile)
    result = redraft("retry", post, "--not-sent", "--yes")
    assert (result.exit_code, factories.row(engine, "posts", post).status) == (1, "failed")
    assert post in result.output


def test_posts_that_did_not_fail_are_named_and_left_alone(engine: Engine, fake_services: FakeServices) -> None:
    post, other = failed(engine, fake_services), due(engine)
    before = factories.row(engine, "posts", other)
    assert retried(post, other, "post_nobody", code=1) == {post: "due", other: None, "post_nobody": None}
    said = redraft("retry", other, "post_nobody", "--yes")
    assert said.exit_code == 1
    assert said.output == (
        f"There is no post post_nobody.\n{other} did not fail; `redraft posts show POST` says how one stands.\n"
    )
    told = json.loads(redraft("retry", other, "post_nobody", "--yes", "--json").stdout)
    assert {one["postId"]: one["why"] for one in told} == {other: "did_not_fail", "post_nobody": "no_such_post"}
    assert factories.row(engine, "posts", other) == before


def test_a_post_that_somebody_holds_is_left_and_named(engine: Engine, fake_services: FakeServices) -> None:
    post, held = failed(engine, fake_services), failed(engine, fake_services)
    with engine.begin() as person:
        person.execute(text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE"), {"id": held})
        assert retried(post, held, code=1) == {post: "due", held: None}
    assert factories.row(engine, "posts", held).status == "failed"


def test_a_person_sees_which_and_is_asked(engine: Engine, fake_services: FakeServices) -> None:
    post = failed(engine, fake_services)
    refused = redraft("retry", post, says="n\n")
    assert (refused.exit_code, factories.row(engine, "posts", post).status) == (1, "failed")
    assert post in refused.output
    assert "suspended" in refused.output
    agreed = redraft("retry", post, says="y\n")
    assert (agreed.exit_code, factories.row(engine, "posts", post).status) == (0, "generated")
    assert f"{post} is due again." in agreed.output


@pytest.mark.parametrize(
    "arguments",
    [(), ("post_1", "--reason", "x"), ("post_1", "--json"), ("--since", "yesterday"), ("--since", "2026-03-01T12:00")],
)
def test_what_cannot_be_meant_is_refused_with_what_to_do(engine: Engine, arguments: tuple[str, ...]) -> None:
    result = redraft("retry", *arguments)
    assert result.exit_code == 2
    assert result.stderr.strip()


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


def test_posts_that_wait_are_tried_at_once_when_their_service_is_well_again(
    engine: Engine, fake_services: FakeServices, rung: list[Any]
) -> None:
    login = Reply("misconfigured", message="the service answered 401: token expired")
    posts = [due(engine) for _ in range(2)]
    for post in posts:
        fake_services.replies = [login]
        publish_now((post, 1))
    rung.clear()
    shown = redraft("retry", "--waiting", says="y\n")
    assert shown.exit_code == 0, shown.output
    assert "2 posts wait for the next try. The last answers:" in shown.output
    assert "2 the service answered 401: token expired" in shown.output
    assert "2 of 2 are tried now." in shown.output
    assert rung == [("posts.publish", [[[post, 1] for post in sorted(posts)]])]
    # A second time finds none.
    again = redraft("retry", "--waiting", "--yes", "--json")
    assert (again.exit_code, json.loads(again.stdout)) == (0, [])
    assert "No post waits for another try" in redraft("retry", "--waiting").output
    named = redraft("retry", posts[0], "--waiting", "--yes")
    assert (named.exit_code, "wait for no such try" in named.stderr) == (1, True)
    assert redraft("retry", "--waiting", "--not-sent").exit_code == 2


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
