"""`redraft posts retry`: another try for posts that failed or wait, which are meant, and what is kept of it."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine, text

from shared.broker import queue
from shared.cli import post_retries
from shared.domain.service_answers import Reply
from tests import factories
from tests.shared.cli.failed_posts import BROKEN, REFUSED, due, failed, redraft, retried
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


@pytest.fixture
def rung(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What is sent: (task, args)."""
    rung: list[tuple[str, Any]] = []

    def send(task: str, args: Any, **_: Any) -> bool:
        rung.append((task, args))
        return True

    monkeypatch.setattr(queue, "send", send)
    return rung


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
