"""The whole of Redraft on one machine: which processes, in which order, with which environment, and where they are."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from shared.local import commands
from shared.local.datadir import STACK_FILE, DataDir, free_port, port_is_free, write_private
from shared.local.errors import LocalError
from shared.local.postgres import PostgreSQL
from shared.local.supervisor import Child, Supervisor
from shared.local.valkey import Valkey, answers
from shared.settings import Settings
from shared.store.prerequisites import refuse_unfit_database

HOST: Final = "127.0.0.1"
# A higher rank stops first: no child loses a server that it still needs. The servers have rank 0.
REFERENCE, FLOWER, WORKERS, EDGES = 1, 2, 3, 4
# Seconds at Ctrl-C. A worker that is killed then loses nothing, and a person waits at the terminal.
GRACE: Final[Mapping[int, float]] = {REFERENCE: 2, FLOWER: 5, WORKERS: 10, EDGES: 5}
START_WITHIN: Final = 60.0
HEAD_START: Final = 1.5
WORKERS_WITHIN: Final = 15.0
FLOWER_WITHIN: Final = 10.0
# A child that died so often before it ever answered will not answer.
HOPELESS: Final = 4


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What `redraft up` was asked for."""

    port: int = 8000
    flower_port: int = 5555
    demo: bool = False
    reference_services: bool = False


@dataclass(kw_only=True)
class Places:
    """Where everything is, as stack.json and the terminal say it."""

    database_url: str
    redis_url: str
    api_url: str
    flower_url: str
    flower_user: str
    flower_password: str
    ops_url: str
    ops_user: str
    ops_password: str
    api_key: str | None = None

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> "Places":
        """From the content of stack.json. Raises KeyError where a name is missing."""
        return cls(**{name: said[_camel(name)] for name in cls.__dataclass_fields__})

    def json(self) -> str:
        """The content of stack.json."""
        pairs = {
            "apiUrl": self.api_url,
            "apiKey": self.api_key,
            "flowerUrl": self.flower_url,
            "flowerUser": self.flower_user,
            "flowerPassword": self.flower_password,
            "opsUrl": self.ops_url,
            "opsUser": self.ops_user,
            "opsPassword": self.ops_password,
            "databaseUrl": self.database_url,
            "redisUrl": self.redis_url,
        }
        return json.dumps(pairs, indent=2) + "\n"


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


