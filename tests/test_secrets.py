"""All of `redraft up` with planted captions, URLs, sounds and keys: none is where others read (docs/security.md).

What each line and each metric holds is tested beside it (tests/shared/telemetry/test_logs.py and others). Here the
whole of it runs, at its most talkative, through everything a client can make it do, and then everything that it said is
searched.
"""

import inspect
import json
import re
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest
from celery import Celery
from celery.events import EventReceiver
from sqlalchemy import create_engine, pool, text

from shared import task_names
from shared.cli import roles
from shared.local import commands
from tests import factories
from tests.loopback import LOOPBACK
from tests.ports import free_port
from tests.processes import Process, Processes, data_dir
from tests.reference_services.client import Reference
from tests.waiting import eventually

CAPTION = "PLANTED-caption grüße ✨"
URL = "https://cdn.example.com/PLANTED-path/a.mp4?token=PLANTED-token"
URLS = [f"https://cdn.example.com/PLANTED-{n}.jpg?sig=PLANTED-sig" for n in (1, 2)]
SOUND = "PLANTED-sound-7001"
KEY, WRONG_KEY = "sk_PLANTED_key_0123456789", "sk_PLANTED_wrong_9876543210"
QUOTED = "the platform does not like: PLANTED-caption"
# However a line may write them: as they are, escaped, in hexadecimal, in base64.
PLANTED = re.compile(
    b"PLANTED|" + "grüße".encode() + rb"|gr\\u00fc\\u00dfe|" + b"PLANTED".hex().encode(), re.IGNORECASE
)
ROLES = {"api", "beat", "flower", "postgres", *task_names.QUEUES}
FLOWER_PAGES = (
    *("/", "/workers", "/tasks", "/broker", "/metrics", "/api/workers", "/api/tasks?limit=100000"),
    *("/api/task/types", "/api/queues/length"),
)


def found_in(where: str, said: bytes | str) -> list[str]:
    """What is planted in it, with what stands around, for a failure's message."""
    raw = said.encode() if isinstance(said, str) else said
    return [f"{where}: …{raw[max(0, hit.start() - 150) : hit.end() + 80]!r}…" for hit in PLANTED.finditer(raw)][:5]


@dataclass
class Everything:
    """A running `redraft up`, and all Celery events since before its first task."""

    process: Process
    reference: Reference
    folder: Path
    places: dict[str, str]
    events: list[dict[str, Any]] = field(default_factory=list)
    _receiver: EventReceiver | None = None
    _hearing: threading.Thread | None = None

    def __post_init__(self) -> None:
        self.http = httpx.Client(
            base_url=self.places["apiUrl"],
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=30,
            **LOOPBACK,
        )
        self.engine = create_engine(self.places["databaseUrl"], poolclass=pool.NullPool)

    def scalar(self, statement: str) -> Any:
        with self.engine.connect() as tx:
            return tx.execute(text(statement)).scalar()

    def flower(self, path: str, **options: Any) -> httpx.Response:
        who = self.places["flowerUser"], self.places["flowerPassword"]
        return httpx.get(f"{self.places['flowerUrl']}{path}", **LOOPBACK, timeout=10, **({"auth": who} | options))

    def listen(self) -> None:
        """Hear every event from now on."""

        def hear() -> None:
            with Celery(broker=self.places["redisUrl"], set_as_current=False) as app, app.connection() as connection:
                self._receiver = EventReceiver(connection, handlers={"*": self.events.append}, app=app)
                self._receiver.capture(limit=None)

        self._hearing = threading.Thread(target=hear, daemon=True)
        self._hearing.start()
        eventually(lambda: self.events, within=30, because="the receiver hears a heartbeat")

    def close(self) -> None:
        """Before Redis goes, of which the receiver would complain."""
        self.http.close()
        if self._receiver is not None and self._hearing is not None:
            self._receiver.should_stop = True
            self._hearing.join(10)


