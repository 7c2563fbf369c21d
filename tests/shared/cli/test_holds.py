"""`redraft posts hold` and `redraft posts resume`, as a person and as a script."""

import pytest
from sqlalchemy import Engine, text
from typer.testing import Result

from shared.cli import post_holds
from shared.cli import posts as command
from shared.settings import settings
from shared.store import holds as holds_store
from shared.store.scope_holds import Scope
from tests import factories, holding
from tests.holding import missed
from tests.shared.cli.typed import Typed

typed = Typed(command.app)
as_json = typed.as_json


def redraft(*arguments: str, code: int = 0) -> Result:
    result = typed(*arguments)
    assert result.exit_code == code, result.output
    return result


def test_posts_are_held_and_resumed_by_name(engine: Engine) -> None:
    with engine.begin() as tx:
        post, late = factories.post(tx), factories.post(tx, scheduled_time=factories.soon(-5))
    assert redraft("hold", post, late, "--reason", "typo", "--by", "kim").stdout == "2 posts held.\n"
    stored = factories.row(engine, "posts", post)
    assert (stored.held_by, stored.held_reason) == ("kim", "typo")
    said = redraft("resume", post, late).stdout
    assert "1 post resumed." in said
    assert f"{late} is held still, of its post: missed" in said
    assert as_json("resume", late, "--missed", "publish") == {"resumed": [late], "held": {}, "left": [], "locked": []}


def test_a_post_that_does_not_wait_is_named_and_the_code_is_1(engine: Engine) -> None:
    with engine.begin() as tx:
        post = factories.post(tx)
        gone = factories.post(tx, status="posted", posted_at=factories.soon(-5))
    found = as_json("hold", post, gone, code=1)
    assert found == {"held": [post], "goingOut": [], "left": [gone], "locked": []}


@pytest.mark.parametrize("verb", ["hold", "resume"])
def test_an_unknown_post_is_named_and_the_code_is_that_of_an_unknown_account(engine: Engine, verb: str) -> None:
    with engine.begin() as tx:
        post, deleted = factories.post(tx), factories.post(tx, deleted_at=factories.soon(-5))
    said = redraft(verb, post, "post_nobody", deleted, code=2).output
    assert "There is no post post_nobody. See: redraft posts list" in said
    assert f"There is no post {deleted}." in said
    assert (factories.row(engine, "posts", post).held_at is not None) is (verb == "hold")
    assert as_json(verb, "post_nobody", code=2)["left"] == ["post_nobody"]


