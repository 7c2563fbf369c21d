"""`redraft edits failures`, and requeue and discard of all that a filter means, as a person and as a script."""

from typing import Any

import pytest
import typer
from sqlalchemy import Engine, text

from shared.broker import queue
from shared.cli import edit_mending, workspaces
from shared.store import mending
from tests import factories
from tests.factories import FAILED
from tests.shared.cli.edits_command import answer, post, redraft


def edit(engine: Engine, post_id: str, caption: str, state: str = FAILED) -> str:
    with engine.begin() as tx:
        edit_id = factories.edit(tx, post_id, {"caption": caption})
        if state:
            tx.execute(text(f"UPDATE edits SET {state} WHERE id = :id"), {"id": edit_id})
    return edit_id


def statuses(engine: Engine, ids: list[str]) -> list[str]:
    return [factories.row(engine, "edits", one).status for one in ids]


def test_failures_are_counted_by_error(engine: Engine) -> None:
    home = post(engine)
    for message in ("often", "often", "seldom"):
        edit(engine, home, "a", FAILED.replace("'x'", f"'{message}'"))
    edit(engine, home, "waits", "")
    assert [(one["code"], one["message"], one["edits"], one["posts"]) for one in answer("failures")] == [
        ("internal", "often", 2, 1),
        ("internal", "seldom", 1, 1),
    ]
    shown = redraft("failures").stdout
    assert "internal: often" in shown
    assert "3 failed edits in all." in shown
    assert "redraft edits requeue --error internal" in shown
    assert [one["edits"] for one in answer("failures", "--error", "seld")] == [1]
    assert "No failed edit matches." in redraft("failures", "--error", "never").stdout


def test_the_count_and_what_would_be_overwritten_come_first_and_no_leaves_all_as_it_is(engine: Engine) -> None:
    homes = [post(engine), post(engine)]
    ids = [edit(engine, home, "mine") for home in homes]
    edit(engine, homes[0], "later", "")
    said_no = redraft("requeue", "--error", "internal", says="n\n")
    assert said_no.exit_code == 1
    for words in (
        "2 failed edits of 2 posts.",
        "2 internal: x",
        "1 edit would overwrite later changes of 1 post.",
        f"Posts edited since: {homes[0]}",
        "Requeue 2 edits?",
    ):
        assert words in said_no.output
    assert statuses(engine, ids) == ["failed", "failed"]


def test_all_that_a_filter_means_are_requeued_rung_for_and_kept_with_the_name(engine: Engine) -> None:
    homes = [post(engine) for _ in range(3)]
    ids = [edit(engine, home, "mine") for home in homes]
    other = edit(engine, homes[0], "other", FAILED.replace("'internal'", "'oddity'"))
    assert queue.free_capacity("edits") == 1000
    done = redraft("requeue", "--error", "internal", "--by", "kim", says="y\n")
    assert (done.exit_code, "3 of 3 edits are queued again." in done.stdout) == (0, True)
    assert statuses(engine, [*ids, other]) == ["queued"] * 3 + ["failed"]
    assert queue.free_capacity("edits") < 1000
    with engine.connect() as tx:
        kept = tx.execute(text("SELECT actor, action, subject_id FROM acts")).all()
    assert sorted(kept) == sorted(("kim", "requeue", one) for one in ids)
    assert "requeued by kim" in redraft("show", ids[0]).stdout


def test_what_has_changed_since_the_question_is_left_and_the_command_is_run_again_for_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    homes = [post(engine), post(engine)]
    ids = [edit(engine, home, "mine") for home in homes]
    asked = typer.confirm

    def meanwhile(*given: Any, **options: Any) -> bool:
        edit(engine, homes[0], "came in between", "")
        return bool(asked(*given, **options))

    monkeypatch.setattr(typer, "confirm", meanwhile)
    left = redraft("requeue", "--workspace", factories.WORKSPACE, says="y\n")
    assert left.exit_code == 1
    assert "1 of 2 edits is queued again." in left.stdout
    assert f"try again: {ids[0]}" in left.stderr
    assert statuses(engine, ids) == ["failed", "queued"]
    assert answer("requeue", "--workspace", factories.WORKSPACE, "--yes") == [
        {"editId": ids[0], "done": True, "why": None}
    ]


def test_failed_and_queued_edits_are_discarded_by_filter(engine: Engine) -> None:
    home = post(engine)
    failed, queued = edit(engine, home, "a"), edit(engine, home, "b", "")
    said = redraft("discard", "--key", "tests", says="y\n")
    assert "1 failed edit of 1 post." in said.stdout
    assert "1 of 1 edit is discarded." in said.stdout
    assert statuses(engine, [failed, queued]) == ["rejected", "queued"]
    assert [one["editId"] for one in answer("discard", "--status", "queued", "--yes")] == [queued]
    assert statuses(engine, [failed, queued]) == ["rejected", "rejected"]


def test_a_script_that_finds_nothing_gets_an_empty_list(engine: Engine) -> None:
    assert answer("requeue", "--error", "never", "--yes") == []
    assert redraft("discard", "--error", "never").stdout == "No failed edit matches.\n"


@pytest.mark.parametrize("verb", ["requeue", "discard"])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), "Which edits?"),
        (("edit_1", "--error", "x"), "Which edits?"),
        (("--error", "x", "--json"), "give --yes too"),
        (("--error", ""), "--error is empty"),
        (("--account", "nobody"), "There is no account nobody"),
    ],
)
def test_what_means_no_edits_or_all_of_them_by_mistake_is_refused(
    engine: Engine, verb: str, given: tuple[str, ...], said: str
) -> None:
    failed = edit(engine, post(engine), "mine")
    refused = redraft(verb, *given)
    assert (refused.exit_code, said in refused.stderr) == (2, True)
    assert statuses(engine, [failed]) == ["failed"]


def test_more_than_one_command_takes_are_told_and_left_for_the_next(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edit_mending, "MOST", 3)
    ids = [edit(engine, post(engine), "mine") for _ in range(5)]
    said = redraft("requeue", "--error", "internal", says="y\n")
    assert "there are more. Run the command again" in said.stdout
    assert statuses(engine, ids) == ["queued"] * 3 + ["failed"] * 2
    assert len(answer("requeue", "--error", "internal", "--yes")) == 2


def test_a_command_that_postgresql_ends_half_way_says_how_far_it_came(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mending, "TOGETHER", 2)
    ids = [edit(engine, post(engine), "mine") for _ in range(5)]
    with engine.begin() as other:
        other.execute(text("SELECT FROM edits WHERE id = :id FOR UPDATE"), {"id": ids[3]})
        ended = redraft("requeue", "--error", "internal", "--yes")
    assert ended.exit_code == 1
    assert "Before that 2 of 5 edits had been done. Run the command again" in ended.stderr
    assert statuses(engine, ids) == ["queued"] * 2 + ["failed"] * 3
    assert len(answer("requeue", "--error", "internal", "--yes")) == 3


def test_the_commands_fit_a_terminal_of_80_columns(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspaces, "screen_width", lambda: 80)
    home = post(engine)
    edit(engine, home, "mine", FAILED.replace("'x'", f"'{'long words ' * 20}'"))
    edit(engine, home, "later", "")
    for arguments in (("failures",), ("requeue", "--error", "long"), ("discard", "--error", "long")):
        shown = redraft(*arguments, says="n\n").stdout
        assert max(map(len, shown.splitlines())) <= 80, shown
