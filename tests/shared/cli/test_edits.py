"""`redraft edits`: which edits are listed, and the story of one, as a person and as a script."""

import pytest
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from shared.cli import edit_listing, workspaces
from shared.cli import posts as posts_command
from shared.domain.ids import new_id
from shared.domain.reschedule_jobs import audit_id
from shared.store import edit_lists
from tests import factories
from tests.factories import FAILED
from tests.shared.cli.edits_command import answer, applied, edit, failed, post, redraft
from tests.waiting import eventually


def test_the_story_of_an_edit_has_its_times_and_says_what_to_do(engine: Engine) -> None:
    home = post(engine)
    done = applied(engine, home, {"caption": "a"})
    story = answer("show", done)
    row = factories.row(engine, "edits", done)
    assert story["before"] == {"caption": "first"}
    assert story["createdAt"] < story["startedAt"] < story["finalizedAt"]
    assert (story["lockWaitMs"], story["revision"], story["requestId"]) == (0, 2, row.request_id)
    told = redraft("show", done).output
    for word in ("accepted", "started", "post locked", "applied", '"first" -> "a"', "Nothing to do"):
        assert word in told


def test_lists_filter_by_status_and_post_and_are_cut_off(engine: Engine) -> None:
    one, two = post(engine), post(engine)
    first, second = failed(engine, one, {"caption": "a"}), failed(engine, two, {"caption": "b"})
    third, fourth = edit(engine, one, {"caption": "c"}), edit(engine, one, {"caption": "d"})

    def listed(*arguments: str) -> list[str]:
        return [each["editId"] for each in answer("list", *arguments)]

    assert listed() == [fourth, third, second, first]
    assert listed("--status", "failed") == [second, first]
    assert listed("--status", "queued") == [third, fourth]  # the longest waiting first
    assert listed("--post", one) == [fourth, third, first]
    assert listed("--post", one, "--status", "failed") == [first]
    assert listed("--limit", "1") == [fourth]
    assert listed("--workspace", factories.WORKSPACE, "--status", "applied") == []
    assert redraft("list", "--workspace", "nobody").exit_code == 2


def test_nothing_in_a_story_steers_the_terminal_or_gives_a_signed_url_away(engine: Engine) -> None:
    home = post(engine)
    urls = {"contentType": "video", "contentUrl": "https://cdn.example.com/b.mp4?signature=hush"}
    done = applied(engine, home, {"caption": "red \x1b[31m", **urls})
    told = redraft("show", done).output + redraft("show", done, "--json").output
    assert "hush" not in told
    assert "b.mp4?…" in told
    assert "\x1b[31m" not in redraft("show", done).output


@pytest.mark.usefixtures("engine")
def test_an_unknown_edit_is_refused_with_what_to_type() -> None:
    for verb in ("show", "requeue", "discard"):
        refused = redraft(verb, "edit_unknown")
        assert (refused.exit_code, "redraft edits list" in refused.output) == (2, True)


