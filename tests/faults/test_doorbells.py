"""Row 10 of docs/faults.md: strange messages on a queue, and messages that are lost, doubled and reordered."""

import json
import random
import threading
import time
from base64 import b64encode
from typing import Any
from uuid import uuid4

import pytest
import redis
from celery import Celery

from shared import task_names
from shared.broker import doorbells
from tests.faults.conftest import MakeHarness
from tests.faults.harness import RESCUE_PERIOD, Harness
from tests.processes import Server
from tests.waiting import eventually

NOBODY = "post_nobody"
STRANGE_ARGUMENTS: list[list[Any]] = [
    [],
    [None],
    [None, None],
    [[]],
    [[NOBODY], None],
    [[NOBODY] * 600, "nowhere"],
    [[None, 1, 1.5, True, [], {}, "", "\0", "\ud800", "x" * 5000], {"a": 1}],
    ["post", "post"],
    [{"post": 1}],
    [5, 5],
    [[NOBODY, 10**30], [[NOBODY, 10**30]]],
    [[[NOBODY, 1]]],
    [[[NOBODY, 10**30], [NOBODY, True], [NOBODY, 1.0], [NOBODY], [[], 1], "pair", None]],
    [NOBODY, 10**30],
    [NOBODY, 1, 2, 3, 4],
]


LEFT_OUT = object()
ROUTED = {"exchange": "", "routing_key": "edits"}
BODY = b'[[["post_nobody"]], {}, {}]'


def envelope(body: bytes, content_type: str = "application/json", **headers: Any) -> str:
    """A message as kombu lays it in Redis, with whatever body."""
    properties = {
        "correlation_id": str(uuid4()),
        "delivery_mode": 2,
        "delivery_info": ROUTED,
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": str(uuid4()),
    }
    known = {"lang": "py", "task": task_names.EDITS_APPLY, "id": str(uuid4()), "argsrepr": "()", "kwargsrepr": "{}"}
    said = {name: value for name, value in (known | headers).items() if value is not LEFT_OUT}
    return json.dumps(
        {
            "body": b64encode(body).decode(),
            "content-encoding": "utf-8",
            "content-type": content_type,
            "headers": said,
            "properties": properties,
        }
    )


MALFORMED = {
    "a body that is no JSON": envelope(b"{{{"),
    "a body that is a number": envelope(b"7"),
    "a body of another shape": envelope(b'{"args": [["post_nobody"]]}'),
    "pickled": envelope(b"cos\nsystem\n(S'true'\ntR.", "application/x-python-serialize"),
    "an unknown content type": envelope(b"a: 1", "application/x-yaml"),
    "an unknown task": envelope(b"[[], {}, {}]", task="posts.destroy"),
    "no task": envelope(b"[[], {}, {}]", task=None),
    "strange keywords": envelope(b'[[["post_nobody"]], {"post_ids": 1, "nonsense": 2}, {}]'),
    "a time that is none": envelope(BODY, eta="yesterday-ish"),
    "expired long ago": envelope(BODY, expires="2001-01-01T00:00:00+00:00"),
    "no id": envelope(BODY, id=LEFT_OUT),
    "an unknown task without an id": envelope(b'{"a": 1}', task="posts.destroy", id=LEFT_OUT),
    "neither task nor id": envelope(b'{"task": "edits.apply", "args": []}', task=LEFT_OUT, id=LEFT_OUT),
    "an id that is none": envelope(BODY, id=["a"]),
    "a limit that is none": envelope(BODY, timelimit=5),
    "limits that are words": envelope(BODY, timelimit=[None, "a"]),
    "limits of its own": envelope(BODY, timelimit=[0.001, 0.001]),
    "stamps that are none": envelope(BODY, stamped_headers=5),
    "a name that is none": envelope(BODY, shadow=["a"]),
    "arguments that are none": envelope(b"[{}, {}, {}]"),
    "keywords that are none": envelope(b"[[], [], {}]"),
    "an embedding that is none": envelope(b"[[], {}, [1]]"),
    "no embedding": envelope(b"[[], {}, null]"),
    "something to call afterwards": envelope(b'[[], {}, {"errbacks": 5}]'),
}


def outer(**changes: Any) -> bytes:
    """An envelope with other entries on its outside."""
    return json.dumps(json.loads(envelope(BODY)) | changes).encode()


NO_ENVELOPES = {
    "no JSON": b"garbage",
    "no text": b"\xff\xfe",
    "a number": b"7",
    "nothing": b"{}",
    "no properties": outer(properties=None),
    "no tag": outer(properties={"delivery_info": ROUTED}),
    "a tag that is none": outer(properties={"delivery_tag": None, "delivery_info": ROUTED}),
    "no queue": outer(properties={"delivery_tag": "a"}),
    "a body of no known encoding": outer(properties={"delivery_tag": "a", "body_encoding": "none"}),
    "a body that is no base64": outer(body="a"),
    "no body": outer(body=None),
    "a body that is a number": outer(body=5, properties={"delivery_tag": "a", "delivery_info": ROUTED}),
    "no body, and pressed": outer(body=None, headers={"compression": "x"}),
    "a number that is none": b'{"__type__": "decimal", "__value__": "a"}',
    "a depth without end": b"[" * 100_000,
}


def empty(client: redis.Redis) -> bool:
    """Nothing queued, nothing handed out and not acknowledged."""
    return not any(client.llen(name) for name in task_names.QUEUES) and not client.hlen("unacked")


