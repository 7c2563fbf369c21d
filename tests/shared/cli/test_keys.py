"""`redraft workspaces`, `accounts` and `keys`, as a person and as a script use them."""

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from sqlalchemy import Engine, create_engine, pool, text
from typer.testing import CliRunner, Result

from shared.cli import accounts, workspaces
from shared.cli import keys as keys_command
from shared.settings import settings
from shared.store import keys
from tests.processes import Processes

COMMANDS = {"workspaces": workspaces.app, "accounts": accounts.app, "keys": keys_command.app}
SECRET = re.compile(r"sk_[\w-]{43}")


def redraft(command: str, *arguments: str) -> Result:
    return CliRunner().invoke(COMMANDS[command], list(arguments))


def answer(command: str, *arguments: str) -> Any:
    """What a script gets."""
    result = redraft(command, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def engine(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setenv("REDRAFT_DATABASE_URL", database_url)
    settings.cache_clear()
    return create_engine(database_url, poolclass=pool.NullPool)


@pytest.fixture
def home(engine: Engine) -> str:
    with engine.begin() as tx:
        return keys.create_workspace(tx, "Harbor Coffee")


def find(engine: Engine, secret: str) -> keys.Key:
    with engine.begin() as tx:
        [found] = keys.find_keys(tx, [keys.hash_of(secret)]).values()
    return found.key


def test_a_workspace_an_account_and_a_key_are_made_with_three_commands(engine: Engine) -> None:
    home = answer("workspaces", "create", "Harbor Coffee")["workspaceId"]
    account = answer("accounts", "add", "Harbor Coffee", "TikTok", "harbor")
    made = answer("keys", "create", home, "ci")
    assert (account["workspaceId"], account["platform"]) == (home, "tiktok")
    key = find(engine, made["secret"])
    assert (key.workspace_id, key.name, key.rate_limit) == (home, "ci", 6000)
    assert key.scopes == {"posts:read", "posts:write", "bulk"}
    assert [one["workspaceId"] for one in answer("workspaces", "list")] == [home]
    assert [one["accountId"] for one in answer("accounts", "list", home)] == [account["accountId"]]


@pytest.mark.usefixtures("home")
def test_a_person_sees_the_secret_once_on_a_line_of_its_own_and_a_sentence_that_says_so(engine: Engine) -> None:
    result = redraft("keys", "create", "Harbor Coffee", "ci", "--rate-limit", "60", "--scope", "posts:read")
    assert result.exit_code == 0
    [secret] = [line.strip() for line in result.output.splitlines() if SECRET.fullmatch(line.strip())]
    assert len(SECRET.findall(result.output)) == 1
    assert "shown this once" in result.output
    key = find(engine, secret)
    assert (key.scopes, key.rate_limit) == (frozenset({"posts:read"}), 60)
    listed = redraft("keys", "list").output + redraft("keys", "list", "--json").output
    assert secret not in listed
    assert secret[-4:] in listed


def test_a_script_gets_nothing_but_json_on_standard_output_and_the_sentence_beside_it(
    engine: Engine, home: str
) -> None:
    result = redraft(
        "keys", "create", home, "ci", "--no-rate-limit", "--scope", "bulk", "--scope", "posts:write", "--json"
    )
    made = json.loads(result.stdout)
    assert (made["scopes"], made["rateLimit"]) == (["posts:write", "bulk"], None)
    assert "shown this once" in result.stderr
    assert find(engine, made["secret"]).rate_limit is None


def test_a_revoked_key_opens_nothing_and_is_listed_as_revoked(engine: Engine, home: str) -> None:
    made = answer("keys", "create", home, "ci")
    first = answer("keys", "revoke", made["keyId"])
    with engine.begin() as tx:
        assert keys.find_keys(tx, [keys.hash_of(made["secret"])]) == {}
    assert answer("keys", "revoke", made["keyId"]) == first
    [listed] = answer("keys", "list", home)
    assert listed["revokedAt"] == first["revokedAt"] is not None
    assert first["revokedAt"] in redraft("keys", "list").output


def test_a_key_with_an_end_says_it_when_it_is_made_and_in_the_list_with_its_last_use(engine: Engine, home: str) -> None:
    said = redraft("keys", "create", home, "ci", "--expires", "90d").output
    made = answer("keys", "create", home, "other", "--expires", "2030-01-01T00:00Z")
    assert made["expiresAt"] == "2030-01-01T00:00:00Z"
    first, other = answer("keys", "list", home)
    assert f"until {first['expiresAt']}" in said
    assert (other["expiresAt"], other["lastUsedAt"]) == ("2030-01-01T00:00:00Z", None)
    with engine.begin() as tx:
        keys.write_use(tx, [other["keyId"]])
    [lasts] = [one["lastUsedAt"] for one in answer("keys", "list", home) if one["name"] == "other"]
    listed = redraft("keys", "list", home).output
    assert lasts in listed
    assert "never" in listed
    assert first["expiresAt"] in listed


@pytest.mark.usefixtures("engine")
def test_on_a_terminal_of_80_columns_each_key_is_a_row_with_its_id_whole_and_times_are_relative(
    home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = answer("keys", "create", home, "importer", "--expires", "90d")["keyId"]
    answer("keys", "create", home, "the longest name " * 5)
    monkeypatch.setattr(keys_command, "screen_width", lambda: 80)
    monkeypatch.setattr(workspaces, "screen_width", lambda: 80)
    lines = redraft("keys", "list").output.splitlines()
    assert max(map(len, lines)) <= 80
    [line] = [line for line in lines if key in line]
    assert all(part in line for part in ("importer", "never", "in 89 d"))
    assert any("the longest" in line and "…" in line for line in lines), lines
    assert "revoked" not in lines[1]


NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "ends"),
    [
        (None, None),
        ("90d", NOW + timedelta(days=90)),
        (" 48h ", NOW + timedelta(hours=48)),
        ("12w", NOW + timedelta(weeks=12)),
        ("3653d", NOW + timedelta(days=3653)),
        ("2026-03-01T12:01Z", NOW + timedelta(minutes=1)),
        ("2026-12-31T12:00:00Z", datetime(2026, 12, 31, 12, tzinfo=UTC)),
        ("2026-03-01T12:00Z", "over"),
        ("2026-02-28T12:00Z", "over"),
        ("3654d", "within ten years"),
        ("999999w", "within ten years"),
        ("9999-12-31T23:59Z", "within ten years"),
        ("0d", "like 90d"),
        ("90", "like 90d"),
        ("", "like 90d"),
        ("-1d", "like 90d"),
        ("1y", "like 90d"),
        ("2026-12-31", "like 90d"),
        ("2026-12-31T12:00+02:00", "like 90d"),
        ("9" * 100_000 + "d", "like 90d"),
    ],
)
def test_when_a_key_ends(given: str | None, ends: datetime | str | None) -> None:
    if isinstance(ends, str):
        with pytest.raises(ValueError, match=ends):
            keys_command.end_of(given, NOW)
    else:
        assert keys_command.end_of(given, NOW) == ends


@pytest.mark.usefixtures("engine")
def test_a_secret_given_in_place_of_an_id_is_not_repeated(home: str) -> None:
    secret = answer("keys", "create", home, "ci")["secret"]
    result = redraft("keys", "revoke", secret)
    assert result.exit_code == 2
    assert secret not in result.output
    assert "keys list" in result.output


@pytest.mark.usefixtures("engine")
def test_an_unknown_workspace_is_answered_with_the_known_ones(home: str) -> None:
    for command in (
        ("keys", "create", "Harbour", "ci"),
        ("accounts", "add", "Harbour", "tiktok", "h"),
        ("keys", "list", "Harbour"),
    ):
        result = redraft(*command)
        assert result.exit_code == 2
        assert f"{home} (Harbor Coffee)" in result.stderr
        assert result.stdout == ""


@pytest.mark.usefixtures("engine")
def test_without_any_workspace_the_message_says_how_to_make_one() -> None:
    result = redraft("keys", "create", "Harbor", "ci")
    assert (result.exit_code, "redraft workspaces create" in result.stderr) == (2, True)
    for command in COMMANDS:
        assert "yet" in redraft(command, "list").stdout
        assert answer(command, "list") == []


def test_an_id_goes_before_a_name_and_no_name_can_look_like_an_id(engine: Engine, home: str) -> None:
    with engine.begin() as tx:
        keys.create_workspace(tx, home)
    answer("accounts", "add", home, "instagram", "harbor")
    with engine.begin() as tx:
        assert len(keys.accounts_of(tx, home)) == 1
    assert redraft("workspaces", "create", "ws_1").exit_code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("workspaces", "create", "Harbor Coffee"),
        ("workspaces", "create", " "),
        ("workspaces", "create", "x" * 101),
        ("workspaces", "create", "bell\a"),
        ("workspaces", "create", "\udcff"),
        ("accounts", "add", "Harbor Coffee", "facebook", "harbor"),
        ("accounts", "add", "Harbor Coffee", "tiktok", ""),
        ("keys", "create", "Harbor Coffee", "taken"),
        ("keys", "create", "Harbor Coffee", "ci", "--scope", "everything"),
        ("keys", "create", "Harbor Coffee", "ci", "--rate-limit", "0"),
        ("keys", "create", "Harbor Coffee", "ci", "--rate-limit", "2147483648"),
        ("keys", "create", "Harbor Coffee", "ci", "--rate-limit", "60", "--no-rate-limit"),
        ("keys", "create", "Harbor Coffee", "ci", "--expires", "2020-01-01T00:00Z"),
        ("keys", "create", "Harbor Coffee", "ci", "--expires", "soon"),
        ("keys", "revoke", "key_nobody"),
    ],
)
def test_bad_arguments_end_with_2_say_why_and_change_nothing(
    engine: Engine, home: str, arguments: tuple[str, ...]
) -> None:
    answer("keys", "create", home, "taken")

    def rows() -> list[Any]:
        with engine.begin() as tx:
            return [
                tx.execute(text(f"SELECT * FROM {name} ORDER BY id")).all()
                for name in ("workspaces", "accounts", "api_keys")
            ]

    before = rows()
    result = redraft(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr) > 20
    assert rows() == before


@pytest.mark.usefixtures("engine")
def test_names_with_markup_are_shown_as_they_are_and_a_pipe_gets_a_row_on_one_line(home: str) -> None:
    name = "[red]the longest name that anybody gave to a key of theirs[/red]"
    answer("keys", "create", home, name)
    [line] = [line for line in redraft("keys", "list").output.splitlines() if name in line]
    assert "posts:read posts:write bulk" in line
    assert "6,000" in line


def test_with_no_database_named_the_one_of_the_running_stack_is_used(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = redraft("workspaces", "list")
    assert result.exit_code == 2
    assert "REDRAFT_DATABASE_URL" in result.stderr
    assert "redraft up" in result.stderr
    for folder in (tmp_path / ".redraft", tmp_path / "elsewhere"):
        folder.mkdir()
        (folder / "stack.json").write_text(json.dumps({"databaseUrl": database_url}), encoding="utf-8")
        answer("workspaces", "create", folder.name, "--data-dir", str(folder))
    assert {one["name"] for one in answer("workspaces", "list")} == {".redraft", "elsewhere"}
    (tmp_path / ".redraft" / "stack.json").write_text("[]", encoding="utf-8")
    result = redraft("workspaces", "list")
    assert (result.exit_code, "cannot be read" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("url", "code", "says"),
    [
        ("postgresql+psycopg://redraft:hunter2@127.0.0.1:1/redraft", 1, "127.0.0.1:1"),
        ("hunter2@example.com", 2, "postgresql+psycopg://user:password@host:port/name"),
        ("nosuch+driver://redraft:hunter2@127.0.0.1/redraft", 2, "postgresql+psycopg://user:password@host:port/name"),
    ],
)
def test_a_database_that_is_not_there_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch, url: str, code: int, says: str
) -> None:
    monkeypatch.setenv("REDRAFT_DATABASE_URL", url)
    settings.cache_clear()
    result = redraft("workspaces", "list")
    assert result.exit_code == code
    assert says in result.stderr
    assert "hunter2" not in result.output


