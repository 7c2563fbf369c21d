"""Structured logs: one line an event, JSON or readable on a terminal; never captions, URLs or keys (docs/logs.md).

A line has 4,096 bytes at most and holds no control characters (shared/telemetry/scrubbing.py); a few of each kind are
written a minute and the others are counted (shared/telemetry/log_rates.py). At debug level nothing is left out.

Lines are joined by ids: a request's `request_id` and `edit_id` meet in the line that answers it, an edit's `edit_id`
and `task_id` in the lines of its worker. Successful requests and applied edits are logged at debug level only. One line
a second says how much was done (shared/telemetry/work_lines.py).
"""

import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

import structlog
from pydantic_core import to_json
from structlog.typing import Processor

from shared.domain.lifecycle import EditStatus
from shared.settings import settings
from shared.telemetry import console, scrubbing
from shared.telemetry.log_rates import Rates
from shared.telemetry.scrubbing import EXCEPTION, EXCEPTION_MAX, scrubbed, shown

if TYPE_CHECKING:
    from shared.domain.queued_edits import EditResult, QueuedEdit

SLOW = 1.0
"""Seconds. A request that took longer is worth a line, whatever its answer."""

LINE_MAX = 4_096
"""Bytes of a line, its end too. Linux writes that many to a pipe in one piece, so that lines of processes never mix."""

# Two lines a task, or one a second. Flower and the metrics show the same.
_CHATTY = ("celery.worker.strategy", "celery.app.trace")
_QUIET = ("httpx", "httpcore", "urllib3", "kombu", "amqp", "alembic")

# Errors whose messages are about code and connections, never about what a client sent.
_SPEAKABLE = (AttributeError, NameError, ImportError, OSError)
_SPEAKABLE_NAMES = ("ConnectionError", "TimeoutError", "OperationalError")
_FRAMES = 12

_SHORTER = (512, 128, 32)

_joins: dict[str, Callable[[], str | None]] = {}
_rates = Rates(time.monotonic)

log = structlog.get_logger(__name__)


def configure(**joins: Callable[[], str | None]) -> None:
    """Send all logs of this process, Celery's and uvicorn's too, to standard error, a line each.

    `joins`: field -> a function that returns its value for the line being written. A request that logs nothing never
    calls it.
    """
    _joins.clear()
    _joins.update(joins)
    config = settings()
    level = logging.getLevelNamesMapping().get(config.log_level.upper(), logging.INFO)
    renderer = _renderer(config.log_format)
    shared: list[Processor] = [_join, structlog.stdlib.add_log_level, structlog.processors.TimeStamper("iso", utc=True)]
    shared += [scrubbing.block, _tell_exception]
    structlog.configure(
        processors=[_sampled, *shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_Lines,
        cache_logger_on_first_use=True,
    )
    handler = _Handler()
    handler.addFilter(_speak_safely)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    _route_everything_to(handler, level)


def _route_everything_to(handler: logging.Handler, level: int) -> None:
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(level, logging.INFO))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.asgi", "celery", "celery.task"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
    for name in _CHATTY:
        logging.getLogger(name).setLevel(level if level < logging.INFO else max(level, logging.WARNING))
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def _renderer(form: str) -> Processor:
    if form == "console" or (form == "auto" and sys.stderr.isatty()):
        return _fitting(console.renderer(coloured=sys.stderr.isatty()))
    return _fitting(_as_json)


def _fitting(render: Processor) -> Processor:
    """That renderer with a limit of LINE_MAX: the values of a longer line are shortened until the line fits."""

    def fitting(logger: Any, name: str, event: MutableMapping[str, Any]) -> str:
        line = str(render(logger, name, dict(event)))
        for most in _SHORTER:
            if len(_encoded(line)) <= LINE_MAX:
                return line
            line = str(render(logger, name, scrubbing.shortened(event, most) | {"cut": True}))
        return line

    return fitting


def _encoded(line: str) -> bytes:
    return line.encode(errors="backslashreplace") + b"\n"


def _as_json(_: object, __: str, event: MutableMapping[str, Any]) -> str:
    event = {name: event.pop(name, None) for name in ("timestamp", "level", "event")} | dict(event)
    try:
        return to_json(event, fallback=str).decode()
    except ValueError:  # a lone surrogate: bytes that are no text, in a path
        return json.dumps(event, default=str)


def _write(line: str) -> None:
    # One system call a line: pool children share the pipe, and short lines never mix. A reader that went away ends no
    # request.
    with suppress(OSError):
        os.write(2, _encoded(line))


class _Lines:
    """The sink of our own logs."""

    def __init__(self, *_: object) -> None:
        pass

    def msg(self, line: str) -> None:
        _write(line)

    debug = info = warning = error = critical = exception = fatal = log = msg


class _Handler(logging.Handler):
    """The sink of the libraries' logs."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            _write(self.format(record))
        except Exception:  # noqa: BLE001  -- a line that cannot be written must not fail what it tells of
            self.handleError(record)


def _sampled(_: object, level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Leave a line out where too many of its kind were written; the next one says how many were."""
    if debugging():
        return event
    error = event.get("exc_info")
    left_out = _rates.admit(
        (event.get("event"), level, event.get("status"), event.get("code"), event.get("error"), type(error).__name__)
    )
    if left_out is None:
        raise structlog.DropEvent
    if left_out:
        event["left_out"] = left_out
    return event


