"""Logs: what they say, what they never say, and that each line can be joined with the others."""

import json
import logging
import os
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog
from sqlalchemy import text

from shared.domain.lifecycle import EditStatus
from shared.domain.queued_edits import EditResult, QueuedEdit
from shared.settings import settings
from shared.telemetry import logs
from shared.telemetry.log_rates import BURST, Rates
from tests import factories
from tests.conftest import empty_database
from tests.stack import running
from tests.waiting import eventually

CAPTION = "PLANTED-CAPTION grüße"
URL_SECRET = "PLANTED-URL-TOKEN"
URL = f"https://user:PLANTED-URL-PASSWORD@cdn.example.com/PLANTED-URL-PATH.mp4?token={URL_SECRET}"
PLAIN_URL = f"https://cdn.example.com/PLANTED-URL-PATH.mp4?token={URL_SECRET}"
KEY = "sk_PLANTED_KEY_0123456789"


@pytest.fixture
def lines(monkeypatch, capfd):
    """Configures logs in this process; call it for the lines since."""

    def configure(level="DEBUG", form="json", **joins):
        monkeypatch.setenv("REDRAFT_LOG_LEVEL", level)
        monkeypatch.setenv("REDRAFT_LOG_FORMAT", form)
        settings.cache_clear()
        logs.configure(**joins)
        monkeypatch.setattr(logs, "_rates", Rates(time.monotonic))
        monkeypatch.setattr(logs, "log", structlog.get_logger())  # a logger keeps the level of its first line
        capfd.readouterr()

    def read():
        return [json.loads(line) for line in capfd.readouterr().err.splitlines()]

    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    reader: Any = read
    reader.configure, reader.raw = configure, lambda: capfd.readouterr().err
    configure()
    yield reader
    root.handlers, root.level = handlers, level
    for name in (*logs._CHATTY, *logs._QUIET):
        logging.getLogger(name).setLevel(logging.NOTSET)
    structlog.reset_defaults()


def test_a_line_is_one_json_object_with_its_time_level_and_event_first(lines):
    structlog.get_logger().warning("ring_failed", task="edits.apply", shown="post_1 +2")
    (line,) = lines()
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert (line["level"], line["event"], line["shown"]) == ("warning", "ring_failed", "post_1 +2")


def test_console_lines_are_for_people(lines):
    lines.configure(form="console")
    structlog.get_logger().warning("ring_failed", task="edits.apply")
    said = lines.raw()
    assert "ring_failed" in said
    assert "task=edits.apply" in said
    assert "{" not in said


def test_a_line_says_who_asked_only_when_it_is_written(lines):
    asked = []

    def request_id():
        asked.append(1)
        return "req_1"

    lines.configure(level="INFO", request_id=request_id, task_id=lambda: None)
    structlog.get_logger().debug("silent")
    assert asked == []
    structlog.get_logger().info("said")
    (line,) = lines()
    assert line["request_id"] == "req_1"
    assert "task_id" not in line


@pytest.mark.parametrize(
    "name", ["caption", "contentUrl", "content_url", "changes", "body", "Authorization", "api_key"]
)
def test_a_field_that_no_line_may_carry_is_dropped_and_named(lines, name):
    structlog.get_logger().info("planted", **{name: CAPTION}, edit_id="edit_1")
    (line,) = lines()
    assert (line["blocked"], line["edit_id"]) == ([name], "edit_1")
    assert CAPTION not in json.dumps(line, ensure_ascii=False)


def test_what_stands_inside_of_other_values_is_scrubbed(lines):
    structlog.get_logger().info(f"to {URL}", one=f"Bearer {KEY}", many=[{"caption": CAPTION, "at": URL}], key=KEY)
    said = lines.raw()
    assert "PLANTED" not in said
    assert "https://cdn.example.com/…" in said


