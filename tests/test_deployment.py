"""docker-compose.yml, resolved as Compose does and held against the code. Docker itself is not needed."""

import os
import re
import subprocess
import sys
import time
from urllib.parse import urlsplit

import pytest

from shared import task_names
from shared.local import commands
from shared.local.postgres import SERVER as POSTGRESQL
from shared.local.valkey import SERVER as VALKEY
from shared.settings import Settings
from tests import compose
from tests.compose import PASSWORDS, ROOT, TEXT
from tests.waiting import eventually

COMPOSE = compose.resolved(PASSWORDS)
SERVICES = COMPOSE["services"]
[IMAGE] = {service["image"] for service in SERVICES.values() if "build" in service}
OURS = {name: service for name, service in SERVICES.items() if service["image"] == IMAGE}
LONG = {name: service for name, service in OURS.items() if name != "migrate"}
WORKERS = {name: service for name, service in OURS.items() if service["command"][0] == "worker"}
CALLERS = {"worker-publish", "worker-render", "worker-webhooks"}
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def seconds(duration):
    found = re.fullmatch(r"(\d+)(s|m)", duration)
    assert found is not None, duration
    number, unit = found.groups()
    return int(number) * {"s": 1, "m": 60}[unit]


def redraft(*arguments):
    return ran([sys.executable, "-m", "shared.cli.main", *arguments])


def ran(command, environment=None):
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)


@pytest.mark.parametrize("name", OURS)
def test_a_services_command_is_one_that_redraft_has_with_these_options(name):
    command, *options = SERVICES[name]["command"]
    help_text = redraft(command, "--help")
    assert help_text.returncode == 0, help_text.stderr
    for option in options:
        assert option.partition("=")[0] in help_text.stdout


def test_every_variable_that_a_container_gets_is_a_setting():
    names = {f"REDRAFT_{name.upper()}" for name in Settings.model_fields}
    for name, service in OURS.items():
        assert {key for key in service["environment"] if key.startswith("REDRAFT_")} <= names, name
    assert set(re.findall(r"REDRAFT_[A-Z_]+(?==)", DOCKERFILE)) <= names


def test_what_operators_may_set_is_a_setting_or_a_password_of_a_server():
    names = {f"REDRAFT_{name.upper()}" for name in Settings.model_fields}
    taken = set(re.findall(r"\$\{(\w+)", TEXT))
    assert taken - names == {"REDRAFT_DB_PASSWORD", "REDRAFT_CACHE_PASSWORD"}


@pytest.mark.parametrize("name", OURS)
def test_settings_take_what_the_containers_get(name, monkeypatch):
    for key, value in OURS[name]["environment"].items():
        monkeypatch.setenv(key, value)
    config = Settings()
    if config.database_url:
        assert urlsplit(config.database_url).scheme == "postgresql+psycopg"
        assert urlsplit(config.database_url).hostname == "postgres"
    if config.redis_url:
        assert urlsplit(config.redis_url).hostname == "valkey"


@pytest.mark.parametrize("missing", PASSWORDS)
def test_nothing_starts_without_its_passwords(missing):
    with pytest.raises(compose.MissingError, match=missing):
        compose.resolved(PASSWORDS | {missing: ""})


def test_one_service_alone_builds_the_image():
    """Ten that build one tag at once fail on the containerd image store: "already exists"."""
    assert [name for name, service in SERVICES.items() if "build" in service] == ["migrate"]
    assert len(OURS) == 10
    assert "# syntax" not in DOCKERFILE


def test_every_other_setting_reaches_the_containers_by_a_file():
    for name, service in OURS.items():
        assert service["env_file"] == [{"path": "redraft.env", "required": False}], name
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {".env", "redraft.env"} <= set(ignored)


def test_a_role_is_told_only_what_it_needs():
    told = {name: {key.removeprefix("REDRAFT_") for key in service["environment"]} for name, service in OURS.items()}
    has = {key: {name for name in told if key in told[name]} for key in set.union(*told.values())}
    assert set(OURS) - has["DATABASE_URL"] == {"beat", "flower"}
    assert set(OURS) - has["REDIS_URL"] == {"migrate"}
    assert has["SERVICE_SECRET"] == CALLERS
    assert has["OPS_PASSWORD"] == {"api"}
    assert has["FLOWER_PASSWORD"] == {"flower"}
    # Who writes events has to know that there is a receiver.
    assert has["WEBHOOK_URL"] == {"api", *WORKERS}
    assert has["ALIVE_FILE"] == set(WORKERS)


def test_networks_let_a_service_reach_only_what_it_needs():
    on = {name: set(service["networks"]) for name, service in SERVICES.items()}
    assert {name for name, network in COMPOSE["networks"].items() if network.get("internal")} == {"database", "cache"}
    for name, service in OURS.items():
        assert ("database" in on[name]) == ("REDRAFT_DATABASE_URL" in service["environment"]), name
        assert ("cache" in on[name]) == ("REDRAFT_REDIS_URL" in service["environment"]), name
        # A port is published from a network with a way out only.
        assert ("outside" in on[name]) == (name in CALLERS or "ports" in service), name
    assert (on["postgres"], on["valkey"]) == ({"database"}, {"cache"})


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_has_no_rights_that_it_does_not_need_and_fills_neither_memory_nor_disk(name):
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}
    assert ("cap_add" in service) == (name in {"postgres", "valkey"}), "these two begin as root and become a user"


def test_the_servers_fit_into_their_memory():
    def megabytes(text):
        return int(text[: -2 if text.endswith("b") else -1]) * (1024 if "g" in text else 1)

    assert megabytes(SERVICES["valkey"]["mem_limit"]) >= 2 * megabytes(valkey_lines()["maxmemory"])
    assert megabytes(SERVICES["postgres"]["mem_limit"]) >= 2 * int(POSTGRESQL["shared_buffers"].removesuffix("MB"))


def test_every_queue_has_exactly_one_worker_service():
    served = [option.removeprefix("--queues=") for service in WORKERS.values() for option in service["command"][1:]]
    assert sorted(served) == sorted(task_names.QUEUES) == sorted(commands.POOLS)


def health_of_a_worker(alive):
    [(kind, program)] = {tuple(service["healthcheck"]["test"]) for service in WORKERS.values()}
    [(path, limit)] = re.findall(r"find (\S+) -mmin -(\S+?)\)", program)
    assert kind == "CMD-SHELL"
    assert path == WORKERS["worker-edits"]["environment"]["REDRAFT_ALIVE_FILE"]
    return float(limit) * 60, ran(["sh", "-c", program.replace(path, str(alive))]).returncode


def test_a_worker_that_is_not_heard_is_unwell(tmp_path):
    alive = tmp_path / "alive"
    limit, code = health_of_a_worker(alive)
    assert code == 1, "there is no file yet"
    for age, expected in ((0, 0), (limit - 10, 0), (limit + 10, 1)):
        alive.touch()
        os.utime(alive, (time.time() - age,) * 2)
        assert health_of_a_worker(alive)[1] == expected, age


@pytest.mark.parametrize("queue", ["edits", "publish"])
def test_a_worker_that_lives_is_well(processes, database_url, redis_url, tmp_path, queue):
    """A pool of processes, and one of threads."""
    alive = tmp_path / "alive"
    servers = {"REDRAFT_DATABASE_URL": database_url, "REDRAFT_REDIS_URL": redis_url}
    processes.start("worker", queue, REDRAFT_ALIVE_FILE=str(alive), **servers).says("ready.", within=30)
    eventually(lambda: health_of_a_worker(alive)[1] == 0, within=30)
    os.utime(alive, (0, 0))
    eventually(lambda: health_of_a_worker(alive)[1] == 0, within=30, because="it is touched again and again")


def test_the_database_is_healthy_only_when_it_serves_others():
    """While the image initialises, a server for its own use answers on the socket."""
    assert "--host=127.0.0.1" in SERVICES["postgres"]["healthcheck"]["test"]


def test_the_doctor_in_a_container_asks_flower_where_a_container_reaches_it():
    inner = urlsplit(SERVICES["api"]["environment"]["REDRAFT_FLOWER_INNER_URL"])
    assert (inner.hostname, inner.port) == ("flower", 5555)
    assert set(SERVICES["flower"]["networks"]) & set(SERVICES["api"]["networks"])


def test_containers_get_longer_to_end_than_their_tasks_do():
    grace = Settings.model_fields["grace"].default
    for name, service in LONG.items():
        assert seconds(service["stop_grace_period"]) > max(grace, commands.API_GRACE), name


def test_all_wait_for_the_one_migration_and_for_healthy_servers():
    assert SERVICES["migrate"]["command"] == ["migrate"]
    for name, service in LONG.items():
        conditions = {other: said["condition"] for other, said in service["depends_on"].items()}
        wanted = {"valkey": "service_healthy"}
        if "REDRAFT_DATABASE_URL" in service["environment"]:
            wanted |= {"migrate": "service_completed_successfully", "postgres": "service_healthy"}
        assert conditions == wanted, name
    assert SERVICES["migrate"]["restart"] != "unless-stopped"


def test_every_service_that_others_wait_for_or_that_serves_has_a_health_check():
    for name in ("postgres", "valkey", "api", "flower", *WORKERS):
        assert "test" in SERVICES[name]["healthcheck"], name
    assert "/readyz" in SERVICES["api"]["healthcheck"]["test"][-1]


def test_up_waits_for_no_check_that_never_comes():
    """Compose 2.40 ends `up --wait` with an error at a disabled check, and one in the image is one of every role."""
    assert not [name for name, service in SERVICES.items() if "disable" in service.get("healthcheck", {})]
    assert "HEALTHCHECK" not in DOCKERFILE


def test_compose_can_write_what_it_has_to_write():
    """Compose refuses to write a configuration of its own text into a read-only container."""
    written = {name for name, config in COMPOSE["configs"].items() if "content" in config}
    into = {name for name, one in SERVICES.items() if written & {config["source"] for config in one.get("configs", [])}}
    assert into == {name for name, service in SERVICES.items() if not service.get("read_only")} == {"valkey"}


def test_images_are_pinned_by_tag():
    images = [service["image"] for service in SERVICES.values()]
    images += [line.split()[1] for line in DOCKERFILE.splitlines() if line.startswith("FROM ")]
    for image in images:
        name, _, tag = image.rpartition(":")
        assert name, image
        assert re.match(r"\d+\.\d+", tag), image


def test_ports_are_open_to_this_host_alone():
    for name, service in SERVICES.items():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), name
    assert "ports" not in SERVICES["postgres"]
    assert "ports" not in SERVICES["valkey"]


def test_no_password_stands_in_the_file_and_none_has_a_default():
    for name in re.findall(r"\$\{(\w*(?:PASSWORD)\w*)", TEXT):
        assert re.findall(rf"\${{{name}(.)(.)", TEXT) != []
        assert all(found == (":", "?") for found in re.findall(rf"\${{{name}(.)(.)", TEXT)), name
    assert not re.search(
        r"(password|secret|requirepass)\s*[:=]?\s+(?!\$)[A-Za-z0-9]{6,}$", TEXT, re.IGNORECASE | re.MULTILINE
    )


def test_workers_for_edits_can_be_scaled():
    service = SERVICES["worker-edits"]
    assert not {"hostname", "container_name", "ports"} & set(service)


def test_other_workers_keep_their_names():
    names = [service["hostname"] for name, service in WORKERS.items() if name != "worker-edits"]
    assert len(names) == len(set(names)) == len(WORKERS) - 1
    assert not any("container_name" in service for service in SERVICES.values())


def valkey_lines():
    return dict(line.split(maxsplit=1) for line in COMPOSE["configs"]["valkey"]["content"].splitlines())


def test_redis_in_the_container_is_set_up_as_the_embedded_one():
    lines = valkey_lines()
    # With snapshots, one that fails makes Valkey refuse every write.
    for name in ("appendonly", "appendfsync", "maxmemory-policy", "save"):
        assert lines[name] == VALKEY[name]
    assert SERVICES["valkey"]["volumes"] == ["valkey:/data"]
    assert lines["dir"] == "/data"


def test_postgresql_in_the_container_has_as_much_room_as_the_embedded_one():
    command = SERVICES["postgres"]["command"]
    for name in ("shared_buffers", "max_wal_size"):
        assert f"{name}={POSTGRESQL[name]}" in command