def left_out() -> int:
    """How many lines this process has left out since it started."""
    return _rates.left_out


def _speak_safely(record: logging.LogRecord) -> bool:
    """Redact a library's line: libraries log errors, and an error may quote a caption."""
    if record.name == "celery.beat" and "Sending due task" in str(record.msg) and not debugging():
        return False
    left_out = 0 if debugging() else _rates.admit((record.name, record.levelno, str(record.msg)[:80]))
    if left_out is None:
        return False
    args: Any = record.args
    if isinstance(args, Mapping):
        hidden = {name: "…" for name in ("exc", "traceback", "args", "kwargs", "body") if name in args}
        record.args = {**args, **hidden}
    elif isinstance(args, tuple):
        record.args = tuple(_redacted_text(arg) if isinstance(arg, BaseException) else arg for arg in args)
    if record.exc_info or record.name == "asyncio":
        # The error stands below its first line, or stands as its type in `exception`.
        record.msg, record.args = record.getMessage().strip().partition("\n")[0], ()
    if left_out:
        record.msg, record.args = f"{record.getMessage()} (and {left_out} lines like this one)", ()
    return True


def _join(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for field, known in _joins.items():
        if field not in event and (value := known()):
            event[field] = value
    return event


def _tell_exception(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    given = event.pop("exc_info", None)
    if isinstance(given, BaseException):
        event[EXCEPTION] = redacted_traceback(given)
    elif isinstance(given, tuple) and given[1] is not None:
        event[EXCEPTION] = redacted_traceback(given[1])
    elif given and (error := sys.exc_info()[1]) is not None:
        event[EXCEPTION] = redacted_traceback(error)
    return event


def redacted_traceback(error: BaseException) -> str:
    """An error, its causes and its frames, without messages that may quote a client's text."""
    lines: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        lines.append(("caused by " if lines else "") + _redacted_text(current))
        lines += _places(current.__traceback__)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "\n".join(lines)[:EXCEPTION_MAX]


class RedactedError(Exception):
    """An error with a message that is safe to show. Flower shows the message of a task's error."""


def redacted(error: BaseException) -> RedactedError:
    """That error, still from where it came, without a message that may quote a client's text."""
    return RedactedError(_redacted_text(error)).with_traceback(error.__traceback__)


def _places(trace: TracebackType | None) -> list[str]:
    frames = traceback.extract_tb(trace)[-_FRAMES:]
    return [f"  {'/'.join(frame.filename.split('/')[-3:])}:{frame.lineno} in {frame.name}" for frame in frames]


def _redacted_text(error: BaseException) -> str:
    name = type(error).__name__
    if isinstance(error, RedactedError):
        return str(error)
    orig = getattr(error, "orig", None)  # SQLAlchemy's, around the driver's own
    if isinstance(orig, BaseException):
        return f"{name} of {_redacted_text(orig)}"
    state = getattr(error, "sqlstate", None)
    if state:
        constraint = getattr(getattr(error, "diag", None), "constraint_name", None)
        return f"{name} (SQLSTATE {state}{f', {constraint}' if constraint else ''})"
    if isinstance(error, _SPEAKABLE) or name in _SPEAKABLE_NAMES:
        return f"{name}: {shown(scrubbed(str(error).partition(chr(10))[0]), 300)}"
    return name


def debugging() -> bool:
    """Whether lines at debug level are written at all."""
    return bool(log.is_enabled_for(logging.DEBUG))


def answered(
    status: int, seconds: float, *, method: str, route: str, post_id: str | None, edit_id: str | None, code: str | None
) -> None:
    """One line for a request: at debug level, unless the answer is an error or took longer than SLOW.

    `code`: of the error that was answered. 429 is counted and not logged, and of other errors a few a minute are: a
    flood of requests must not become a flood of lines.
    """
    if status >= 500:
        say = log.error
    elif status != 429 and (status >= 400 or seconds > SLOW):
        say = log.info
    elif debugging():
        say = log.debug
    else:
        return
    given = {"code": code, "post_id": post_id, "edit_id": edit_id}
    known = {name: value for name, value in given.items() if value}
    say("answered", method=method, route=route, status=status, ms=round(seconds * 1000, 1), **known)


def edits_finalized(results: Sequence["EditResult"], queue: Iterable["QueuedEdit"]) -> None:
    """Log the results of a batch, after its commit: each one that was not applied, and the batch at debug level."""
    others = [end for end in results if end.status is not EditStatus.APPLIED]
    if others:
        posts = {edit.id: edit.post_id for edit in queue}
        for end in others:
            say = log.error if end.status is EditStatus.FAILED else log.info
            say("edit_ended", edit_id=end.id, post_id=posts.get(end.id), status=end.status.value, code=end.error_code)
    if results and debugging():
        log.debug("edits_ended", edits=[end.id for end in results], applied=len(results) - len(others))