def test_a_list_goes_on_to_its_end_past_the_moves_of_a_bulk_job(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many rows one transaction looks at."""
    monkeypatch.setattr(edit_lists, "LOOKED_AT", 3)
    monkeypatch.setattr(edit_lists, "LOOKS", 2)
    home = post(engine)
    mine = failed(engine, home, {"caption": "mine"})
    with engine.begin() as tx:
        for number in range(20):
            moved = factories.edit(tx, home, {"move": {}})
            tx.execute(
                text(f"UPDATE edits SET {FAILED}, reschedule_id = 'rs_1', id = :audit WHERE id = :id"),
                {"id": moved, "audit": audit_id("rs_1", number)},
            )
    assert [one["editId"] for one in answer("list", "--workspace", factories.WORKSPACE)] == [mine]
    assert [one["editId"] for one in answer("list")] == [mine]
    assert len(answer("list", "--job", "rs_1")) == 20
    shown = redraft("list", "--job", "rs_1", "--limit", "7")
    assert "Only the first 7 are shown" in shown.stderr
    assert "Only the first" not in redraft("list", "--job", "rs_1", "--limit", "20").stderr


def test_a_queue_of_which_not_all_was_looked_at_is_told(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    home = post(engine)
    for _ in range(3):
        edit(engine, home, {"caption": "waits"})
    assert redraft("list", "--status", "queued").stderr == ""
    monkeypatch.setattr(edit_lists, "QUEUE_LOOKED_AT", 2)
    assert "More than 2 edits wait" in redraft("list", "--status", "queued").stderr


@pytest.mark.parametrize("width", [80, 120])
def test_a_list_takes_one_line_an_edit_on_a_terminal(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr(edit_listing, "screen_width", lambda: width)
    monkeypatch.setattr(workspaces, "screen_width", lambda: width)
    home = post(engine, post_id=new_id("post"))
    made = [failed(engine, home, {"caption": "mine"}) for _ in range(3)]
    lines = redraft("list").stdout.splitlines()
    assert max(map(len, lines)) <= width
    assert [line.split()[0] for line in lines if "failed" in line] == made[::-1]
    assert all(home in line for line in lines if "failed" in line)


def test_a_list_is_filtered_by_key_request_account_error_and_time(engine: Engine) -> None:
    mine = edit(
        engine,
        post(engine),
        {"caption": "mine"},
        FAILED.replace("'x'", "'Boom'") + ", request_id = 'trace/7', requested_by = 'studio', api_key_id = 'key_7'",
    )
    other = failed(engine, post(engine, account_id=factories.INSTAGRAM, platform="instagram"), {"caption": "other"})
    for chosen in (
        ("--key", "studio"),
        ("--key", "key_7"),
        ("--request", "trace/7"),
        ("--account", factories.TIKTOK),
        ("--error", "boom"),
        ("--reason", "INTERNAL: Boom"),
    ):
        assert [one["editId"] for one in answer("list", *chosen)] == [mine], chosen
    assert [one["editId"] for one in answer("list", "--status", "failed", "--since", "2020-01-01T00:00Z")] == [
        other,
        mine,
    ]
    assert answer("list", "--status", "failed", "--until", "2020-01-01T00:00Z") == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--account", "nobody"), "There is no account nobody"),
        (("--workspace", "nobody"), "There is no workspace nobody"),
        (("--since", "yesterday"), "--since takes a time in UTC"),
        (("--until", "now"), "--until takes a time in UTC"),
        (("--error", " "), "--error is empty"),
    ],
)
def test_a_filter_that_names_nothing_is_refused(engine: Engine, given: tuple[str, str], said: str) -> None:
    refused = redraft("list", *given)
    assert (refused.exit_code, said in refused.stderr) == (2, True)


def test_show_takes_the_id_of_a_request(engine: Engine) -> None:
    home = post(engine)
    mine = edit(engine, home, {"caption": "mine"}, "request_id = 'req_mine'")
    several = [edit(engine, home, {"caption": "x"}, "request_id = 'req_several'") for _ in range(2)]
    assert answer("show", "req_mine")["editId"] == mine
    refused = redraft("show", "req_several")
    assert refused.exit_code == 2
    assert all(f"redraft edits show {one}" in refused.stderr for one in several)
    assert redraft("show", "req_none").exit_code == 2


def test_show_names_the_account_and_tells_times_in_the_posts_zone(engine: Engine) -> None:
    home = post(engine, timezone="America/New_York")
    with engine.begin() as tx:
        tx.execute(text("UPDATE accounts SET name = 'Coffee' WHERE id = :id"), {"id": factories.TIKTOK})
    moved = applied(engine, home, {"scheduledTime": "2030-01-01T10:00", "timezone": "Asia/Tokyo"})
    shown = redraft("show", moved).stdout
    assert f"account {factories.TIKTOK} (Coffee)" in shown
    assert "2030-01-01 10:00 Asia/Tokyo" in shown
    assert "America/New_York ->" in shown
    assert answer("show", moved)["accountName"] == "Coffee"
    shown_post = CliRunner().invoke(posts_command.app, ["show", home])
    assert f"{factories.TIKTOK} (Coffee)" in shown_post.stdout
    assert "(2030-01-01 10:00 Asia/Tokyo)" in shown_post.stdout


def test_an_edit_behind_a_lock_names_the_session_and_not_nothing_to_do(engine: Engine) -> None:
    home = post(engine)
    waiting = edit(engine, home, {"caption": "x"})
    with engine.connect() as holder:
        pid = holder.execute(text("SELECT pg_backend_pid() FROM posts WHERE id = :id FOR UPDATE"), {"id": home})
        named = f"session {pid.scalar_one()} ("
        shown = eventually(lambda: said if named in (said := redraft("show", waiting).output) else None, within=10)
        assert "Nothing to do" not in shown
        assert answer("show", waiting)["waits"] == "locked"
        [listed] = answer("list", "--post", home)
        assert listed["advice"].startswith(f"It waits: {named}")
    # Nothing has it locked any more; but no worker runs here.
    assert answer("show", waiting)["waits"] == "no_worker"
