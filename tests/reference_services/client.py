"""The reference services as a test starts them, makes them misbehave and reads them."""

import sys
from pathlib import Path
from typing import Any

import httpx

from tests.loopback import LOOPBACK
from tests.ports import free_port
from tests.processes import Process, Processes
from tests.waiting import eventually

SECRET = "whsec_reference"


class Reference:
    """A running publisher, renderer and receiver of webhooks. `environment` is what a worker needs to call it."""

    def __init__(
        self, processes: Processes, *, delay: float = 0.0, journal: Path | None = None, tame: int | None = None
    ) -> None:
        self.processes = processes
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._arguments = [f"--port={self.port}", f"--delay={delay}", *([f"--journal={journal}"] if journal else [])]
        self._arguments += [f"--tame={tame}"] if tame else []
        self.process = self.start()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "REDRAFT_PUBLISHER_URL": f"{self.url}/publish",
            "REDRAFT_RENDERER_URL": f"{self.url}/render",
            "REDRAFT_SERVICE_SECRET": SECRET,
        }

    @property
    def webhooks(self) -> dict[str, str]:
        return {"REDRAFT_WEBHOOK_URL": f"{self.url}/webhooks"}

    def start(self) -> Process:
        """Start it, or start it again where it was, and wait until it answers."""
        command = [sys.executable, "-m", "tests.reference_services"]
        self.process = self.processes.start(command, *self._arguments, REDRAFT_SERVICE_SECRET=SECRET)

        def answers() -> bool:
            assert self.process.running, self.process.output()
            try:
                return "calls" in self.journal()
            except httpx.TransportError:
                return False

        eventually(answers, within=30, because="the reference services answer")
        return self.process

    def journal(self) -> dict[str, Any]:
        said: dict[str, Any] = httpx.get(f"{self.url}/journal", timeout=10, **LOOPBACK).json()
        return said

    def calls(self, kind: str | None = None, post_id: str | None = None) -> list[dict[str, Any]]:
        """The calls that came, oldest first."""
        return [
            call
            for call in self.journal()["calls"]
            if kind in {None, call["kind"]} and post_id in {None, call["post_id"]}
        ]

    def behave(self, *behaviours: dict[str, Any]) -> None:
        """From now on these, the first that fits; none: all goes well again."""
        answer = httpx.post(f"{self.url}/behave", json=behaviours, timeout=10, **LOOPBACK)
        assert answer.status_code == 200, answer.text


class Played:
    """The opponent as a process: a publisher that plays against us, until it is told to be calm."""

    def __init__(self, processes: Processes, seed: int, journal: Path, patience: float = 1.0) -> None:
        self.processes = processes
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._arguments = [
            f"--port={self.port}", f"--seed={seed}", f"--journal={journal}", f"--patience={patience}",
        ]  # fmt: skip
        self.process = self.start()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "REDRAFT_PUBLISHER_URL": f"{self.url}/publish",
            "REDRAFT_RENDERER_URL": f"{self.url}/render",
            "REDRAFT_SERVICE_SECRET": SECRET,
        }

    def start(self) -> Process:
        """Start it, or start it again where it was: what it did it still knows, what was under way is lost."""
        command = [sys.executable, "-m", "tests.reference_services.opponent"]
        self.process = self.processes.start(command, *self._arguments, REDRAFT_SERVICE_SECRET=SECRET)
        self.process.says("the opponent plays", within=30)
        return self.process

    def restart(self) -> None:
        self.process.kill()
        self.start()

    def forget(self) -> None:
        """From now on every key is new to it, as after a day."""
        assert httpx.post(f"{self.url}/forget", timeout=10, **LOOPBACK).status_code == 200

    def calm(self) -> None:
        """From now on all goes well."""
        assert httpx.post(f"{self.url}/calm", timeout=10, **LOOPBACK).status_code == 200

    def journal(self) -> dict[str, Any]:
        said: dict[str, Any] = httpx.get(f"{self.url}/journal", timeout=30, **LOOPBACK).json()
        return said
