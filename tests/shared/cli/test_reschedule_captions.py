"""Captions that are changed in a CSV: each edit names the revision that was exported, and overwrites nothing unseen."""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.cli import reschedule_captions
from shared.cli.api_client import Api
from shared.cli.reschedule_captions import CaptionEdit
from tests.shared.cli.rescheduling import command, environment, redraft
from tests.stack import Running

CLAIMED = "claim_kind = 'publish', claim_token = 'clm', claim_expires_at = now() + interval '5 min'"
TIMES = {"timezone": "Asia/Tokyo", "scheduled_time": "2031-01-02T10:00Z"}


@pytest.fixture
def api(stack: Running) -> Iterator[Api]:
    where = environment(stack)
    api = Api(where["REDRAFT_API_URL"], where["REDRAFT_API_KEY"])
    yield api
    api.close()


def posts(stack: Running, account: str, *captions: str) -> list[str]:
    return [stack.post(account_id=account, caption=caption, **TIMES) for caption in captions]


def exported(stack: Running, account: str) -> str:
    return redraft(stack, "posts", "export", "--csv", "--account", account).stdout


def caption(stack: Running, post: str) -> str:
    return str(stack.row("posts", post).caption)


def test_a_caption_that_differs_is_an_edit_and_one_line_undoes_it(stack: Running, account: str, tmp_path: Path) -> None:
    changed, same = posts(stack, account, "old words", "two\r\nlines ")
    text = exported(stack, account).replace("old words", "new words").replace("2031-01-02T19:00", "2031-01-03 19:00")
    result = command(stack, "--csv", "-", "--dry-run", stdin=text)
    assert result.exit_code == 0, result.output
    assert '"old words" -> "new words"' in result.stdout
    assert "1 caption would be changed." in result.stdout
    assert caption(stack, changed) == "old words"
    results = tmp_path / "results.csv"
    result = command(stack, "--csv", "-", "--yes", "--json", "--results", str(results), stdin=text)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout.splitlines()[-1]) == {
        "captions": {"total": 1, "applied": 1, "skipped": 0, "failed": 0}
    }
    assert (caption(stack, changed), caption(stack, same)) == ("new words", "two\r\nlines ")
    # The caption is edited first: the move changes the revision.
    assert (stack.row("posts", changed).revision, stack.row("posts", same).revision) == (3, 2)
    with results.open(newline="") as file:
        rows = [(row["postId"], row["what"], row["outcome"]) for row in csv.DictReader(file)]
    assert sorted(rows) == sorted([
        (changed, "time", "applied"), (same, "time", "applied"), (changed, "caption", "applied")
    ])  # fmt: skip
    undo = re.findall(r"Undo it with: redraft (jobs revert run_\w+)", result.stderr)[0]
    for _ in range(2):
        result = redraft(stack, *undo.split(), "--yes")
        assert result.exit_code == 0, result.output
        assert caption(stack, changed) == "old words"
        assert stack.row("posts", changed).scheduled_time.isoformat() == "2031-01-02T10:00:00+00:00"


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        ("old", "new", ("old", "new")),
        ("", "new\nline", ("", "new line")),
        ("the very same words, old", "the very same words, new", ("…me words, old", "…me words, new")),
        ("x" * 100, "y" * 100, ("x" * 31 + "…", "y" * 31 + "…")),
        ("a" * 50, "a" * 50 + "b", ("…" + "a" * 10, "…" + "a" * 10 + "b")),
    ],
)  # fmt: skip
def test_captions_are_shown_from_where_they_differ(before: str, after: str, shown: tuple[str, str]) -> None:
    assert reschedule_captions.differing(before, after) == shown


def test_a_post_that_changed_since_the_export_keeps_its_caption_and_is_told(stack: Running, account: str) -> None:
    other, mine = posts(stack, account, "exported", "mine")
    text = exported(stack, account).replace("exported", "by the planner").replace("mine", "still mine")
    answer = stack.patch(other, {"caption": "by somebody else"})
    assert answer.status_code == 200
    for arguments in (["--dry-run"], ["--yes"]):
        result = command(stack, "--csv", "-", *arguments, stdin=text)
        assert result.exit_code == 3, result.output
        assert f"1 caption skipped: {reschedule_captions.CONFLICT} ({other})" in result.stdout
    assert (caption(stack, other), caption(stack, mine)) == ("by somebody else", "still mine")