def test_an_error_is_told_by_its_type_and_place_and_never_by_words_that_may_quote_a_client(lines):
    def surprise():
        raise ValueError(CAPTION) from KeyError(CAPTION)

    try:
        surprise()
    except ValueError as error:
        structlog.get_logger().exception("surprise")
        context = {"name": "edits.apply", "exc": repr(error), "traceback": CAPTION, "args": f"[{CAPTION!r}]"}
        # As Celery says it (celery/app/trace.py).
        logging.getLogger("celery.app.trace").log(
            logging.ERROR, "Task %(name)s raised: %(exc)s\n%(traceback)s", context, exc_info=True
        )
        logging.getLogger("kombu").warning("broken: %r", error)
    ours, celerys, kombus = lines()
    assert ours["exception"].startswith("ValueError\n")
    assert "caused by KeyError" in ours["exception"]
    assert "shared/telemetry/test_logs.py" in ours["exception"]
    assert celerys["event"] == "Task edits.apply raised: …"
    assert celerys["exception"].startswith("ValueError\n")
    assert kombus["event"] == "broken: 'ValueError'"
    assert CAPTION not in json.dumps([ours, celerys, kombus], ensure_ascii=False)


def test_a_refused_connection_keeps_the_words_that_say_where(lines):
    try:
        raise ConnectionRefusedError(111, "Connection refused")
    except OSError:
        structlog.get_logger().exception("away")
    assert "ConnectionRefusedError: [Errno 111] Connection refused" in lines()[0]["exception"]


def test_bytes_that_are_no_text_still_make_a_line(lines):
    structlog.get_logger().info("odd", path="/v1/\udcff")
    assert lines()[0]["event"] == "odd"


HOSTILE = [
    "a-" * 30_000,
    "\x1b[2J\x07\0\x9b31m\u2028\u202e" * 9_000,
    "\U0010ffff" * 60_000,
    '"\\\n' * 20_000,
    "\udcff" * 60_000,
]


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("text", HOSTILE)
def test_a_line_is_short_and_one_line_whatever_it_holds(lines, form, text):
    lines.configure(level="INFO", form=form)

    class OddError(OSError):
        pass

    logging.getLogger("uvicorn.error").warning("odd %s", text)
    structlog.get_logger().info(
        text, post_id=text, many=[text] * 100, more={text: text}, **{f"f{n}": text for n in range(9)}
    )
    try:
        raise OddError(text) from OSError(text)
    except OSError:
        structlog.get_logger().exception("surprise", one=text, two=text)
    said = lines.raw()
    found = said.split("\n")[:-1]
    assert all(len(line.encode()) < logs.LINE_MAX for line in found)
    assert len(said.encode()) <= 3 * logs.LINE_MAX
    assert all(letter.isprintable() or letter == "\n" for letter in said)
    if form == "json":
        first, second, third = (json.loads(line) for line in found)
        assert (first["level"], second["level"], third["event"]) == ("warning", "info", "surprise")
        assert third["exception"].startswith("OddError: ")
        assert second["cut"] is True


def test_a_flood_of_refused_requests_is_a_burst_of_lines_and_a_count(lines):
    lines.configure(level="INFO")

    def refuse(status, code, count):
        for _ in range(count):
            logs.answered(status, 0.01, method="GET", route="other", post_id=None, edit_id=None, code=code)

    refuse(404, "not_found", 5_000)
    refuse(503, "unavailable", 5_000)
    refuse(401, "unauthenticated", 1)
    for _ in range(5_000):
        logging.getLogger("kombu").warning("lost %s", "it")
    said = lines()
    assert [(line.get("code"), line["event"]) for line in said] == (
        [("not_found", "answered")] * BURST
        + [("unavailable", "answered")] * BURST
        + [("unauthenticated", "answered")]
        + [(None, "lost it")] * BURST
    )
    assert logs.left_out() == 3 * (5_000 - BURST)


def test_the_next_line_of_its_kind_says_how_many_were_left_out(lines, monkeypatch):
    lines.configure(level="INFO")
    now = [0.0]
    monkeypatch.setattr(logs, "_rates", Rates(lambda: now[0]))
    for _ in range(BURST + 7):
        structlog.get_logger().warning("ring_failed", error="TimeoutError")
        logging.getLogger("kombu").warning("lost %s", "it")
    lines()
    now[0] = 2.0
    structlog.get_logger().warning("ring_failed", error="TimeoutError")
    logging.getLogger("kombu").warning("lost %s", "it")
    ours, kombus = lines()
    assert ours["left_out"] == 7
    assert kombus["event"] == "lost it (and 7 lines like this one)"


def test_at_debug_level_no_line_is_left_out(lines):
    for _ in range(BURST + 7):
        structlog.get_logger().warning("ring_failed")
    assert len(lines()) == BURST + 7


@pytest.mark.usefixtures("lines")
def test_a_closed_standard_error_ends_no_request(monkeypatch):
    def gone(*_):
        raise BrokenPipeError

    monkeypatch.setattr(os, "write", gone)
    structlog.get_logger().info("unheard")
    logging.getLogger("uvicorn.error").info("unheard")


@pytest.mark.parametrize(
    ("status", "seconds", "level"),
    [(200, 0.01, None), (202, 1.5, "info"), (409, 0.01, "info"), (429, 0.01, None), (503, 0.01, "error")],
)
def test_a_request_has_a_line_above_debug_only_if_it_failed_or_was_slow(lines, status, seconds, level):
    lines.configure(level="INFO")
    route = "/v1/posts/{post_id}"
    logs.answered(status, seconds, method="PATCH", route=route, post_id="post_1", edit_id="edit_1", code="conflict")
    said = lines()
    assert [line["level"] for line in said] == ([level] if level else [])
    for line in said:
        assert (line["status"], line["ms"], line["edit_id"], line["code"]) == (
            *(status, seconds * 1000, "edit_1", "conflict"),
        )


def test_every_request_has_exactly_one_line_at_debug_level(lines):
    logs.answered(200, 0.01, method="PATCH", route="/v1/posts/{post_id}", post_id="post_1", edit_id=None, code=None)
    (line,) = lines()
    assert line["level"] == "debug"
    assert "edit_id" not in line


def test_edits_that_were_not_applied_are_told_one_by_one_and_those_that_were_at_debug_level(lines):
    now = datetime.now(UTC)
    read = [
        QueuedEdit(f"edit_{n}", n, "post_1", {"caption": CAPTION}, None, now, 0, "tests", 0, 2, now) for n in (1, 2, 3)
    ]
    ends = [
        EditResult("edit_1", EditStatus.APPLIED, 2, {}, {"caption": CAPTION}),
        EditResult("edit_2", EditStatus.REJECTED, 2, error_code="cannot_edit", error_message=CAPTION),
        EditResult("edit_3", EditStatus.FAILED, error_code="internal"),
    ]
    logs.edits_finalized(ends, read)
    refused, failed, batch = lines()
    assert (refused["level"], refused["edit_id"], refused["post_id"], refused["code"]) == (
        *("info", "edit_2", "post_1", "cannot_edit"),
    )
    assert (failed["level"], failed["status"]) == ("error", "failed")
    assert (batch["level"], batch["edits"], batch["applied"]) == ("debug", ["edit_1", "edit_2", "edit_3"], 1)


@pytest.fixture(scope="module")
def planted(postgres, valkey):
    """A stack at its most talkative whose database breaks where it is told to, after all kinds of requests."""
    url = postgres.create_database("logs", template="template_redraft")
    with running(url, empty_database(valkey), "edits", REDRAFT_LOG_LEVEL="DEBUG", REDRAFT_LOG_FORMAT="json") as stack:
        stack.http.headers["Authorization"] = f"Bearer {KEY}"
        assert stack.patch("post_1", {"caption": CAPTION}).status_code == 401
        stack.http.headers["Authorization"] = f"Bearer {factories.SECRET}"
        yield stack
    postgres.drop_database("logs")


