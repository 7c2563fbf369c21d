"""Starts processes, shows what they say, starts them again when they die, and stops them in order.

A child is signalled alone, by its pid, and has its own time to end: a worker lets its pool finish what it holds, where
a signal to the whole group would kill the pool at once. What is left of its group after that is swept away.
"""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from shared.local import die_with_parent

Say = Callable[[str, str], None]
"""Takes a child's name and one line of its output, or of ours about it, without the line's end."""

# A child that lived this long (seconds) was well: its next death is a first one again.
WELL = 10.0
BACKOFF_FIRST, BACKOFF_MOST = 0.1, 5.0
# After a child's end its last lines are in the pipe already; this bounds the wait for a pipe that another holds open.
DRAIN = 1.0
LONGEST_LINE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Child:
    """One process to keep. `grace` is the seconds between `stop_signal` and SIGKILL; `orphan_signal` comes when we die
    ourselves; `identity` is one of `binaries.identities()`; an `environment` of None is ours, and one that is `sealed`
    is for the command alone, not for what starts it. Of two children the one
    of the higher `rank` is stopped first, whenever they were started; those of one rank stop at once. Lines that hold
    one of `unsaid` are dropped.
    """

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str] | None = None
    sealed: bool = False
    stop_signal: signal.Signals = signal.SIGTERM
    orphan_signal: signal.Signals = signal.SIGKILL
    grace: float = 10.0
    identity: str = ""
    cwd: str | None = None
    rank: int = 0
    unsaid: Sequence[str] = ()

    def command(self, lifeline: int | None = None) -> list[str]:
        """The command line that makes it die with us."""
        return die_with_parent.command(
            self.argv,
            orphan_signal=self.orphan_signal,
            identity=self.identity,
            lifeline=lifeline,
            environment=self.environment if self.sealed else None,
        )

    def starts_in(self) -> dict[str, str] | None:
        """The environment to start `command()` in; None is ours."""
        return None if self.sealed or self.environment is None else dict(self.environment)