@pytest.fixture(scope="module")
def everything() -> Iterator[Everything]:
    processes = Processes()
    with data_dir() as data:
        data.close()
        reference = Reference(processes)
        environment = reference.environment | reference.webhooks | {
            "REDRAFT_LOG_LEVEL": "DEBUG",
            "REDRAFT_SERVICE_TIMEOUT": "1",
            "REDRAFT_CLAIM_EXPIRY": "2",
        }  # fmt: skip
        argv = [sys.executable, "-m", "shared.cli.main", "up", f"--data-dir={data.path}"]
        up = processes.start([*argv, f"--port={free_port()}", f"--flower-port={free_port()}"], **environment)
        up.says("Redraft is up", within=60)
        places = json.loads((data.path / "stack.json").read_text())
        stack = Everything(up, reference, data.path, places)
        with stack.engine.begin() as tx:
            factories.workspace(tx, secret=KEY)
        try:
            yield stack
        except BaseException:
            print(processes.report())
            raise
        finally:
            stack.close()
            processes.close()


def _edits(stack: Everything) -> None:
    """Good ones, refused ones, malformed ones, with secrets in every place that a client can fill."""
    with stack.engine.begin() as tx:
        ours = [factories.post(tx, caption=CAPTION) for _ in range(3)]
        theirs = factories.post(tx, caption=CAPTION, account_id=factories.INSTAGRAM, platform="instagram")
        gone = factories.post(tx, caption=CAPTION, status="failed", failure_reason=QUOTED)
    slides = {"contentType": "slides", "contentUrl": URLS}
    bodies: list[Any] = [
        {"caption": CAPTION},
        {"caption": f"{CAPTION}!", "soundId": SOUND},
        {"contentType": "video", "contentUrl": URL},
        slides,
        {"contentType": "video", "contentUrl": f"https://user:PLANTED@{URL[8:]}"},
        {"contentType": "PLANTED", "contentUrl": URL},
        {"captoin": CAPTION},
        {"PLANTED-field": CAPTION},
        {"caption": [CAPTION]},
        {"caption": CAPTION * 200},
        {"timezone": "PLANTED/Zone", "scheduledTime": "PLANTED"},
        {"soundId": {"PLANTED": SOUND}},
        [CAPTION],
        CAPTION,
    ]
    for number, body in enumerate(bodies):
        for post in (ours[number % 3], theirs, gone):
            headers = {"Idempotency-Key": f"PLANTED-{number}-{post}", "User-Agent": "PLANTED", "Cookie": "a=PLANTED"}
            stack.http.patch(f"/v1/posts/{post}", json=body, headers=headers)
    stack.http.patch(f"/v1/posts/{ours[0]}", json={"caption": "x"}, headers={"Idempotency-Key": f"PLANTED-0-{ours[0]}"})
    for header in ("If-Match", "Prefer", "Content-Type", "Traceparent", "Host", "Accept", "X-Request-Id"):
        stack.http.patch(f"/v1/posts/{ours[1]}", json={"caption": CAPTION}, headers={header: '"PLANTED"; a b'})
    late = stack.http.patch(
        f"/v1/posts/{ours[0]}", json={"caption": CAPTION}, headers={"If-Match": '"PLANTED", "987654321"'}
    )
    assert late.status_code == 412, "refused under the lock, and told by webhook"
    for raw in (b'{"caption": "PLANTED', b'{"caption": "PLANTED\xff"}', b"PLANTED=1", b'{"PLANTED":1,"PLANTED":2}'):
        stack.http.patch(
            f"/v1/posts/{ours[0]}", content=raw, headers={"Content-Type": "application/json"}, params={"key": KEY}
        )
    stack.http.patch(f"/v1/posts/{ours[2]}", content=b"x" * 200_000, headers={"Content-Type": "PLANTED/x"})
    for path in ("/v1/PLANTED", f"/v1/posts?status={SOUND}", f"/v1/posts?cursor={SOUND}", f"/v1/edits?postId={SOUND}"):
        stack.http.get(path)
    refused = stack.http.patch(
        f"/v1/posts/{ours[0]}", json={"caption": CAPTION}, headers={"Authorization": f"Bearer {WRONG_KEY}"}
    )
    assert refused.status_code == 401
    basic = b64encode(b"ops:PLANTED-password").decode()
    assert stack.http.get("/ops", headers={"Authorization": f"Basic {basic}"}).status_code == 401
    assert {stack.http.get(f"/v1/posts/{post}").status_code for post in (*ours, theirs, gone)} == {200}