def output(stack):
    return "\n".join(process.output() for process in stack.processes.all)


def told(stack, **fields):
    """The lines that hold these fields."""
    lines = [json.loads(line) for line in output(stack).splitlines() if line.startswith("{")]
    return [line for line in lines if all(line.get(name) == value for name, value in fields.items())]


def test_a_request_and_its_edit_and_its_task_are_joined_by_their_ids(planted):
    post = planted.post()
    answer = planted.patch(post, {"caption": CAPTION}, **{"X-Request-Id": "req-joined"})
    edit = answer.headers["edit-id"]
    (line,) = eventually(lambda: told(planted, request_id="req-joined", event="answered"), within=30)
    assert (line["status"], line["edit_id"], line["post_id"]) == (200, edit, post)
    (batch,) = [line for line in told(planted, event="edits_ended") if edit in line["edits"]]
    received = told(planted, event=f"Task edits.apply[{batch['task_id']}] received")
    assert len(received) == 1


def test_a_refused_edit_is_told_with_its_post_and_its_code(planted):
    post = planted.post()
    answer = planted.patch(post, {"caption": CAPTION}, **{"If-Match": '"77"'})
    assert answer.status_code == 412
    (line,) = eventually(lambda: told(planted, edit_id=answer.headers["edit-id"], event="edit_ended"), within=30)
    assert (line["post_id"], line["code"], line["level"]) == (post, "precondition_failed", "info")
    assert line["task_id"]


def test_nothing_that_a_client_sent_is_in_any_line_of_any_process(planted):
    post = planted.post(caption="PLANTED-FIRST")
    for body in (
        {"caption": CAPTION},
        {"caption": CAPTION, "captoin": CAPTION},
        {"contentType": "video", "contentUrl": PLAIN_URL},
        {"contentType": "video", "contentUrl": URL},
        {"contentType": "slides", "contentUrl": [PLAIN_URL, 7]},
        CAPTION,
    ):
        planted.patch(post, body, **{"Idempotency-Key": f"PLANTED-{len(str(body))}"})
    planted.http.patch(f"/v1/posts/{post}?caption=PLANTED", content=f"{{{CAPTION}".encode())
    with planted.engine.begin() as tx:
        tx.execute(
            text("CREATE FUNCTION shout() RETURNS trigger AS $$ BEGIN RAISE 'row %', NEW; END $$ LANGUAGE plpgsql")
        )
        tx.execute(text("CREATE TRIGGER shout BEFORE UPDATE ON posts FOR EACH ROW EXECUTE FUNCTION shout()"))
    answer = planted.patch(post, {"caption": f"{CAPTION}!"}, Prefer="wait=1")
    assert answer.status_code == 202
    eventually(lambda: "raised unexpected" in output(planted), within=30, because="the worker tells of its failure")
    with planted.engine.begin() as tx:
        tx.execute(text("DROP TRIGGER shout ON posts"))
        tx.execute(text("CREATE TRIGGER shout BEFORE INSERT ON edits FOR EACH ROW EXECUTE FUNCTION shout()"))
    assert planted.patch(post, {"caption": CAPTION}).status_code == 500
    eventually(lambda: told(planted, event="answered", status=500), within=30)
    with planted.engine.begin() as tx:
        tx.execute(text("DROP TRIGGER shout ON edits"))
    said = output(planted)
    assert "RaiseException (SQLSTATE P0001)" in said
    assert "PLANTED" not in said
    assert KEY not in said
    assert factories.SECRET not in said


def test_every_line_of_an_api_and_a_worker_is_json_but_celerys_farewell(planted):
    odd = [line for line in output(planted).splitlines() if line.strip() and not line.startswith("{")]
    assert [line for line in odd if not line.startswith("worker: ")] == []


def test_a_time_is_in_utc(lines):
    structlog.get_logger().info("now")
    said = datetime.fromisoformat(lines()[0]["timestamp"])
    assert abs(datetime.now(UTC) - said) < timedelta(seconds=5)
