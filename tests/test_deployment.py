"""Dockerfile and docker-compose.yml, parsed and held against the code. Docker itself is not needed."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from shared import task_names
from shared.local import commands
from shared.local.postgres import SERVER as POSTGRESQL
from shared.local.valkey import SERVER as VALKEY
from shared.settings import Settings

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE = yaml.safe_load(TEXT)
SERVICES = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
LONG = {name: service for name, service in OURS.items() if name != "migrate"}
WORKERS = {name: service for name, service in OURS.items() if service["command"][0] == "worker"}
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


def test_the_images_own_command_is_one_that_redraft_has():
    [command] = map(yaml.safe_load, re.findall(r"^CMD (\[.*\])", DOCKERFILE, re.MULTILINE))
    [entrypoint] = map(yaml.safe_load, re.findall(r"^ENTRYPOINT (\[.*\])", DOCKERFILE, re.MULTILINE))
    assert entrypoint == ["redraft"]
    assert command[0] == "api"
    assert "--host" in redraft("api", "--help").stdout


def test_every_variable_that_a_container_gets_is_a_setting():
    names = {f"REDRAFT_{name.upper()}" for name in Settings.model_fields}
    for name, service in OURS.items():
        assert {key for key in service["environment"] if key.startswith("REDRAFT_")} <= names, name
    assert set(re.findall(r"REDRAFT_[A-Z_]+(?==)", DOCKERFILE)) <= names


def test_what_operators_may_set_is_a_setting_or_a_password_of_a_server():
    names = {f"REDRAFT_{name.upper()}" for name in Settings.model_fields}
    taken = set(re.findall(r"\$\{(\w+)", TEXT))
    assert taken - names == {"REDRAFT_DB_PASSWORD", "REDRAFT_CACHE_PASSWORD"}


def test_settings_take_what_the_containers_get(monkeypatch):
    for key, value in LONG["api"]["environment"].items():
        monkeypatch.setenv(key, re.sub(r"\$\{\w+:[-?]([^}]*)\}", "given", value))
    config = Settings()
    assert urlsplit(config.database_url).scheme == "postgresql+psycopg"
    assert urlsplit(config.database_url).hostname in SERVICES
    assert urlsplit(config.redis_url).hostname in SERVICES


def test_every_queue_has_exactly_one_worker_service():
    served = [option.removeprefix("--queues=") for service in WORKERS.values() for option in service["command"][1:]]
    assert sorted(served) == sorted(task_names.QUEUES) == sorted(commands.POOLS)


def test_each_worker_is_asked_for_its_own_queues_health():
    for name, service in WORKERS.items():
        (served,) = (option.removeprefix("--queues=") for option in service["command"][1:])
        program = service["healthcheck"]["test"][-1]
        assert f"heard_from('{served}')" in program, name
        compile(program, name, "exec")


def test_a_worker_that_nobody_hears_is_unwell(redis_url):
    program = WORKERS["worker-edits"]["healthcheck"]["test"][-1]
    asked = ran([sys.executable, "-c", program], {"REDRAFT_REDIS_URL": redis_url})
    assert "Traceback" not in asked.stderr
    assert asked.returncode == 1


def test_a_worker_that_lives_is_well(processes, database_url, redis_url):
    servers = {"REDRAFT_DATABASE_URL": database_url, "REDRAFT_REDIS_URL": redis_url}
    processes.start("worker", "edits", **servers).says("ready.", within=30)
    program = WORKERS["worker-edits"]["healthcheck"]["test"][-1]
    asked = ran([sys.executable, "-c", program], servers)
    assert asked.returncode == 0, asked.stderr


def test_containers_get_longer_to_end_than_their_tasks_do():
    grace = Settings.model_fields["grace"].default
    for name, service in LONG.items():
        assert seconds(service["stop_grace_period"]) > max(grace, commands.API_GRACE), name


def test_all_wait_for_the_one_migration_and_for_healthy_servers():
    assert SERVICES["migrate"]["command"] == ["migrate"]
    for name, service in LONG.items():
        conditions = {other: said["condition"] for other, said in service["depends_on"].items()}
        assert conditions == {
            "migrate": "service_completed_successfully",
            "postgres": "service_healthy",
            "valkey": "service_healthy",
        }, name
    assert SERVICES["migrate"]["restart"] != "unless-stopped"


def test_every_service_that_others_wait_for_or_that_serves_has_a_health_check():
    for name in ("postgres", "valkey", "flower", *WORKERS):
        assert "test" in SERVICES[name]["healthcheck"], name
    assert "HEALTHCHECK" in DOCKERFILE
    assert "/readyz" in DOCKERFILE


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


def test_redis_in_the_container_is_set_up_as_the_embedded_one():
    lines = dict(line.split(maxsplit=1) for line in COMPOSE["configs"]["valkey"]["content"].splitlines())
    for name in ("appendonly", "appendfsync", "maxmemory-policy"):
        assert lines[name] == VALKEY[name]
    assert SERVICES["valkey"]["volumes"] == ["valkey:/data"]
    assert lines["dir"] == "/data"


def test_postgresql_in_the_container_has_as_much_room_as_the_embedded_one():
    command = SERVICES["postgres"]["command"]
    for name in ("shared_buffers", "max_wal_size"):
        assert f"{name}={POSTGRESQL[name]}" in command


def test_the_image_runs_as_nobody_in_particular_and_installs_by_hash():
    stages = DOCKERFILE.split("\nFROM ")
    assert len(stages) == 3
    assert re.search(r"^USER \d+:\d+$", stages[-1], re.MULTILINE)
    assert "--require-hashes" in stages[1]
    assert "pip" not in re.sub(r"#.*", "", stages[-1])
    for service in OURS.values():
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])


def test_the_image_is_made_of_files_that_are_there_and_let_in():
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        name for line in DOCKERFILE.splitlines() if line.startswith("COPY ") and "--from" not in line
        for name in line.split()[1:-1]
    }  # fmt: skip
    assert copied == let_in
    assert all((ROOT / name).exists() for name in copied)


def test_the_package_holds_what_the_roles_need_at_run_time():
    """What is not in the wheel is not in the image, though an editable install finds it."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = config["package-data"]["*"]
    assert config["packages"]["find"]["include"] == ["api*", "worker*", "shared*"]
    for room in ("api", "worker", "shared"):
        for path in (ROOT / room).rglob("*"):
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                assert any(path.match(pattern) for pattern in patterns), path
