"""One terminal for many processes: each line with the name of who said it."""

import json
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

COLOURS: Final = (36, 32, 35, 34, 96, 92, 95, 94)
WIDTH: Final = 9  # of the longest name, "reference"
LEVELS: Final = {"warning": 33, "error": 31, "critical": 31}
"""Yellow and red, which no name has."""

AGAIN_WITHIN: Final = 10.0
"""Seconds for which a warning that comes again is only counted."""

_LEVEL = re.compile(r"\[(warning|error|critical) *\] ")
_TIME = re.compile(r"^\d\d:\d\d:\d\d ")
# PostgreSQL's own lines, whose process ids differ. A statement that waits for a lock ends with one each 0.3 s.
_POSTGRES = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ \w+ \[\d+\] (?=(\w+): )")
_REPEATING: Final = frozenset({"WARNING", "ERROR", "FATAL"})
_BELOW: Final = frozenset({"DETAIL", "HINT", "QUERY", "CONTEXT", "LOCATION", "STATEMENT", "BACKTRACE"})


class Repeats:
    """Counts warnings that come again. Pure: callers give the time, in seconds."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, str], tuple[float, int]] = {}
        self._shown = True

    def comes(self, name: str, line: str, now: float) -> bool:
        """Whether the line is to be shown. It is not while it is a warning that was shown a moment ago."""
        if name == "postgres":
            return self._of_postgres(name, line, now)
        return self._is_new((name, _TIME.sub("", line)), now) if _LEVEL.search(line) else True

    def _of_postgres(self, name: str, line: str, now: float) -> bool:
        """As `comes`. What PostgreSQL says below an error, such as the statement, is shown where the error is."""
        if (found := _POSTGRES.match(line)) is not None and found[1] not in _BELOW:
            repeats = found[1] in _REPEATING
            self._shown = not repeats or self._is_new((name, line[found.end() :]), now)
        return self._shown

    def _is_new(self, key: tuple[str, str], now: float) -> bool:
        if key not in self._since:
            self._since[key] = (now, 0)
            return True
        since, count = self._since[key]
        self._since[key] = (since, count + 1)
        return False

    def over(self, now: float) -> list[tuple[str, str]]:
        """The lines that tell of repeats, with the names of who said them. They are due after AGAIN_WITHIN seconds."""
        ended = [key for key, (since, _) in self._since.items() if since + AGAIN_WITHIN <= now]
        counts = {key: self._since.pop(key)[1] for key in ended}
        return [(name, f"{line} ({count} more times)") for (name, line), count in counts.items() if count]


def _as_json(name: str, line: str) -> str:
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    said = {"timestamp": at, "level": "warning", "event": "process_said", "process": name, "line": line}
    return json.dumps(said)


class Output:
    """Prints the lines of children. A closed or broken standard output ends nothing but the printing."""

    def __init__(
        self,
        *,
        prefixed: bool = True,
        coloured: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`prefixed` False prints lines as they came, for machines that parse them. A line that is no JSON becomes one,
        such as ours about a process that ended.
        """
        self._prefixed = prefixed
        self._coloured = sys.stdout.isatty() if coloured is None else coloured
        self._colour_of: dict[str, int] = {}
        self._repeats = Repeats()
        self._clock = clock

    def __call__(self, name: str, line: str) -> None:
        if not self._prefixed:
            self.write(f"{line if line.startswith('{') else _as_json(name, line)}\n")
            return
        now = self._clock()
        for earlier, repeated in self._repeats.over(now):
            self._print(earlier, repeated)
        if self._repeats.comes(name, line, now):
            self._print(name, line)

    def write(self, text: str) -> None:
        """Print text of ours, as it is."""
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except (OSError, ValueError):
            # `redraft up | head`: the reader went away, the stack should not. ValueError: closed by us, at the end.
            return

    def _print(self, name: str, line: str) -> None:
        padded = f"{name:<{WIDTH}} | "
        if self._coloured:
            colour = self._colour_of.setdefault(name, COLOURS[len(self._colour_of) % len(COLOURS)])
            padded = f"\033[{colour}m{padded}\033[0m"
            line = _LEVEL.sub(lambda found: f"\033[{LEVELS[found[1]]}m{found[0]}\033[0m", line, count=1)
        self.write(f"{padded}{line}\n")