@pytest.mark.parametrize("verb", ["hold", "resume"])
def test_a_locked_post_is_named_and_keeps_no_other_from_its_hold(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setattr(post_holds, "PATIENCE", 0.1)
    with engine.begin() as tx:
        locked, free = factories.post(tx), factories.post(tx)
    holding.hold(engine, *([locked, free] if verb == "resume" else []))
    with engine.begin() as person:
        person.execute(text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE"), {"id": locked})
        said = " ".join(redraft(verb, locked, free, code=1).output.split())
    assert f"1 post {'held' if verb == 'hold' else 'resumed'}." in said
    assert f"{locked} is being worked on by another session, and nothing was done to it." in said
    assert "`redraft doctor` names" in said
    assert (factories.row(engine, "posts", free).held_at is None) is (verb == "resume")
    assert redraft(verb, locked).exit_code == 0


@pytest.mark.parametrize("verb", ["hold", "resume"])
def test_a_workspace_whose_claims_do_not_end_is_named(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setenv("REDRAFT_LOCK_TIMEOUT", "0.1")
    settings.cache_clear()
    if verb == "resume":
        holding.hold_scope(engine)
    with engine.begin() as claim:
        post = factories.post(claim)
        holds_store.lock_in_share(claim, [post])
        said = " ".join(redraft(verb, "--account", factories.TIKTOK, code=1).output.split())
    assert "Claims or another hold of the workspace are under way" in said
    assert "cannot be used" not in said
    redraft(verb, "--account", factories.TIKTOK)


def test_a_second_hold_without_a_reason_keeps_the_first_ones(engine: Engine) -> None:
    with engine.begin() as tx:
        post = factories.post(tx)
    for what in ((post,), ("--account", factories.TIKTOK)):
        redraft("hold", *what, "--reason", "typo")
        redraft("hold", *what)
    assert factories.row(engine, "posts", post).held_reason == "typo"
    assert as_json("hold", "--account", factories.TIKTOK)["held"]["reason"] == "typo"
    with engine.connect() as tx:
        assert tx.execute(text("SELECT count(*) FROM acts")).scalar_one() == 2


@pytest.mark.parametrize("scope", [holding.ACCOUNT, holding.WORKSPACE])
def test_publish_of_a_post_in_a_held_account_or_workspace_is_refused(engine: Engine, scope: Scope) -> None:
    with engine.begin() as tx:
        late = factories.post(tx, scheduled_time=factories.soon(-5))
        other = factories.post(tx, account_id=factories.INSTAGRAM, scheduled_time=factories.soon(-5))
    holding.hold(engine, late, other)
    holding.hold_scope(engine, scope)
    said = redraft("resume", late, "--missed", "publish", code=1).output
    assert f"{late} cannot go out: its {scope.level} is held; resume that first." in said
    assert factories.row(engine, "posts", late).held_at is not None
    found = as_json("resume", late, other, "--missed", "publish", code=1)
    both = scope is holding.WORKSPACE
    assert (found["resumed"], found["left"]) == ([], [late, other]) if both else ([other], [late])


@pytest.mark.parametrize(
    ("option", "scope_id", "of"),
    [("--account", factories.TIKTOK, "account"), ("--workspace", factories.WORKSPACE, "workspace")],
)
def test_an_account_or_a_workspace_is_held_and_resumed(engine: Engine, option: str, scope_id: str, of: str) -> None:
    with engine.begin() as tx:
        late = factories.post(tx, scheduled_time=factories.soon(-5))
        factories.post(
            tx, claim_kind="publish", claim_token="clm_1", claim_expires_at=factories.soon(), id="post_going"
        )
    held = as_json("hold", option, scope_id, "--reason", "stop", "--by", "kim")
    assert (held["held"]["of"], held["held"]["by"], held["goingOut"]) == (of, "kim", ["post_going"])
    assert "1 post was going out already" in redraft("hold", option, scope_id).stdout
    shown = as_json("show", late)
    assert (shown["reason"], shown["post"]["held"]["of"]) == ("held", of)
    said = " ".join(redraft("resume", option, scope_id).stdout.split())
    assert "1 post missed its time, and stays held until it gets a new one" in said
    assert f"redraft posts resume {option} {scope_id} --missed publish" in said
    assert missed(engine, late)
    assert as_json("resume", option, scope_id, "--missed", "publish") == {"held": None, "missed": 0, "released": 1}
    assert not missed(engine, late)


def test_show_names_no_resume_that_sends_nothing_while_the_account_is_held(engine: Engine) -> None:
    with engine.begin() as tx:
        late = factories.post(tx, scheduled_time=factories.soon(-5))
    redraft("hold", late)
    redraft("resume", late)
    assert f"redraft posts resume {late} --missed publish" in " ".join(redraft("show", late).stdout.split())
    redraft("hold", "--account", factories.TIKTOK, "--by", "kim")
    shown = as_json("show", late)
    assert shown["reason"] == "missed"
    assert "redraft posts resume" not in shown["why"]
    assert "its account is held by kim" in shown["why"]


@pytest.mark.parametrize("reason", ["two\nlines", "\x1b[31mred", "back\u202ewards"])
def test_a_reason_is_one_line_without_control_characters(engine: Engine, reason: str) -> None:
    refused = redraft("hold", "--account", factories.TIKTOK, "--reason", reason, code=2)
    assert "control characters" in refused.output


def test_a_resume_that_meets_a_locked_post_names_it_and_the_hold_stands(engine: Engine) -> None:
    with engine.begin() as tx:
        late = factories.post(tx, scheduled_time=factories.soon(-5))
    redraft("hold", "--account", factories.TIKTOK)
    with engine.begin() as person:
        person.execute(text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE"), {"id": late})
        said = " ".join(redraft("resume", "--account", factories.TIKTOK, code=1).output.split())
    assert f"Post {late} is locked" in said
    assert "the hold stands" in said


def test_publish_of_an_account_in_a_held_workspace_is_refused(engine: Engine) -> None:
    redraft("hold", "--workspace", factories.WORKSPACE)
    refused = redraft("resume", "--account", factories.TIKTOK, "--missed", "publish", code=1)
    assert "Resume the workspace first" in refused.output
    assert "held still" in redraft("resume", "--account", factories.TIKTOK).stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("hold",), ("resume",), ("hold", "post_1", "--account", "acc_1"), ("hold", "--account", "acc_nobody"),
        ("hold", "--workspace", "ws_nobody"), ("hold", "post_1", "--reason", "x" * 501),
    ],
)  # fmt: skip
def test_what_is_meant_by_nothing_or_twice_is_refused(engine: Engine, arguments: tuple[str, ...]) -> None:
    redraft(*arguments, code=2)


def test_posts_go_out_now_by_name_and_what_does_not_is_named(engine: Engine) -> None:
    with engine.begin() as tx:
        post, held = factories.post(tx), factories.post(tx, account_id=factories.INSTAGRAM)
        gone = factories.post(tx, status="posted", posted_at=factories.soon(-5))
    holding.hold(engine, held)
    said = redraft("publish", post, "--by", "kim").stdout
    with engine.connect() as tx:
        [edit] = tx.execute(text("SELECT id, requested_by, changes FROM edits")).all()
        acts = tx.execute(text("SELECT action, actor, from_state FROM acts WHERE subject_id = :id"), {"id": post}).all()
    assert f"{post}: {edit.id}" in said
    assert (edit.requested_by, edit.changes) == ("kim", {"publishNow": True})
    assert acts == [("publish", "kim", "generated")]
    refused = redraft("publish", held, gone, "--by", "kim", code=1).output
    assert f"{held}: Post {held} is held, of its post; resume that first." in " ".join(refused.split())
    assert "can be published now" in " ".join(refused.split())
    found = as_json("publish", "post_nobody", gone, code=2)
    assert [row["editId"] for row in found] == [None, None]
    assert "There is no post post_nobody" in redraft("publish", "post_nobody", code=2).output


@pytest.mark.parametrize("name", ["hold", "publish", "show"])
def test_bytes_that_are_no_utf8_are_an_unknown_post_and_the_others_go_on(engine: Engine, name: str) -> None:
    with engine.begin() as tx:
        post = factories.post(tx)
    more = () if name == "show" else (post,)
    assert "There is no post post_\\udcff." in redraft(name, "post_\udcff", *more, code=2).output
    if name == "hold":
        assert factories.row(engine, "posts", post).held_at is not None
    if name == "publish":
        with engine.connect() as tx:
            assert tx.execute(text("SELECT post_id FROM edits")).scalars().all() == [post]


def test_held_posts_are_listed_the_next_one_first(engine: Engine) -> None:
    with engine.begin() as tx:
        own, late = (
            factories.post(tx, scheduled_time=factories.soon(50)),
            factories.post(tx, scheduled_time=factories.soon(-5)),
        )
        above = factories.slides(tx, account_id=factories.INSTAGRAM, scheduled_time=factories.soon(20))
        factories.post(tx)
        factories.post(tx, status="posted", posted_at=factories.soon(-5), account_id=factories.INSTAGRAM)
    holding.hold(engine, own, late)
    holding.resume(engine, late)
    holding.hold_scope(engine, Scope(factories.WORKSPACE, factories.INSTAGRAM))
    assert [row["postId"] for row in as_json("list", "--held")] == [late, above, own]
    assert [row["postId"] for row in as_json("list", "--held", "--account", factories.INSTAGRAM)] == [above]
    assert "leave out --status" in redraft("list", "--held", "--status", "posted", code=2).output