def _plans(stack: Everything) -> None:
    """Created, rendered, published, refused by the platform, lost on the way, deleted, and moved in bulk."""
    video = {"accountIds": [factories.TIKTOK, factories.INSTAGRAM], "contentUrl": URL, "caption": CAPTION}
    stack.reference.behave(
        {"mode": "status", "kind": "publish", "status": 400, "message": QUOTED, "times": 1},
        {"mode": "hang", "kind": "publish", "times": 1, "effect": True},
        # Of captions a receiver of webhooks knows nothing: its words may stand in the log.
        {"mode": "status", "kind": "webhook", "status": 500, "times": 1},
        {"mode": "status", "kind": "render", "status": 503, "message": QUOTED, "times": 1},
    )
    made = [stack.http.post("/v1/posts/video", json=video) for _ in range(3)]
    rendered = {"accountIds": [factories.TIKTOK], "contentUrls": URLS, "caption": CAPTION, "renderAsVideo": True}
    made.append(stack.http.post("/v1/posts/slideshow", json=rendered | {"soundId": SOUND, "slideDuration": 4}))
    assert [answer.status_code for answer in made] == [201] * 4, [answer.text for answer in made]
    assert stack.http.post("/v1/posts/video", json=video | {"accountIds": [SOUND]}).status_code == 404
    assert stack.http.post("/v1/posts/video", json=video | {"PLANTED": CAPTION}).status_code == 400
    with stack.engine.begin() as tx:
        moved = [factories.post(tx, caption=CAPTION) for _ in range(5)]
        doomed = factories.post(tx, caption=CAPTION)
    stack.http.request("DELETE", "/v1/posts", json={"postIds": [doomed, SOUND]})
    shift = {"filter": {"postIds": [*moved, SOUND]}, "shift": "PT1H"}
    job = stack.http.post("/v1/reschedules", json=shift, headers={"Idempotency-Key": "PLANTED-job"})
    assert job.status_code == 202, job.text
    stack.http.post("/v1/reschedules", json={"filter": {"accountIds": [SOUND]}, "shift": SOUND})
    stack.http.post("/v1/reschedules", json={"items": [{"postId": SOUND, "scheduledTime": SOUND, "timezone": SOUND}]})


