"""The load generator: wrk, which takes a few per cent of a core where one in Python would take more than the server."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

from shared.local import die_with_parent
from tests.benchmarks import data
from tests.benchmarks.ground import WrongMeasureError

SCRIPT = Path(__file__).with_name("load.lua")
# A PATCH waits for at most 30 s; what takes longer than that is lost.
PATIENCE = 35
HOW_TO_GET_WRK = """\
The benchmarks need wrk, a load generator that is light enough to share the cores with what it measures.
  Debian, Ubuntu   sudo apt-get install wrk
  Fedora           sudo dnf install wrk
  Alpine           apk add wrk
  macOS            brew install wrk
  elsewhere        build it from https://github.com/wg/wrk and put it on PATH"""


@dataclass(frozen=True)
class Load:
    """What the clients saw in one run. Latencies are milliseconds."""

    clients: int
    seconds: float
    statuses: dict[int, int]
    errors: dict[str, int]
    mean: float
    percentiles: tuple[tuple[float, float], ...]
    cpu: float = 0.0
    """The generator's own CPU seconds."""
    edits_each: int = 1
    """Edits in one request."""

    @property
    def answered(self) -> int:
        return sum(self.statuses.values())

    @property
    def edits(self) -> int:
        """Edits in the requests that were answered."""
        return self.answered * self.edits_each

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answered / self.seconds

    @property
    def cores(self) -> float:
        """How many cores the generator kept busy."""
        return self.cpu / self.seconds

    def at(self, percent: float) -> float:
        """The latency that `percent` of the requests stayed below."""
        return dict(self.percentiles)[percent]

    def must_be(self, status: int) -> None:
        """Raise WrongMeasureError unless every request was answered, each with this status."""
        troubles = {kind: count for kind, count in self.errors.items() if count and kind != "status"}
        if troubles or set(self.statuses) != {status}:
            raise WrongMeasureError(f"{self.clients} clients wanted {status} only: {self.statuses}, {troubles}")


def wrk() -> str:
    """The generator's path. Raises WrongMeasureError, which says how to get it."""
    found = shutil.which("wrk")
    if found is None:
        raise WrongMeasureError(HOW_TO_GET_WRK)
    return found


class Wrk:
    """One run of the generator; `result()` waits for its end. Start it from the main thread: it dies with that."""

    def __init__(
        self, url: str, *, clients: int, seconds: float, posts: int = data.POSTS, prefer: str = "", large: bool = False,
        many: int = 0,
    ) -> None:  # fmt: skip
        """PATCH random ones of the first `posts` posts from `clients` connections, each with one request at a time.

        `large`: with 35 URLs as long as a URL may be, else with a caption. `many`: POST so many captions in a request.
        """
        self.clients, self._many = clients, many
        self._limit = seconds + PATIENCE + 10
        whole = max(1, round(seconds))
        argv = [
            *(wrk(), "--threads=1", f"--connections={clients}", f"--duration={whole}s", f"--timeout={PATIENCE}s"),
            *(f"--script={SCRIPT}", url),
        ]
        environment = {
            "BENCH_POSTS": str(posts),
            # A tag that no other run has, so that no caption ever comes twice.
            "BENCH_TAG": secrets.token_hex(6),
            "BENCH_CAPTION": data.CAPTION,
            "BENCH_SEED": str(secrets.randbelow(1 << 30)),
            "BENCH_SECRET": data.SECRET,
            "BENCH_PREFER": prefer,
            "BENCH_LARGE": "1" if large else "",
            "BENCH_MANY": str(many),
        }
        self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives until result()
        self._process = subprocess.Popen(
            die_with_parent.command(argv),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
        )

    @property
    def running(self) -> bool:
        if sys.platform == "darwin" and sys.version_info < (3, 13):
            raise WrongMeasureError("macOS has os.waitid since Python 3.13")
        else:  # noqa: RET506 - mypy on macOS finds no fault with a branch that is not taken there
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def close(self) -> None:
        """End it without a result."""
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()
        self._output.close()

    def result(self) -> Load:
        """What it saw, when it has ended by itself. Raises WrongMeasureError if it does not, or says nothing."""
        overdue = Timer(self._limit, self._process.kill)
        overdue.daemon = True
        overdue.start()
        # wait4, not wait: its CPU time alone, not that of all children there ever were.
        _, status, usage = os.wait4(self._process.pid, 0)
        overdue.cancel()
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self._output.seek(0)
        said = self._output.read()
        self._output.close()
        line = next((line for line in said.splitlines() if line.startswith("JSON ")), None)
        if self._process.returncode != 0 or line is None:
            raise WrongMeasureError(f"wrk ended with {self._process.returncode}:\n{said}")
        found = json.loads(line.removeprefix("JSON "))
        return Load(
            clients=self.clients,
            seconds=found["seconds"],
            statuses={int(status): count for status, count in found["statuses"].items()},
            errors=found["errors"],
            mean=found["mean"] / 1000,
            percentiles=tuple((percent, microseconds / 1000) for percent, microseconds in found["percentiles"]),
            cpu=usage.ru_utime + usage.ru_stime,
            edits_each=self._many or 1,
        )


def patch(url: str, *, clients: int, seconds: float, posts: int = data.POSTS, prefer: str = "", many: int = 0) -> Load:
    """Run the generator to its end."""
    generator = Wrk(url, clients=clients, seconds=seconds, posts=posts, prefer=prefer, many=many)
    try:
        return generator.result()
    finally:
        generator.close()
