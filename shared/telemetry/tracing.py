"""OpenTelemetry traces from request through task, where the usual OTEL_ variables are set; nothing otherwise.

A doorbell stands for the edits of many requests. It carries, in its message's headers, the traces of those that rang
it: of one as its parent, of several as links. What a task enqueues goes on in the task's own trace.
"""

import functools
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog

PARENTS = "redraft-traces"
"""The message header: `traceparent` values (W3C Trace Context)."""

LINKS_AT_MOST = 32
REMEMBERED_AT_MOST = 10_000

log = structlog.get_logger(__name__)


@dataclass
class _Tracing:
    """What there is once tracing is on. `tracer` None: it is off, and everything here returns at once."""

    tracer: Any = None
    provider: Any = None
    waiting: OrderedDict[str, str] = field(default_factory=OrderedDict)


_on = _Tracing()


def wanted() -> bool:
    """Whether the environment asks for traces, by the variables that OpenTelemetry's documentation names."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    named = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER")
    return any(os.environ.get(name) for name in named)


def start(service: str, exporter: Any = None) -> bool:
    """Begin to trace if the environment wants it. Below a fork: the exporting thread does not survive one.

    `service` is the name where OTEL_SERVICE_NAME gives none; `exporter` takes the place of OTLP over HTTP in tests.
    """
    if _on.tracer is not None or (exporter is None and not wanted()):
        return _on.tracer is not None
    try:
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415  -- an optional extra
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        if exporter is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

            exporter = OTLPSpanExporter()
    except ImportError:
        log.warning("tracing_off", meaning="the packages are missing", to_change="pip install 'redraft[tracing]'")
        return False
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": f"redraft-{service.partition('@')[0]}"}
    _on.provider = TracerProvider(resource=Resource.create(named))
    _on.provider.add_span_processor(BatchSpanProcessor(exporter))
    _on.tracer = _on.provider.get_tracer("redraft")
    return True


def stop() -> None:
    """Send what is left and trace no more."""
    if _on.provider is not None:
        _on.provider.shutdown()
    _on.tracer = _on.provider = None
    _on.waiting.clear()


def on() -> bool:
    """Whether this process traces."""
    return _on.tracer is not None


@contextmanager
def request(method: str, headers: Sequence[tuple[bytes, bytes]]) -> Iterator[Any]:
    """A span for a request, in the client's trace if it sent one; to be named by `answered` once the route is known."""
    from opentelemetry.trace import SpanKind  # noqa: PLC0415  -- only where tracing is on

    given = next((value.decode("latin-1") for name, value in headers if name == b"traceparent"), "")
    with _span(method, context=_context(given), kind=SpanKind.SERVER) as span:
        yield span


@contextmanager
def _span(name: str, **given: Any) -> Iterator[Any]:
    """A span that records only the type of an error: the message may quote a caption."""
    from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415  -- as above

    with _on.tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False, **given) as span:
        try:
            yield span
        except BaseException as error:
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise


def answered(span: Any, *, method: str, route: str, status: int, **ids: str | None) -> None:
    """What a request's span says: route, status, and the ids by which logs and rows are found."""
    span.update_name(f"{method} {route}")
    known = {f"redraft.{name}": value for name, value in ids.items() if value}
    span.set_attributes({"http.request.method": method, "http.route": route, "http.response.status_code": status})
    span.set_attributes(known)


def remember(post_id: str) -> None:
    """The request that is being served has something new for this post: the doorbell for it is to carry its trace."""
    if _on.tracer is None:
        return
    _on.waiting[post_id] = _traceparent()
    if len(_on.waiting) > REMEMBERED_AT_MOST:
        _on.waiting.popitem(last=False)


def headers(args: Sequence[object]) -> dict[str, list[str]] | None:
    """The headers of a message with these arguments; None where there is no trace to go on with."""
    if _on.tracer is None:
        return None
    posts = args[0] if args and isinstance(args[0], list) else []
    parents = [_on.waiting.pop(one, "") for one in posts if isinstance(one, str)]
    found = [parent for parent in [_traceparent(), *parents] if parent]
    return {PARENTS: list(dict.fromkeys(found))[:LINKS_AT_MOST]} if found else None


def traced(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
    """A task's function with a span around it: a child of what rang for it, or linked to all who did."""

    @functools.wraps(run)
    def tracing(*args: Any) -> Any:
        if _on.tracer is None:
            return run(*args)
        from celery import current_task  # noqa: PLC0415  -- only where tracing is on

        asked = getattr(current_task, "request", None)
        given = (getattr(asked, "headers", None) or {}).get(PARENTS) or []
        with _consuming(name, given) as span:
            span.set_attribute("redraft.task_id", str(getattr(asked, "id", "")))
            result = run(*args)
            if isinstance(result, dict):
                span.set_attributes({f"redraft.{key}": value for key, value in result.items()})
            return result

    return tracing


@contextmanager
def doorbells(name: str, traces: Sequence[object]) -> Iterator[None]:
    """A span for doorbells that came without a message; none where they carry no trace."""
    if _on.tracer is None or not traces:
        yield
        return
    with _consuming(name, traces):
        yield


@contextmanager
def _consuming(name: str, given: Sequence[object]) -> Iterator[Any]:
    """A span that is a child of the one trace given, or linked to all of several."""
    from opentelemetry.trace import Link, SpanKind, get_current_span  # noqa: PLC0415  -- only where tracing is on

    parents = [parent for parent in given if isinstance(parent, str)][:LINKS_AT_MOST]
    contexts = [_context(parent) for parent in parents]
    links = [Link(get_current_span(context).get_span_context()) for context in contexts]
    parent = contexts[0] if len(contexts) == 1 else None
    with _span(name, context=parent, kind=SpanKind.CONSUMER, links=() if parent else links) as span:
        yield span


def _traceparent() -> str:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent", "")


def _context(traceparent: str) -> Any:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    return TraceContextTextMapPropagator().extract({"traceparent": traceparent}) if traceparent else None