@pytest.mark.parametrize(
    "missing", ["DROP TABLE workspaces CASCADE", "ALTER TABLE workspaces RENAME COLUMN name TO called"]
)
def test_a_database_that_lacks_what_this_version_needs_is_told_to_be_migrated(engine: Engine, missing: str) -> None:
    with engine.begin() as tx:
        tx.execute(text(missing))
    result = redraft("workspaces", "list")
    assert (result.exit_code, "redraft migrate" in result.stderr) == (1, True)


def test_the_three_are_commands_of_redraft_in_a_real_process(
    processes: Processes, database_url: str, engine: Engine
) -> None:
    def real(*arguments: str) -> tuple[int | None, str]:
        main = [sys.executable, "-m", "shared.cli.main"]
        process = processes.start(main, *arguments, REDRAFT_DATABASE_URL=database_url)
        process.wait(within=30)
        return process.returncode, process.output()

    assert real("workspaces", "create", "Harbor Coffee")[0] == 0
    assert real("accounts", "add", "Harbor Coffee", "tiktok", "harbor")[0] == 0
    code, output = real("keys", "create", "Harbor Coffee", "ci")
    assert code == 0
    assert find(engine, SECRET.findall(output)[0]).name == "ci"
    code, output = real("keys", "create", "Harbour", "ci")
    assert (code, "Harbor Coffee" in output) == (2, True)


def test_the_commands_import_nothing_heavy_before_they_run() -> None:
    import subprocess  # noqa: PLC0415

    script = (
        "import sys, shared.cli.keys, shared.cli.accounts; print(sorted({'sqlalchemy', 'psycopg'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_the_scopes_that_the_command_offers_are_those_of_the_store() -> None:
    assert tuple(keys_command.Scope) == keys.SCOPES


def test_every_command_takes_json() -> None:
    for app in COMMANDS.values():
        for command in typer.main.get_command(app).commands.values():  # type: ignore[attr-defined]
            assert "--json" in [option for parameter in command.params for option in parameter.opts], command.name


@pytest.mark.parametrize("command", ["workspaces", "accounts", "keys"])
def test_each_table_fits_80_columns_with_whole_ids_and_a_row_a_line(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    home = answer("workspaces", "create", "A workspace with a name " + "x" * 60)["workspaceId"]
    ids = {"workspaces": home, "accounts": answer("accounts", "add", home, "tiktok", "y" * 90)["accountId"]}
    ids["keys"] = answer("keys", "create", home, "z" * 90)["keyId"]
    monkeypatch.setattr(workspaces, "screen_width", lambda: 80)
    shown = redraft(command, "list").output
    lines = [line for line in shown.splitlines() if line.strip()]
    assert max(map(len, lines)) <= 80, shown
    # A heading, a rule and one row.
    assert len(lines) == 3, shown
    assert ids[command] in lines[2]
    assert any(when in lines[2] for when in ("ago", "just now", "never")), shown
    assert "T" in answer(command, "list")[0]["createdAt"]


def test_json_keeps_letters_and_escapes_what_would_steer_a_terminal(engine: Engine) -> None:
    result = redraft("workspaces", "create", "Café Ñandú", "--json")
    assert "Café Ñandú" in result.stdout
    with engine.begin() as tx:
        tx.execute(text("UPDATE workspaces SET name = :name"), {"name": "a\x1b[31m\x9b31m"})
    shown = redraft("workspaces", "list", "--json").stdout
    assert "\x1b" not in shown
    assert "\x9b" not in shown
    assert json.loads(shown)[0]["name"] == "a\x1b[31m\x9b31m"