def test_a_post_that_changes_while_the_command_runs_keeps_its_caption(stack: Running, account: str, api: Api) -> None:
    (post,) = posts(stack, account, "exported")
    stack.patch(post, {"caption": "by somebody else"})
    done = reschedule_captions.send(api, [CaptionEdit(post, 1, "by the planner", "exported")], "cli_a")
    assert (done.edits, done.conflicts, done.exit_code) == ([], [post], 3)
    assert caption(stack, post) == "by somebody else"


def test_sent_again_an_edit_is_applied_once(stack: Running, account: str, api: Api) -> None:
    ids = posts(stack, account, "one", "two")
    edits = [CaptionEdit(post, 1, "new", "") for post in ids]
    for _ in range(2):
        done = reschedule_captions.send(api, edits, "cli_twice")
        assert done.edits == edits
    assert [stack.row("posts", post).revision for post in ids] == [2, 2]


def test_a_caption_that_cannot_be_is_told_before_anything_is_sent(stack: Running, account: str) -> None:
    long, gone, posted, going_out, emoji = posts(stack, account, "long", "gone", "posted", "goes", "like a pro 👇")
    text = exported(stack, account).replace(",long", "," + "x" * 2_201).replace(",posted", ",late").replace("👇", "?")
    text = text.replace(",goes", ",went")
    text = text.replace(gone, "post_of_nobody").replace(",gone", ",new")
    with stack.engine.begin() as tx:
        tx.exec_driver_sql(f"UPDATE posts SET status = 'posted', posted_at = now() WHERE id = '{posted}'")
        tx.exec_driver_sql(f"UPDATE posts SET {CLAIMED} WHERE id = '{going_out}'")
    result = command(stack, "--csv", "-", "--dry-run", stdin=text)
    assert result.exit_code == 1, result.output
    assert f"has 2,201; shorten it ({long})" in result.stdout
    assert "there is no such post (post_of_nobody)" in result.stdout
    assert f"the post is posted ({posted})" in result.stdout
    assert f"the post is being published ({going_out})" in result.stdout
    assert f"letters of it became ? when the file was saved ({emoji})" in result.stdout
    assert 'LibreOffice: "Edit filter settings", then "Unicode (UTF-8)"' in result.stdout


def test_of_a_file_that_lost_letters_no_changed_caption_is_taken_that_may_have_lost_some(
    stack: Running, account: str
) -> None:
    same, changed, without, plain = posts(stack, account, "like a pro 👇", "old ☕", "only ☕", "plain")
    text = exported(stack, account)
    text = text.replace("old", "new").replace("only ☕", "only").replace(",plain", ",plainer?")
    result = command(stack, "--csv", "-", "--yes", stdin=text.replace("☕", "?").replace("👇", "?"))
    assert result.exit_code == 1, result.output
    assert result.stdout.count("letters of it became ?") == 2
    ids = (same, changed, without, plain)
    assert [caption(stack, one) for one in ids] == ["like a pro 👇", "old ☕", "only", "plainer?"]
    # Nothing shows that this file lost letters: a person wrote the question mark.
    result = command(stack, "--csv", "-", "--yes", stdin=exported(stack, account).replace("old ☕", "new?"))
    assert (result.exit_code, caption(stack, changed)) == (0, "new?"), result.output


def test_an_undo_gives_back_a_caption_whose_question_mark_became_a_letter(
    stack: Running, account: str, api: Api
) -> None:
    (post,) = posts(stack, account, "coffee ?")
    edits = [CaptionEdit(post, 1, "coffee ☕", "coffee ?")]
    assert reschedule_captions.send(api, edits, f"cli_{post}").edits == edits
    back = reschedule_captions.undo(api, edits)
    assert (back.refused, caption(stack, post)) == ({}, "coffee ?")


def test_many_captions_are_compared_with_the_list(
    stack: Running, account: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reschedule_captions, "FEW", 1)
    ids = posts(stack, account, "one", "two", "three")
    text = exported(stack, account).replace(",two", ",2")
    result = command(stack, "--csv", "-", "--yes", stdin=text)
    assert result.exit_code == 0, result.output
    assert "1 caption changed." in result.stdout
    assert [caption(stack, post) for post in ids] == ["one", "2", "three"]