class Supervisor:
    """Children that run until `stop()`, whatever happens to them."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self._kept: dict[str, _Kept] = {}
        self._lifeline: tuple[int, int] | None = None

    def start(self, *children: Child) -> None:
        """Start children and keep them running. Call from the main thread, inside the event loop."""
        if not die_with_parent.KERNEL_KILLS and self._lifeline is None:
            self._lifeline = os.pipe()
        lifeline = None if self._lifeline is None else self._lifeline[0]
        for child in children:
            self._kept[child.name] = _Kept(child, self.say, lifeline)

    def names(self) -> set[str]:
        return set(self._kept)

    def deaths(self, name: str) -> int:
        """How often the child of that name has died."""
        return self._kept[name].deaths

    def last_words(self, name: str) -> list[str]:
        """The latest lines of the child of that name, oldest first."""
        return self._kept[name].last_words

    def pids(self) -> dict[str, int]:
        """The processes that run now, by name."""
        return {name: kept.pid for name, kept in self._kept.items() if kept.pid is not None}

    async def stop(self) -> None:
        """End every child, the highest rank first."""
        for rank in sorted({kept.child.rank for kept in self._kept.values()}, reverse=True):
            await asyncio.gather(*(kept.stop() for kept in self._kept.values() if kept.child.rank == rank))
        self._kept.clear()
        if self._lifeline is not None:
            for end in self._lifeline:
                os.close(end)
            self._lifeline = None

    def kill(self) -> None:
        """Cut every grace short. `stop()` still has to be awaited."""
        for kept in self._kept.values():
            kept.kill()


class _Kept:
    """One child through all its lives."""

    def __init__(self, child: Child, say: Say, lifeline: int | None) -> None:
        self.child = child
        self.deaths = 0
        self.last_words: list[str] = []
        self.pid: int | None = None
        self._report = say
        self._lifeline = lifeline
        self._stopping = asyncio.Event()
        self._task = asyncio.create_task(self._keep(), name=child.name)

    def _say(self, line: str) -> None:
        if any(words in line for words in self.child.unsaid):
            return
        self.last_words = [*self.last_words[-9:], line]
        self._report(self.child.name, line)

    async def _keep(self) -> None:
        quick_deaths = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            code = await self._live()
            if self._stopping.is_set():
                return
            self.deaths += 1
            quick_deaths = 0 if time.monotonic() - began > WELL else quick_deaths + 1
            delay = min(BACKOFF_FIRST * 2**quick_deaths, BACKOFF_MOST)
            self._say(f"ended with {_exit_words(code)}; starting it again in {delay:.1f} s")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)

    async def _live(self) -> int:
        """One life: from exec to the last line of output. The exit code, negative for a signal."""
        # A pipe of our own: asyncio's would, in some versions, let `wait()` hang on a grandchild that still holds it.
        ours, theirs = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *self.child.command(self._lifeline),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=theirs,
                stderr=theirs,
                env=self.child.starts_in(),
                cwd=self.child.cwd,
                start_new_session=True,
                pass_fds=() if self._lifeline is None else (self._lifeline,),
            )
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self.pid = process.pid
        if self._stopping.is_set():  # asked to stop while it was being started
            self._signal(self.child.stop_signal)
        pump = asyncio.create_task(self._pump(ours))
        code = await process.wait()
        # Its pool must not outlive it: those processes would not be counted, stopped or heard any more.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        self.pid = None
        await asyncio.wait([pump], timeout=DRAIN)
        pump.cancel()
        with suppress(asyncio.CancelledError):
            await pump
        return code

    async def _pump(self, end: int) -> None:
        """Hand on what the child says, line by line, the unfinished last line too."""
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(end, "rb", buffering=0)
        )
        rest = b""
        try:
            while chunk := await reader.read(1 << 16):
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > LONGEST_LINE:
                    lines, rest = [*lines, rest], b""
                for line in lines:
                    self._say(line.decode(errors="replace").rstrip("\r"))
        finally:
            if rest:
                self._say(rest.decode(errors="replace"))
            transport.close()

    def _signal(self, number: signal.Signals) -> None:
        if self.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self._stopping.set()
        if self.pid is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    async def stop(self) -> None:
        self._stopping.set()
        self._signal(self.child.stop_signal)
        done, _ = await asyncio.wait([self._task], timeout=self.child.grace)
        if not done:
            self._say(f"still busy after {self.child.grace:.0f} s; killed")
            self.kill()
        await self._task


def _exit_words(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


async def run(begin: Callable[[Supervisor], Awaitable[None]], say: Say) -> None:
    """Run `begin`, which starts children, then keep them until SIGINT, SIGTERM or SIGHUP; then stop them all.

    A second signal kills what is left. Whatever `begin` raises is raised again when all are stopped.
    """
    supervisor = Supervisor(say)
    asked = asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        if asked.is_set():
            say("redraft", f"{number.name} again: killing what is left")
            supervisor.kill()
            return
        say("redraft", f"{number.name}: stopping; once more kills")
        asked.set()

    loop = asyncio.get_running_loop()
    heard = [number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if not _ignored(number)]
    for number in heard:
        loop.add_signal_handler(number, on_signal, number)
    beginning = asyncio.ensure_future(begin(supervisor))
    waiting = asyncio.create_task(asked.wait())
    try:
        await asyncio.wait([beginning, waiting], return_when=asyncio.FIRST_COMPLETED)
        if beginning.done() and beginning.exception() is None:
            await waiting
    finally:
        asked.set()
        beginning.cancel()
        await supervisor.stop()
        for number in heard:
            loop.remove_signal_handler(number)
    with suppress(asyncio.CancelledError):
        await beginning


def _ignored(number: signal.Signals) -> bool:
    # nohup's promise; a shell's `&` ignores SIGINT too, but Ctrl-C never reaches such a process anyway.
    return number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN
