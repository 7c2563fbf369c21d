"""Traces: off unless the usual variables ask for them; one trace from a request through its doorbell to its task."""

import gzip
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from typing import Any

import celery
import pytest
from celery.app.task import Context

from shared import task_names
from shared.telemetry import tracing
from tests.stack import running
from tests.waiting import eventually

installed = pytest.mark.skipif(
    find_spec("opentelemetry.sdk") is None, reason="needs the extra redraft[tracing]: traces themselves are untested"
)
OTLP = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.fixture
def spans():
    """Tracing is on in this process; the list fills as spans are exported, which `tracing.stop()` completes."""
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import (  # noqa: PLC0415 - an extra
        InMemorySpanExporter,
    )

    exporter = InMemorySpanExporter()
    assert tracing.start("api", exporter)

    def finished():
        tracing._on.provider.force_flush()
        return {span.name: span for span in exporter.get_finished_spans()}

    yield finished
    tracing.stop()


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "redraft"}, False),
        ({OTLP: "http://127.0.0.1:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({OTLP: "http://127.0.0.1:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({OTLP: "http://127.0.0.1:4318", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_the_usual_variables_decide(monkeypatch, environment, wanted):
    for name in ("OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED", OTLP, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert tracing.wanted() is wanted


def test_off_it_touches_neither_messages_nor_tasks():
    assert not tracing.on()
    tracing.remember("post_1")
    assert tracing.headers([["post_1"], "reply"]) is None
    assert tracing.traced(task_names.EDITS_APPLY, lambda ids: {"applied": len(ids)})(["post_1"]) == {"applied": 1}


def test_without_the_packages_it_is_off_and_says_so_once():
    program = (
        "import sys; sys.modules['opentelemetry.sdk'] = None\n"
        "from shared.telemetry import tracing; print(tracing.start('api'), tracing.on())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], env={OTLP: "http://127.0.0.1:9"}, capture_output=True, text=True, check=True
    )
    assert "False False" in ran.stdout
    assert (ran.stdout + ran.stderr).count("tracing_off") == 1


@installed
def test_one_trace_leads_from_a_request_through_its_doorbell_to_its_task(spans, monkeypatch):
    with tracing.request("PATCH", [(b"traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01")]) as span:
        tracing.remember("post_1")
        tracing.answered(span, method="PATCH", route="/v1/posts/{post_id}", status=200, edit_id="edit_1")
    headers = tracing.headers([["post_1"], "channel#1"])

    received(monkeypatch, headers)
    tracing.traced(task_names.EDITS_APPLY, lambda: {"applied": 1})()
    request, task = spans()["PATCH /v1/posts/{post_id}"], spans()[task_names.EDITS_APPLY]
    assert f"{request.context.trace_id:032x}" == "a" * 32
    assert (task.context.trace_id, task.parent.span_id) == (request.context.trace_id, request.context.span_id)
    assert request.attributes["redraft.edit_id"] == "edit_1"
    assert (task.attributes["redraft.applied"], task.attributes["redraft.task_id"]) == (1, "task-1")


def received(monkeypatch, headers):
    """This process works on a message with these headers."""

    class Task:
        request = Context(id="task-1", headers=headers)

    monkeypatch.setattr(celery, "current_task", Task())


@installed
def test_a_doorbell_of_many_requests_is_linked_to_each(spans, monkeypatch):
    for number in (1, 2, 3):
        with tracing.request("PATCH", []):
            tracing.remember(f"post_{number}")
    received(monkeypatch, tracing.headers([["post_1", "post_2", "post_3", "post_never_traced"], None]))
    tracing.traced(task_names.EDITS_APPLY, dict)()
    task = spans()[task_names.EDITS_APPLY]
    assert task.parent is None
    assert len({link.context.trace_id for link in task.links}) == 3


@installed
def test_a_message_that_a_task_sends_goes_on_in_its_trace(spans):
    sent: list[Any] = []

    def send():
        sent.append(tracing.headers([[["post_1", 2]]]))
        return {}

    tracing.traced(task_names.EDITS_APPLY, send)()
    task = spans()[task_names.EDITS_APPLY]
    (parent,) = sent[0][tracing.PARENTS]
    assert parent.split("-")[1:3] == [f"{task.context.trace_id:032x}", f"{task.context.span_id:016x}"]


@installed
def test_a_trace_is_carried_once_and_never_for_long(spans):
    assert spans() == {}
    with tracing.request("PATCH", []):
        for number in range(tracing.REMEMBERED_AT_MOST + 5):
            tracing.remember(f"post_{number}")
    assert len(tracing._on.waiting) == tracing.REMEMBERED_AT_MOST
    assert tracing.headers([["post_77"], None]) is not None
    assert tracing.headers([["post_77"], None]) is None


@installed
def test_a_span_tells_an_error_by_its_type_alone(spans):
    def fail():
        raise ValueError("PLANTED-CAPTION")

    with pytest.raises(ValueError, match="PLANTED"):
        tracing.traced(task_names.EDITS_APPLY, fail)()
    span = spans()[task_names.EDITS_APPLY]
    assert span.status.description == "ValueError"
    assert "PLANTED" not in span.to_json()


@installed
def test_strange_headers_on_a_message_change_nothing(spans, monkeypatch):
    for strange in ({tracing.PARENTS: "no list"}, {tracing.PARENTS: [1, None, "nonsense"]}, {}, None):
        received(monkeypatch, strange)
        assert tracing.traced(task_names.OPS_RESCUE, lambda: {"edits": 1})() == {"edits": 1}
    assert spans()[task_names.OPS_RESCUE]


@pytest.fixture
def collector():
    """Takes spans over OTLP as any collector does: a list of (service, span)."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (  # noqa: PLC0415 - an extra
        ExportTraceServiceRequest,
    )

    taken: list[tuple[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                service = next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
                taken.extend((service, span) for scope in resource.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    taken_at = f"http://127.0.0.1:{server.server_port}"
    yield taken, taken_at
    server.shutdown()
    server.server_close()


@installed
def test_real_processes_send_one_trace_for_an_edit(database_url, redis_url, collector):
    taken, url = collector
    speed = {"OTEL_BSP_SCHEDULE_DELAY": "200", "NO_PROXY": "127.0.0.1"}
    with running(database_url, redis_url, "edits", OTEL_EXPORTER_OTLP_ENDPOINT=url, **speed) as stack:
        answer = stack.patch(stack.post(caption="PLANTED-FIRST"), {"caption": "PLANTED-CAPTION"})
        assert answer.status_code == 200

        def joined():
            requests = {span.trace_id for service, span in taken if service == "redraft-api" and "PATCH" in span.name}
            tasks = {span.trace_id for service, span in taken if service == "redraft-edits"}
            return requests & tasks

        eventually(joined, within=30, because="the task's span lies in the request's trace")
    said = "\n".join(str(span) for _, span in taken)
    assert answer.headers["edit-id"] in said
    assert "PLANTED" not in said
