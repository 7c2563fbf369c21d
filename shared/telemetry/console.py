"""Log lines as people read them on a terminal: the time of day (UTC), what happened, and its details."""

from collections.abc import MutableMapping
from typing import Any

import structlog
from structlog.typing import Processor

from shared.telemetry import work_lines


def renderer(*, coloured: bool) -> Processor:
    """The form of lines on a terminal. A level is shown when it is not `info`."""
    render = structlog.dev.ConsoleRenderer(colors=coloured, pad_event_to=0)
    return lambda logger, name, event: render(logger, name, _readable(event))


def _readable(event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    # `redraft up` writes a process's name before its lines. On a terminal of its own a process is the only one.
    given = {name: value for name, value in event.items() if name not in ("process", "logger")}
    if "timestamp" in given:
        given["timestamp"] = str(given["timestamp"])[len("2026-11-30T") :][: len("12:00:00")]
    if given.get("level") == "info":
        del given["level"]
    if given.get("event") == work_lines.EVENT:
        return {"timestamp": given.get("timestamp"), "event": work_lines.sentence(given)}
    return given
