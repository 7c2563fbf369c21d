"""What has to hold before a role starts, and the one line that says so where it does not."""

import json
import sys
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from shared.cli.main import app
from shared.domain.start_rules import NAMED, StartError, contradictions, unfit
from shared.local.postgres import PostgreSQL
from shared.settings import Settings, settings
from shared.store import prerequisites
from shared.store.prerequisites import server
from tests import factories
from tests.old_postgresql import old_postgresql
from tests.ports import free_port
from tests.processes import Processes, data_dir

REDRAFT = [sys.executable, "-m", "shared.cli.main"]
NOWHERE = "redis://127.0.0.1:9/0"


def defaults(**changed: float) -> dict[str, float]:
    return {**Settings().model_dump(include=set(NAMED)), **changed}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        pytest.param({}, [], id="the defaults"),
        pytest.param({"service_timeout": 31}, ["SERVICE_TIMEOUT=31 must be at most half of REDRAFT_CLAIM_EXPIRY=60"]),
        pytest.param({"claim_expiry": 59}, ["SERVICE_TIMEOUT=30 must be at most half of REDRAFT_CLAIM_EXPIRY=59"]),
        pytest.param({"service_timeout": 40, "claim_expiry": 80}, []),
        pytest.param(
            {"service_timeout": 41, "claim_expiry": 90},
            ["SERVICE_TIMEOUT=41 must be at least 5 s below REDRAFT_GRACE=45"],
        ),
        pytest.param(
            {"grace": 20, "service_timeout": 10},
            ["TRANSACTION_TIMEOUT=15 must be more than 5 s below REDRAFT_GRACE=20"],
        ),
        pytest.param({"lock_timeout": 15}, ["LOCK_TIMEOUT=15 must be below REDRAFT_TRANSACTION_TIMEOUT=15"]),
        pytest.param(
            {"idle_in_transaction_session_timeout": 20},
            ["IDLE_IN_TRANSACTION_SESSION_TIMEOUT=20 must be below REDRAFT_TRANSACTION_TIMEOUT=15"],
        ),
        pytest.param({"horizon": 300}, ["HORIZON=300 must be below REDRAFT_VISIBILITY_TIMEOUT=300"]),
        pytest.param({"horizon": 299.5}, []),
        pytest.param(
            {"visibility_timeout": 44, "horizon": 10}, ["GRACE=45 must be below REDRAFT_VISIBILITY_TIMEOUT=44"]
        ),
        pytest.param({"rescue_period": 300}, ["RESCUE_PERIOD=300 must be below REDRAFT_VISIBILITY_TIMEOUT=300"]),
        pytest.param({"dispatch_period": 61}, ["DISPATCH_PERIOD=61 must be at most REDRAFT_HORIZON=60"]),
        pytest.param({"wait_default": 31}, ["WAIT_DEFAULT=31 must be at most REDRAFT_WAIT_MAX=30"]),
        pytest.param({"wait_default": 0, "wait_max": 0}, []),
        pytest.param(
            {"service_timeout": 50, "horizon": 400},
            [
                "SERVICE_TIMEOUT=50 must be at most half of REDRAFT_CLAIM_EXPIRY=60",
                "SERVICE_TIMEOUT=50 must be at least 5 s below REDRAFT_GRACE=45",
                "HORIZON=400 must be below REDRAFT_VISIBILITY_TIMEOUT=300",
            ],
            id="all at once",
        ),
        pytest.param({"lock_timeout": 0}, ["LOCK_TIMEOUT=0: it must be above 0"], id="0 is no limit to PostgreSQL"),
        pytest.param({"grace": -1}, ["GRACE=-1: it must be above 0"]),
        pytest.param({"horizon": float("nan")}, ["HORIZON=nan: it must be above 0"]),
        pytest.param({"publisher_keeps_keys": 7200}, []),
        pytest.param({"publisher_keeps_keys": 7199}, ["PUBLISHER_KEEPS_KEYS=7199 must be at least 7200"]),
        pytest.param({"publisher_keeps_keys": float("inf")}, ["PUBLISHER_KEEPS_KEYS=inf: it must be above 0 and fin"]),
        pytest.param({"claim_expiry": float("inf")}, ["CLAIM_EXPIRY=inf: it must be above 0 and finite"]),
    ],
)
def test_settings_that_contradict_each_other_are_named_with_their_values(
    changed: dict[str, float], said: list[str]
) -> None:
    found = contradictions(defaults(**changed))
    assert len(found) == len(said), found
    for one, words in zip(found, said, strict=True):
        assert one.startswith(f"REDRAFT_{words}")