@dataclass
class Stack:
    """One run of everything. Made with a data folder that is held; `begin` is what the supervisor runs."""

    plan: Plan
    data: DataDir
    config: Settings
    ready: Callable[[Places], None]
    places: Places = field(init=False)
    postgres: PostgreSQL | None = None
    valkey: Valkey | None = None

    def __post_init__(self) -> None:
        """Raises LocalError for a port that is taken and for servers that this machine has no binaries for."""
        self.data_file(STACK_FILE).unlink(missing_ok=True)  # what an earlier, killed run left
        self._refuse_taken_ports()
        if not self.config.database_url:
            self.postgres = PostgreSQL(self.data)
        if not self.config.redis_url:
            self.valkey = Valkey(self.data)
        api_url = f"http://{HOST}:{self.plan.port}"
        self.places = Places(
            database_url=self.postgres.url() if self.postgres else self.config.database_url,
            redis_url=self.valkey.url() if self.valkey else self.config.redis_url,
            api_url=api_url,
            flower_url=f"http://{HOST}:{self.plan.flower_port}",
            flower_user=self.config.flower_user,
            flower_password=self.config.flower_password or self.data.secret("flowerPassword"),
            ops_url=f"{api_url}/ops",
            ops_user=self.config.ops_user,
            ops_password=self.config.ops_password or self.data.secret("opsPassword"),
        )
        self._reference_port = free_port() if self.plan.reference_services else None
        self.environment = self._environment()

    def data_file(self, name: str) -> Path:
        return self.data.path / name

    def _refuse_taken_ports(self) -> None:
        if self.plan.port == self.plan.flower_port:
            raise LocalError(f"--port and --flower-port are both {self.plan.port}; give Flower another one.")
        for option, port in (("--port", self.plan.port), ("--flower-port", self.plan.flower_port)):
            if not port_is_free(port, HOST):
                raise LocalError(
                    f"Port {port} is in use by another program. Choose another one with {option}, "
                    f"for example {option} {free_port()}, or stop that program."
                )

    def _environment(self) -> dict[str, str]:
        """What every role gets: the caller's environment, and where things are."""
        ours = {
            "REDRAFT_DATABASE_URL": self.places.database_url,
            "REDRAFT_REDIS_URL": self.places.redis_url,
            "REDRAFT_FLOWER_URL": self.places.flower_url,
            "REDRAFT_OPS_USER": self.places.ops_user,
            "REDRAFT_OPS_PASSWORD": self.places.ops_password,
            # Our pipe is no terminal, but a person reads the other end of it.
            "REDRAFT_LOG_FORMAT": "console" if self.config.log_format == "auto" else self.config.log_format,
            # What a killed process had said already is in the pipe, not in its buffer.
            "PYTHONUNBUFFERED": "1",
        }
        if self._reference_port is not None:
            url = f"http://{HOST}:{self._reference_port}"
            ours |= {
                "REDRAFT_PUBLISHER_URL": f"{url}/publish",
                "REDRAFT_WEBHOOK_URL": f"{url}/webhooks",
                "REDRAFT_RENDERER_URL": f"{url}/render",
                "REDRAFT_SERVICE_SECRET": self.config.service_secret or self.data.secret("serviceSecret"),
            }
        return {**os.environ, **ours}

    def role(self, name: str, rank: int, argv: list[str], **extra: str) -> Child:
        return Child(
            name=name,
            argv=argv,
            environment={**self.environment, **extra},
            cwd=str(commands.ROOT),
            grace=GRACE[rank],
            rank=rank,
        )

    async def begin(self, supervisor: Supervisor) -> None:
        """Start everything, as parallel as is safe, then write stack.json and call `ready`. Raises LocalError.

        On two cores the imports of ten Python processes are what takes the time: what the first edit needs goes first.
        """
        # The imports that the tables need take as long as initdb does, on the other core.
        importing = asyncio.create_task(asyncio.to_thread(__import__, "shared.store.migrating"))
        await self._start_valkey(supervisor)
        # Before the workers take work: it shows only tasks whose events it heard.
        supervisor.start(self._flower())
        await self._start_postgres(supervisor)
        await importing
        await asyncio.to_thread(self._fill_database)
        serving = commands.api(port=self.plan.port, graceful=int(GRACE[EDGES]) - 1)
        places = commands.api_places(self.plan.port, self.config.api_processes)
        supervisor.start(*(self.role(name, EDGES, serving, **place) for name, place in places.items()))
        if (reference := self._reference_port) is not None:
            argv = [sys.executable, "-m", "tests.reference_services", f"--port={reference}", "--tame=1"]
            supervisor.start(self.role("reference", REFERENCE, argv))
            await self._until(supervisor, "reference", lambda: not port_is_free(reference, HOST))
        await self._await_flower(supervisor)
        first, *others = commands.POOLS
        supervisor.start(self._worker(first))
        await self._until(supervisor, next(iter(places)), lambda: _http(f"{self.places.api_url}/readyz") == 200)
        await self._head_start(supervisor, first)
        beat = replace(self.role("beat", EDGES, commands.beat()), unsaid=("beat: Starting",))
        supervisor.start(*map(self._worker, others), beat)
        await self._until(supervisor, "Redis", lambda: answers(self.places.redis_url))
        write_private(self.data_file(STACK_FILE), self.places.json())
        # The last lines are what a person reads first, so the start's own must be over.
        await asyncio.gather(*(self._head_start(supervisor, name, WORKERS_WITHIN) for name in others))
        self.ready(self.places)

    def end(self) -> None:
        """After the last child: what stack.json says is true no more."""
        self.data_file(STACK_FILE).unlink(missing_ok=True)

    async def _start_valkey(self, supervisor: Supervisor) -> None:
        if self.valkey is None:
            await self._until(supervisor, "Redis", lambda: answers(self.places.redis_url))
            return
        self.valkey.prepare()
        supervisor.start(self.valkey.child())
        await self._until(supervisor, "valkey", self.valkey.answers)

    async def _start_postgres(self, supervisor: Supervisor) -> None:
        if self.postgres is None:
            await self._until(supervisor, "PostgreSQL", self._database_answers)
            # It may not have answered yet when this start began.
            await asyncio.to_thread(refuse_unfit_database, self.places.database_url)
            return
        await asyncio.to_thread(self.postgres.prepare)
        supervisor.start(self.postgres.child())
        await self._until(supervisor, "postgres", self.postgres.answers)
        await asyncio.to_thread(self.postgres.create_database)

    def _fill_database(self) -> None:
        from shared.store.migrating import migrate  # noqa: PLC0415 - 0.6 s, imported above while the servers start

        # An embedded server is reached directly, whatever else the environment names.
        migrate((self.config.database_url and self.config.database_direct_url) or self.places.database_url)
        if self.plan.demo:
            from shared.local.demo import seed  # noqa: PLC0415 - as above

            # The same key at every start, kept beside the other secrets: a newcomer's script goes on working.
            secret = f"sk_{self.data.secret('demoKey')}"
            self.places.api_key = seed(self.places.database_url, secret=secret)

    def _flower(self) -> Child:
        try:
            password = commands.flower_environment(self.places.flower_user, self.places.flower_password)
        except ValueError as error:
            raise LocalError(f"{error} Change REDRAFT_FLOWER_USER or REDRAFT_FLOWER_PASSWORD.") from error
        argv = commands.flower(port=self.plan.flower_port, history=self.data_file("flower"))
        child = self.role("flower", FLOWER, argv, **password)
        # It asks workers for their state and complains while there are none yet.
        return replace(child, unsaid=("Inspect method",))

    def _worker(self, queue: str) -> Child:
        return self.role(queue, WORKERS, commands.worker(queue))

    def _database_answers(self) -> bool:
        import psycopg  # noqa: PLC0415 - imported with shared.store.db

        with suppress(psycopg.OperationalError):
            psycopg.connect(self.places.database_url.replace("+psycopg", "", 1), connect_timeout=2).close()
            return True
        return False

    async def _await_flower(self, supervisor: Supervisor) -> None:
        """Wait for Flower, but not for ever: Redraft works without it (docs/faults.md, fault 21)."""
        url = f"{self.places.flower_url}/healthcheck"
        try:
            await self._until(supervisor, "flower", lambda: _http(url) == 200, within=FLOWER_WITHIN)
        except LocalError as error:
            supervisor.say("redraft", f"going on without Flower: {error}")

    async def _head_start(self, supervisor: Supervisor, name: str, within: float = HEAD_START) -> None:
        """Leave a worker alone until it says that it is ready, for `within` seconds at most."""
        for _ in range(int(within / 0.05)):
            if any("ready" in line for line in supervisor.last_words(name)):
                return
            await asyncio.sleep(0.05)

    async def _until(
        self, supervisor: Supervisor, name: str, condition: Callable[[], bool], *, within: float = START_WITHIN
    ) -> None:
        """Wait for a child, or a server that is not ours, to answer. Raises LocalError when there is no hope."""
        deadline = time.monotonic() + within
        ours = name in supervisor.names()
        while not await asyncio.to_thread(condition):
            if ours and supervisor.deaths(name) >= HOPELESS:
                words = "\n  ".join(supervisor.last_words(name))
                raise LocalError(f"{name} does not stay up. Its last words:\n  {words}")
            if time.monotonic() > deadline:
                what = f"{name} does not answer after {within:.0f} s"
                raise LocalError(
                    f"{what}; its output above should say why."
                    if ours
                    else f"{what}: check REDRAFT_DATABASE_URL and REDRAFT_REDIS_URL, and that both servers run."
                )
            await asyncio.sleep(0.05)


def _http(url: str) -> int:
    """The status of a GET, 0 if there is no answer."""
    import http.client  # noqa: PLC0415 - 40 ms that `redraft --help` should not pay
    import urllib.error  # noqa: PLC0415
    import urllib.request  # noqa: PLC0415

    # A proxy of the caller's environment must not be asked for loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException):
        return 0
