"""The preview of a bulk job: what a planner can check, at 80 columns."""

import json
from hashlib import sha256

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from shared.cli.main import app
from shared.cli.reschedule_preview import Digest
from tests import factories
from tests.shared.cli.rescheduling import at_a_terminal, command, environment
from tests.stack import Running


def row(number: int, **more: str) -> dict[str, str]:
    at = f"2031-01-{number % 28 + 1:02}T10:00:00Z"
    return {"postId": f"post_{number:02}", "outcome": "applied", "before": "2030-12-01T00:00:00Z", "after": at} | more


@pytest.mark.parametrize("count", [0, 1, 5, 6, 9, 10, 11, 28])
def test_the_first_and_the_last_five_by_time_in_whatever_order_results_come(count: int) -> None:
    digest = Digest()
    for number in sorted(range(count), key=lambda one: one * 17 % 29):
        digest.add(row(number))
    shown = [move.post_id for move in [*digest.first, *digest.last]]
    ids = [f"post_{number:02}" for number in range(count)]
    assert shown == (ids if count <= 10 else ids[:5] + ids[-5:])


def test_what_is_skipped_is_on_no_day_and_what_stays_is_on_one_and_warnings_are_counted() -> None:
    digest = Digest()
    digest.add(row(1, outcome="skipped", after=""))
    digest.add(row(2, after="2030-12-01T00:00:00Z"))
    digest.add(row(3, warning="same_minute"))
    assert [move.post_id for move in digest.first] == ["post_03"]
    assert (digest.moved, digest.warnings) == (1, {"same_minute": (1, ["post_03"])})
    assert sum(digest.before.values()) == sum(digest.after.values()) == 2


def test_a_planner_sees_days_zones_accounts_captions_and_counts(stack: Running, account: str) -> None:
    for day in range(1, 13):
        stack.post(
            account_id=account, caption=f"caption {day}\nand more of it than fits a line", timezone="America/New_York",
            scheduled_time=f"2031-03-{day:02}T01:30Z",
        )  # fmt: skip
    result = command(stack, "--account", account, "--shift", "P1D", "--dry-run")
    assert result.exit_code == 0, result.output
    shown = result.stdout.splitlines()
    assert shown[0] == "Fri 2031-02-28 20:30 -> Sat 2031-03-01 20:30  America/New_York"
    assert account in shown[1]
    assert '"caption 1 and more of it than…"' in shown[1]
    assert shown[10] == "… 2 more …"
    # The clocks went forward on 9 March: the wall clock is kept.
    assert shown[19] == "Tue 2031-03-11 21:30 -> Wed 2031-03-12 21:30  America/New_York"
    days = shown[shown.index("day in America/New_York           before   after") + 1 :]
    assert days[0].split() == ["Fri", "2031-02-28", "1", "0"]
    assert days[12].split() == ["Wed", "2031-03-12", "0", "1"]
    assert "12 of 12 posts would be moved." in shown
    assert max(map(len, shown)) <= 80


def test_posts_that_have_their_time_already_are_not_counted_as_moved(stack: Running, account: str) -> None:
    at = {"account_id": account, "timezone": "Asia/Tokyo"}
    moves, there, also_there, zone = (
        stack.post(scheduled_time=f"2031-03-0{day}T00:00Z", **at) for day in (1, 2, 3, 4)
    )  # fmt: skip
    posted = stack.post(status="posted", posted_at=factories.soon(-5), **at)
    lines = [f"{moves},2031-04-01 09:00,Asia/Tokyo", f"{there},2031-03-02 09:00,Asia/Tokyo"]
    lines += [f"{also_there},2031-03-03 09:00,Asia/Tokyo", f"{zone},2031-03-04 00:00,Europe/London"]
    text = "\n".join(["postId,scheduledTime,timezone", *lines, f"{posted},2031-04-02 09:00,Asia/Tokyo"])
    counts = ["2 of 5 posts {}moved.", "2 posts have their times already.", "1 skipped: it has been posted already"]
    for arguments, words in (["--dry-run"], "would be "), (["--yes"], ""):
        result = command(stack, "--csv", "-", *arguments, stdin=text)
        assert result.exit_code == 3, result.output
        assert all(line.format(words) in result.stdout for line in counts), result.output
    assert "Undo it with: " in result.stdout
    # Sent once more, nothing is left to do, and nothing to ask or to undo.
    text = text[: text.rindex("\n")]
    for arguments in ["--dry-run"], ["--yes"]:
        result = command(stack, "--csv", "-", *arguments, stdin=text)
        assert (result.exit_code, "4 posts have their times already." in result.stdout) == (0, True), result.output
        assert "Undo it with: " not in result.stdout


def test_a_post_that_gets_another_zone_only_is_said_since_no_line_shows_it(stack: Running, account: str) -> None:
    at = {"account_id": account, "timezone": "Asia/Tokyo"}
    there, zone = (stack.post(scheduled_time=f"2031-03-0{day}T00:00Z", **at) for day in (1, 2))
    lines = f"{there},2031-03-01 09:00,Asia/Tokyo\n{zone},2031-03-02 00:00,Europe/London\n"
    result = command(stack, "--csv", "-", "--dry-run", stdin=f"postId,scheduledTime,timezone\n{lines}")
    assert "1 of 2 posts would be moved." in result.stdout, result.output
    assert "1 post would get another zone at the same instant." in result.stdout


def test_a_time_that_occurs_twice_is_told(stack: Running, account: str) -> None:
    post = stack.post(account_id=account)
    lines = f"postId,scheduledTime,timezone\n{post},2031-10-26 02:30,Europe/Paris\n"
    result = command(stack, "--csv", "-", "--dry-run", stdin=lines)
    assert "The clocks go back over 1 time; of the two, the first is meant." in result.stderr
    assert "-> Sun 2031-10-26 02:30  Europe/Paris" in result.stdout


def test_a_key_for_bulk_jobs_alone_previews_without_names_and_words(stack: Running, account: str) -> None:
    post = stack.post(account_id=account)
    with stack.engine.begin() as tx:
        tx.execute(
            text("""INSERT INTO api_keys (id, workspace_id, name, secret_hash, hint, scopes)
                    VALUES ('key_bulk', :workspace, 'bulk', :hash, 'bulk', ARRAY['bulk'])"""),
            {"workspace": factories.WORKSPACE, "hash": sha256(b"sk_test_bulk").digest()},
        )
    env = environment(stack) | {"REDRAFT_API_KEY": "sk_test_bulk"}
    arguments = ["reschedule", "--account", account, "--shift", "P1D", "--dry-run"]
    result = CliRunner().invoke(app, arguments, env=env)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[1] == f"    {post}"


def test_words_of_strangers_cannot_move_the_cursor(stack: Running, account: str) -> None:
    stack.post(account_id=account, caption="\x1b[2Jgone [bold]not bold[/bold]")
    with at_a_terminal(stack, "--account", account, "--shift", "P1D", "--dry-run") as terminal:
        assert terminal.code() == 0
        assert "\x1b[2J" not in terminal.shown()
        assert "[bold]not" in terminal.shown()


def test_json_of_a_dry_run_leaves_standard_output_to_machines(stack: Running, account: str) -> None:
    stack.post(account_id=account, scheduled_time=factories.soon(3_000))
    result = command(stack, "--account", account, "--shift", "P1D", "--dry-run", "--json")
    assert json.loads(result.stdout)["applied"] == 1
    assert "->" in result.stderr