def test_a_variable_that_holds_what_it_cannot_is_named_without_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDRAFT_HORIZON", "hushhush")
    monkeypatch.setenv("REDRAFT_TRUSTED_PROXIES", "proxy.example.com")
    with pytest.raises(StartError) as refused:
        settings()
    said = str(refused.value)
    assert "REDRAFT_HORIZON: Input should be a valid number" in said
    assert "REDRAFT_TRUSTED_PROXIES: " in said
    assert "'proxy.example.com' does not appear to be an IPv4 or IPv6 network" in said
    assert "hushhush" not in said


@pytest.mark.parametrize("name", ["REDRAFT_TRIES_NEVER_STARTED", "REDRAFT_TRIES_UNKNOWN", "REDRAFT_EDIT_ATTEMPTS"])
def test_a_limit_of_no_tries_at_all_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """With none, a post that was put back would fail without a call."""
    monkeypatch.setenv(name, "0")
    with pytest.raises(StartError, match=f"{name}: Input should be greater than or equal to 1"):
        settings()


@pytest.mark.parametrize("role", ["api", "worker", "worker --queues=edits", "beat", "flower", "migrate", "up"])
@pytest.mark.parametrize("wrong", ["settings", "database", "variable"])
def test_a_role_that_cannot_work_does_not_start_and_says_why_in_one_line(
    processes: Processes, role: str, wrong: str
) -> None:
    environment: dict[str, Any] = {"REDRAFT_REDIS_URL": NOWHERE}
    with old_postgresql("17.6") as old, data_dir() as data:
        data.close()
        arguments = ["--data-dir", str(data.path)] if role in {"up", "flower"} else []
        if role == "up":
            arguments += [f"--port={free_port()}", f"--flower-port={free_port()}"]
        environment["REDRAFT_DATABASE_URL"] = old if wrong == "database" else "postgresql+psycopg://x:y@127.0.0.1:9/z"
        if wrong == "settings":
            environment |= {"REDRAFT_SERVICE_TIMEOUT": "40", "REDRAFT_CLAIM_EXPIRY": "50"}
        if wrong == "variable":
            environment["REDRAFT_GRACE"] = "long"
        started = processes.start([*REDRAFT, *role.split(), *arguments], **environment)
        assert started.wait(within=30) == 1, started.output()
    (line,) = started.output().strip().splitlines()
    expected = {
        "settings": "REDRAFT_SERVICE_TIMEOUT=40 must be at most half of REDRAFT_CLAIM_EXPIRY=50",
        "database": "PostgreSQL 17.6 is too old: Redraft needs 18 or newer. Upgrade it",
        "variable": "REDRAFT_GRACE: Input should be a valid number",
    }
    assert expected[wrong] in line
    assert "hushhush" not in line


def test_the_version_of_a_server_is_asked_without_options_that_an_old_one_would_refuse(database_url: str) -> None:
    found = server(database_url)
    assert found is not None
    assert (unfit(*found), found.encoding) == (None, "UTF8")
    prerequisites.refuse_unfit_database(database_url)
    with old_postgresql("9.6.24") as old:
        assert server(old) == ("9.624", "")
        with pytest.raises(StartError, match="too old"):
            prerequisites.refuse_unfit_database(old)
    assert server("postgresql+psycopg://x:y@127.0.0.1:9/z") is None
    assert server("no url") is None


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_cannot_hold_every_caption_is_refused_before_anything_is_made_in_it(
    postgres: PostgreSQL, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    name = f"encoded_{encoding.lower()}"
    with psycopg.connect(postgres.url("postgres").replace("+psycopg", ""), autocommit=True) as admin:
        admin.execute(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE_PROVIDER libc LOCALE 'C'"
        )
    monkeypatch.setenv("REDRAFT_DATABASE_URL", postgres.url(name))
    monkeypatch.setenv("REDRAFT_REDIS_URL", NOWHERE)
    factories.forget_caches()
    done = CliRunner().invoke(app, ["migrate"])
    assert isinstance(done.exception, StartError)
    assert f"The database has the encoding {encoding}: Redraft needs UTF8. Make another one with" in str(done.exception)
    said = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    assert [one["code"] for one in said["findings"]] == ["unreachable_redis", "database_encoding"]


@pytest.mark.parametrize(
    ("version", "encoding", "code"),
    [
        ("18.0", "UTF8", None),
        ("18.4", "", None),
        ("19.1", "UTF8", None),
        ("", "", None),
        ("17.9", "UTF8", "postgresql_too_old"),
        ("9.624", "LATIN1", "postgresql_too_old"),
        ("18.4", "LATIN1", "database_encoding"),
        ("18.4", "SQL_ASCII", "database_encoding"),
    ],
)
def test_which_database_serves_us(version: str, encoding: str, code: str | None) -> None:
    found = unfit(version, encoding)
    assert (found.code if found else None) == code