@pytest.fixture
def redis_harness(make_harness: MakeHarness, database_url: str, own_valkey: Server) -> Harness:
    return make_harness(database_url, own_valkey.url)


def test_row_10_strange_and_malformed_doorbells_are_acknowledged_and_change_nothing(
    redis_harness: Harness, own_valkey: Server
) -> None:
    harness = redis_harness
    posts = harness.populate(6)
    harness.start_api()
    workers = {name: harness.start_worker(name) for name in ("edits", "publish", "render", "ops")}
    sender = Celery(broker=own_valkey.url, set_as_current=False)
    sender.conf.task_routes = {name: {"queue": to} for name, to in task_names.QUEUE_OF.items()}
    sender.conf.task_publish_retry = False
    with redis.Redis.from_url(own_valkey.url) as client:
        for name in (*task_names.QUEUE_OF, "posts.destroy"):
            if task_names.QUEUE_OF.get(name) in ("bulk", "webhooks"):
                continue
            for arguments in STRANGE_ARGUMENTS:
                sender.send_task(name, args=arguments, queue=task_names.QUEUE_OF.get(name, "edits"))
        for what, message in (MALFORMED | NO_ENVELOPES).items():
            harness.note(f"sent {what}")
            # Twice: what costs a worker one of its places must cost an edits worker both.
            for name in ("edits", "publish", "ops"):
                client.lpush(name, message, message)
        for strange in NO_ENVELOPES.values():
            assert client.publish("/0.celery.pidbox", strange) == len(workers)
        sent = client.info("stats")["total_commands_processed"]
        assert sent > len(STRANGE_ARGUMENTS) * 5
        eventually(lambda: empty(client), within=60, because="all is acknowledged")
        with harness.load(posts, clients=3):
            for number in range(3):
                answer = harness.send(posts[4], {"caption": f"{number}"}, f"sane-{number}", Prefer="wait=20")
                assert answer.status == 200
        eventually(lambda: empty(client), within=30, because="all is acknowledged")
    sender.close()
    for name, worker in workers.items():
        assert worker.running, name
        received = worker.output().count("] received")
        assert received >= len(STRANGE_ARGUMENTS), (name, received)
        assert "onnection to broker lost" not in worker.output(), name
    harness.drained(within=2 * RESCUE_PERIOD)
    harness.judge()


class Middleman(threading.Thread):
    """Stands between those who ring and the worker, and passes bells on as it likes while it is `unfair`."""

    def __init__(self, url: str, seed: int) -> None:
        super().__init__(daemon=True)
        self.fates = {"lost": 0, "doubled": 0, "late": 0, "passed on": 0}
        self.unfair = threading.Event()
        self.over = threading.Event()
        self._url, self._luck = url, random.Random(seed)
        self._late: list[bytes] = []

    def run(self) -> None:
        with redis.Redis.from_url(self._url) as client:
            while not self.over.is_set():
                # A worker that is not known to be awake gets messages only.
                client.delete(doorbells.AWAKE)
                taken = client.brpop(["edits"], timeout=0.1)
                if self.unfair.is_set():
                    self._upset_the_list(client)
                if taken is not None:
                    bells = self._fate(taken[1]) if self.unfair.is_set() else [taken[1], *self._late]
                    self._late = self._late if self.unfair.is_set() else []
                    if bells:
                        # The worker takes from the right: the newest first, and what was late before that.
                        client.rpush("behind", *bells)

    def _upset_the_list(self, client: redis.Redis) -> None:
        """What lies in the list for a worker that is awake is lost, doubled, or turned round."""
        fate = self._luck.choice(["lost", "doubled", "late"])
        listed = client.lrange(doorbells.LIST, 0, -1)
        if listed and fate == "lost":
            client.lpop(doorbells.LIST)
        elif listed:
            client.rpush(doorbells.LIST, *(listed if fate == "doubled" else listed[:1]))

    def _fate(self, bell: bytes) -> list[bytes]:
        fate = self._luck.choice(list(self.fates))
        self.fates[fate] += 1
        if fate == "late":
            self._late.append(bell)
            self._luck.shuffle(self._late)
        late = self._late[: self._luck.randint(0, 2)]
        return {"lost": [], "late": late, "passed on": [bell], "doubled": [bell, anew(bell), bell, *late]}[fate]


def test_row_10_lost_doubled_late_and_reordered_doorbells_change_nothing(
    redis_harness: Harness, own_valkey: Server
) -> None:
    harness = redis_harness
    posts = harness.populate()
    harness.start_api().start_ops()
    worker = harness.start_worker("edits", "--queues=behind")
    middleman = Middleman(own_valkey.url, harness.seed)
    middleman.start()
    with harness.load(posts):
        middleman.unfair.set()
        until = time.monotonic() + 5
        eventually(lambda: time.monotonic() > until and min(middleman.fates.values()) >= 10, within=30)
        middleman.unfair.clear()
        harness.note(f"bells: {middleman.fates}")
    harness.drained(within=2 * RESCUE_PERIOD)
    with redis.Redis.from_url(own_valkey.url) as client:
        eventually(lambda: not client.llen("behind") and not client.hlen("unacked"), within=30)
    middleman.over.set()
    middleman.join()
    assert worker.running
    harness.judge()


def anew(bell: bytes) -> bytes:
    """The same doorbell as another message."""
    message = json.loads(bell)
    message["headers"]["id"] = message["properties"]["correlation_id"] = str(uuid4())
    message["properties"]["delivery_tag"] = str(uuid4())
    return json.dumps(message).encode()