def _trouble(stack: Everything) -> None:
    """A database that breaks under an edit in hand, a connection that is cut, a post that somebody holds."""
    with stack.engine.begin() as tx:
        post, held = factories.post(tx, caption=CAPTION), factories.post(tx, caption=CAPTION)
        # Its message names the row as errors of PostgreSQL's own do; it is not the server's log that is on trial.
        tx.execute(
            text("""CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql SET log_min_messages = 'panic' AS $$
                    BEGIN RAISE 'row %', NEW; END $$""")
        )
        tx.execute(
            text(
                f"""CREATE TRIGGER shout BEFORE UPDATE ON posts FOR EACH ROW WHEN (OLD.id = '{post}')
                    EXECUTE FUNCTION shout()"""
            )
        )
    answer = stack.http.patch(f"/v1/posts/{post}", json={"caption": f"{CAPTION}?"}, headers={"Prefer": "wait=1"})
    assert answer.status_code == 202, answer.text
    eventually(lambda: "SQLSTATE P0001" in stack.process.output(), within=30, because="the worker tells of its failure")
    with stack.engine.begin() as tx:
        tx.execute(text("DROP TRIGGER shout ON posts"))
    with psycopg.connect(stack.places["databaseUrl"].replace("+psycopg", "")) as person:
        person.execute("SELECT 1 FROM posts WHERE id = %s FOR UPDATE", [held])
        stack.http.patch(f"/v1/posts/{held}", json={"caption": f"{CAPTION}…"}, headers={"Prefer": "wait=0"})
        person.execute(
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name <> ''"""
        )
    eventually(lambda: stack.scalar("SELECT count(*) FROM edits WHERE status = 'queued'") == 0, within=30)


def _forgotten(stack: Everything) -> None:
    """Work that no message tells of. Flower shows a dispatch and a rescue only if they found such.

    Each of them finds posts that are due, and which one comes first is chance. After a few posts both have found some.
    """

    def both_found_some() -> bool:
        with stack.engine.begin() as tx:
            factories.post(tx, caption=CAPTION, scheduled_time=datetime.now(UTC))
        return _ended(stack) >= {task_names.POSTS_DISPATCH_DUE, task_names.OPS_RESCUE}

    with stack.engine.begin() as tx:
        factories.edit(tx, factories.post(tx, caption=CAPTION), {"caption": CAPTION})
    eventually(both_found_some, within=30, every=0.7, because="dispatch and rescue found something to do")


@pytest.fixture(scope="module")
def lived(everything: Everything) -> Everything:
    """It has done everything that it can do, and all of that has ended."""
    everything.listen()
    _edits(everything)
    _plans(everything)
    _trouble(everything)
    _forgotten(everything)
    under_way = """SELECT (SELECT count(*) FROM posts WHERE claim_kind IS NOT NULL OR status = 'pending_render'
                           OR (status = 'generated' AND deleted_at IS NULL AND scheduled_time < now()))
                        + (SELECT count(*) FROM reschedules WHERE finished_at IS NULL)
                        + (SELECT count(*) FROM webhook_events WHERE status = 'queued')"""
    eventually(lambda: everything.scalar(under_way) == 0, within=30, every=0.1, because="nothing is under way")
    # All seven tasks, each to its end: the events of the last ones come a moment later.
    eventually(lambda: _every_task_ended(everything), within=30, because="every task's end was heard")
    return everything


def _ended(stack: Everything) -> set[str]:
    """Tasks of which one has ended well."""
    events = list(stack.events)
    names = {event["uuid"]: event["name"] for event in events if event["type"] == "task-received"}
    return {names[event["uuid"]] for event in events if event["type"] == "task-succeeded" and event["uuid"] in names}


def _every_task_ended(stack: Everything) -> bool:
    assert (ended := _ended(stack)) == set(task_names.QUEUE_OF), f"not heard yet: {set(task_names.QUEUE_OF) - ended}"
    return True


def test_no_line_of_any_process_holds_what_a_client_or_a_service_sent(lived: Everything) -> None:
    said = lived.process.output()
    spoke = {line.split(" | ")[0].strip() for line in said.splitlines() if " | " in line}
    assert spoke >= ROLES - {"postgres"}, "each role has spoken, or this would prove nothing"
    assert len(said.splitlines()) > 200
    assert found_in("log", said) == []
    assert KEY not in said


def test_no_celery_event_holds_it_and_every_task_was_heard(lived: Everything) -> None:
    assert {event["type"] for event in lived.events} >= {"task-received", "task-started", "task-succeeded"}
    for event in list(lived.events):
        assert found_in(event["type"], json.dumps(event, ensure_ascii=False, default=str)) == []


def test_no_page_of_flowers_holds_it_nor_what_it_keeps_on_disk(lived: Everything) -> None:
    tasks = lived.flower("/api/tasks?limit=100000").json()
    newest = {one["name"]: uuid for uuid, one in tasks.items()}
    # Flower may begin to listen while a worker has a task in hand: it hears how that ends, and never its name.
    newest.pop(None, None)
    assert sum(one["name"] is None for one in tasks.values()) <= len(task_names.QUEUES)
    assert newest.keys() == set(task_names.QUEUE_OF)
    workers = lived.flower("/api/workers").json()
    told = {*newest.values(), *(uuid for uuid, one in tasks.items() if one["state"] == "FAILURE")}
    pages = [*FLOWER_PAGES, *(f"/worker/{name}" for name in workers)]
    pages += [f"{path}/{uuid}" for path in ("/task", "/api/task/info") for uuid in told]
    table = "/tasks/datatable?draw=1&start=0&length=1000&search[value]=&order[0][column]=0&order[0][dir]=asc"
    pages.append(f"{table}&columns[0][data]=name")
    for page in pages:
        answer = lived.flower(page)
        assert answer.status_code == 200, (page, answer.status_code)
        assert found_in(page, answer.content) == []
    for file in lived.folder.glob("flower*"):
        assert found_in(file.name, file.read_bytes()) == []


def test_no_metric_holds_it(lived: Everything) -> None:
    said = lived.http.get("/metrics").text
    assert "redraft_publishes_total" in said
    assert found_in("/metrics", said) == []


def test_no_webhook_holds_a_caption_an_url_a_sound_or_a_key(lived: Everything) -> None:
    """A reason may quote the platform's own words, which is what it is for."""
    told = [json.loads(call["body"]) for call in lived.reference.calls("webhook")]
    assert {one["type"] for one in told} >= {
        *("edit.applied", "edit.rejected", "post.posted", "post.failed", "post.rescheduled", "post.deleted"),
    }
    for one in told:
        assert found_in(one["type"], json.dumps(one, ensure_ascii=False).replace(QUOTED, "")) == []


def test_no_argument_of_any_process_holds_a_secret(lived: Everything) -> None:
    """Other users of the machine can read them."""
    secrets = [lived.places[name] for name in ("flowerPassword", "opsPassword", "databaseUrl", "redisUrl")]
    for child in psutil.Process(lived.process.pid).children(recursive=True):
        words = " ".join(child.cmdline())
        assert not [secret for secret in secrets if secret in words], words
        assert "whsec_reference" not in words


def test_what_is_planted_was_there_to_be_found(lived: Everything) -> None:
    """In the rows and in the publisher's hands: the search above would have met it."""
    assert lived.scalar("SELECT count(*) FROM posts WHERE caption LIKE 'PLANTED%'") > 10
    assert lived.scalar("SELECT count(*) FROM edits WHERE changes::text LIKE '%PLANTED%'") > 10
    assert {"done", "refused", "unknown"} <= set(
        lived.scalar("SELECT array_agg(DISTINCT outcome) FROM publish_attempts") or []
    )
    published = [call["body"] for call in lived.reference.calls("publish")]
    assert any(found_in("publish", body) for body in published)
    assert found_in("log", f'{{"event": "x", "caption": "{CAPTION}"}}')
    assert found_in("log", json.dumps(CAPTION[8:]))


def test_everything_listens_on_loopback_alone(everything: Everything) -> None:
    root = psutil.Process(everything.process.pid)
    listening = {
        (process.name(), one.laddr.ip)
        for process in (root, *root.children(recursive=True))
        for one in process.net_connections("inet")
        if one.status == psutil.CONN_LISTEN
    }
    assert {address for _, address in listening} == {"127.0.0.1"}, listening
    assert {name for name, _ in listening} >= {"valkey-server", "postgres"}
    assert len(listening) >= 3


def test_single_roles_listen_on_loopback_unless_told_otherwise() -> None:
    assert inspect.signature(roles.api).parameters["host"].default == "127.0.0.1"
    assert inspect.signature(roles.flower).parameters["address"].default == "127.0.0.1"
    assert "--host=127.0.0.1" in commands.api()
    assert "--address=127.0.0.1" in commands.flower()


def test_flower_shows_nothing_without_its_password_but_what_is_documented(everything: Everything) -> None:
    open_pages = {"/healthcheck", "/metrics"}
    for page in ("/", "/tasks", "/workers", "/broker", "/api/tasks", "/api/workers", "/healthcheck", "/metrics"):
        status = everything.flower(page, auth=None).status_code
        assert status == (200 if page in open_pages else 401), page
    wrong = everything.places["flowerUser"], "wrong"
    assert everything.flower("/api/tasks", auth=wrong).status_code == 401
    for action in ("worker/shutdown/edits@x", "task/send-task/edits.apply", "task/revoke/1"):
        answer = httpx.post(f"{everything.places['flowerUrl']}/api/{action}", **LOOPBACK, timeout=10)
        assert answer.status_code == 401, action
