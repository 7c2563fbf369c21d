"""A running Redraft for tests: real API and worker processes on a database and a Valkey of their own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from sqlalchemy import Engine, text

from tests import factories
from tests.loopback import LOOPBACK
from tests.ports import free_port
from tests.processes import Process, Processes, planted_api
from tests.waiting import eventually


class Running:
    """The stack of one test or module. `http` is a client with the key of `tests/factories.py`."""

    def __init__(self, processes: Processes, database_url: str, redis_url: str, **environment: str) -> None:
        self.processes = processes
        self.environment = {"REDRAFT_DATABASE_URL": database_url, "REDRAFT_REDIS_URL": redis_url} | environment
        self.engine: Engine = factories.own_engine(database_url)
        self.api: Process | None = None
        self.workers: dict[str, Process] = {}
        self.http = httpx.Client(**LOOPBACK)
        with self.engine.begin() as tx:
            factories.workspace(tx)

    def close(self) -> None:
        """Close the client and the engine. The processes belong to `processes`."""
        self.http.close()
        self.engine.dispose()

    def start_api(self) -> "Running":
        """Start the API, or another one; `http` talks to the newest."""
        api = self.processes.start("api", **self.environment)
        self.api = api
        self.http.close()
        self.http = httpx.Client(
            base_url=api.url, headers={"Authorization": f"Bearer {factories.SECRET}"}, timeout=40, **LOOPBACK
        )

        def up() -> bool:
            assert api.running, api.output()
            try:
                return httpx.get(f"{api.url}/healthz", **LOOPBACK).status_code == 200
            except httpx.TransportError:
                return False

        eventually(up, within=30, because="the API answers")
        return self

    def start_planted(self, module: str, **environment: str) -> Process:
        """An API beside the other, with what a module of tests plants in it; `http` does not talk to it."""
        port = free_port()
        api = self.processes.start(planted_api(module, port), **self.environment | environment)
        api.port = port
        api.says("Uvicorn running on", within=30)
        return api

    def start_worker(self, queue: str = "edits", *arguments: str) -> Process:
        """Start a worker for one queue and wait until it takes work."""
        worker = self.processes.start("worker", queue, *arguments, **self.environment)
        self.workers[queue] = worker
        worker.says("ready.", within=30)
        return worker

    def start_beat(self) -> Process:
        return self.processes.start("beat", **self.environment)

    def patch(self, post_id: str, body: Any, **headers: str) -> httpx.Response:
        return self.http.patch(f"/v1/posts/{post_id}", json=body, headers=headers)

    def post(self, **columns: Any) -> str:
        with self.engine.begin() as tx:
            return factories.post(tx, **columns)

    def slides(self, **columns: Any) -> str:
        with self.engine.begin() as tx:
            return factories.slides(tx, **columns)

    def row(self, table: str, row_id: str) -> Any:
        return factories.row(self.engine, table, row_id)

    def scalar(self, statement: str, **given: Any) -> Any:
        with self.engine.connect() as tx:
            return tx.execute(text(statement), given).scalar()

    def edits_of(self, post_id: str) -> list[Any]:
        with self.engine.connect() as tx:
            return list(tx.execute(text("SELECT * FROM edits WHERE post_id = :id ORDER BY seq"), {"id": post_id}))


@contextmanager
def running(database_url: str, redis_url: str, *queues: str, **environment: str) -> Iterator[Running]:
    """An API and a worker for each of `queues`, all of it gone afterwards."""
    processes = Processes()
    stack = Running(processes, database_url, redis_url, **environment)
    try:
        workers = [stack.processes.start("worker", queue, **stack.environment) for queue in queues]
        stack.workers = dict(zip(queues, workers, strict=True))
        stack.start_api()
        for worker in workers:
            worker.says("ready.", within=30)
        yield stack
    except BaseException:
        print(processes.report())
        raise
    finally:
        stack.close()
        processes.close()
