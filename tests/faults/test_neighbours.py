"""Row 25 of docs/faults.md: one workspace floods; another's edits are answered 200, and its jobs take their turn."""

import asyncio
import json
import random
import resource
import threading
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import text

from shared.local.postgres import PostgreSQL
from shared.local.valkey import Valkey
from tests import factories
from tests.api.answers import client
from tests.conftest import TEMPLATE, empty_database
from tests.loopback import LOOPBACK
from tests.stack import Running, running
from tests.waiting import eventually

SEED = 25
FLOOD, QUIET = "sk_flooding_0123456789", "sk_quiet_0123456789"
FILES = 8192
numbers = count()


@pytest.fixture
def stack(postgres: PostgreSQL, valkey: Valkey) -> Iterator[Running]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES:
        pytest.skip(f"the flood needs {FILES} files, and this process may have {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, FILES), hard))
    number = next(numbers)
    url = postgres.create_database(f"neighbours_{number}", template=TEMPLATE)
    with running(url, empty_database(valkey), "edits", "bulk") as stack:
        with stack.engine.begin() as tx:
            factories.workspace(tx, "ws_flooding", "_flooding", FLOOD)
            factories.workspace(tx, "ws_quiet", "_quiet", QUIET)
        yield stack
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Flood:
    """Connections that PATCH without a pause, each one post after the other, until `stop`."""

    def __init__(self, url: str, posts: list[str], connections: int) -> None:
        self.statuses: Counter[int | str] = Counter()
        self._address = urlsplit(url)
        self._posts = posts
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all(connections)), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    async def _all(self, connections: int) -> None:
        await asyncio.gather(*(self._one(number) for number in range(connections)))

    async def _one(self, number: int) -> None:
        source = random.Random(SEED * 10_000 + number)
        while not self._over.is_set():
            try:
                reader, writer = await asyncio.open_connection(self._address.hostname, self._address.port)
                while not self._over.is_set():
                    self.statuses[await self._patch(reader, writer, source)] += 1
                writer.close()
            except (OSError, asyncio.IncompleteReadError) as error:
                self.statuses[type(error).__name__] += 1

    async def _patch(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: random.Random
    ) -> int:  # fmt: skip
        body = json.dumps({"caption": f"flood {source.random()}"}).encode()
        head = (
            f"PATCH /v1/posts/{source.choice(self._posts)} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {FLOOD}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = answer.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length))
        return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize(
    ("connections", "edits"),
    [(64, 8), pytest.param(512, 20, marks=pytest.mark.faults), pytest.param(2500, 20, marks=pytest.mark.faults)],
)
def test_row_25_beside_a_flood_of_edits_another_workspaces_edits_are_all_answered_200(
    stack: Running, connections: int, edits: int
) -> None:
    posts = [stack.post(workspace_id="ws_flooding", account_id="acc_tiktok_flooding") for _ in range(100)]
    mine = stack.post(workspace_id="ws_quiet", account_id="acc_tiktok_quiet")
    assert stack.api
    flood = Flood(stack.api.url, posts, connections)
    try:
        eventually(lambda: flood.statuses[200] > connections, within=60, because="the flood is under way")
        with client(stack, QUIET) as http:
            answers = []
            for number in range(edits):
                # A client that comes anew each time, as most programs do.
                fresh = httpx.patch(
                    f"{stack.api.url}/v1/posts/{mine}",
                    json={"caption": f"quiet {number}"},
                    headers=http.headers,
                    timeout=40,
                    **LOOPBACK,
                )
                answers += [fresh, http.get(f"/v1/posts/{mine}")]
                time.sleep(0.1)  # the pace of a client that asks for little
    finally:
        flood.stop()
    assert [answer.status_code for answer in answers] == [200] * len(answers)
    assert [answer.headers["etag"] for answer in answers[::2]] == [f'"{number + 2}"' for number in range(edits)]
    assert set(flood.statuses) <= {200, 202, 503}, flood.statuses
    if connections == 64:
        assert set(flood.statuses) == {200}, f"within its share: {flood.statuses}"

    def queued() -> int:
        return int(stack.scalar("SELECT count(*) FROM edits WHERE status = 'queued'"))

    eventually(lambda: queued() == 0, within=60, because="every edit ends")
    applied = stack.scalar("SELECT count(*) FROM edits WHERE workspace_id = 'ws_flooding' AND status = 'applied'")
    assert applied == stack.scalar("SELECT count(*) FROM edits WHERE workspace_id = 'ws_flooding'")
    assert applied >= flood.statuses[200] + flood.statuses[202]
    revisions = stack.scalar("SELECT sum(revision - 1) FROM posts WHERE workspace_id = 'ws_flooding'")
    assert revisions == applied, "each changed its post once"


@pytest.mark.parametrize("requests", [60, pytest.param(1500, marks=pytest.mark.faults)])
def test_row_25_beside_a_flood_of_jobs_another_workspaces_job_takes_its_turn(stack: Running, requests: int) -> None:
    with stack.engine.begin() as tx:
        tx.execute(
            text("""INSERT INTO posts (id, workspace_id, account_id, platform, content_type, content_url, caption,
                        scheduled_time, status)
                    SELECT 'post_flood' || n, 'ws_flooding', 'acc_tiktok_flooding', 'tiktok', 'video',
                        '"https://cdn.example.com/a.mp4"', 'x', now() + interval '3 days', 'generated'
                    FROM generate_series(1, 3000) n""")
        )
    mine = stack.post(workspace_id="ws_quiet", account_id="acc_tiktok_quiet")
    before = stack.row("posts", mine).scheduled_time
    body = {"filter": {"all": True}, "shift": "P1D"}
    with client(stack, FLOOD) as flooding, client(stack, QUIET) as http:
        found = Counter(
            flooding.post("/v1/reschedules", json=body | {"dryRun": True}).status_code for _ in range(requests)
        )
        assert set(found) == {202, 429}, found
        live = "SELECT count(*) FROM reschedules WHERE workspace_id = 'ws_flooding' AND status IN ('queued', 'running')"
        assert stack.scalar(live) <= 20
        started = http.post("/v1/reschedules", json=body)
        assert started.status_code == 202
        left = stack.scalar(live)
        path = started.headers["location"]
        eventually(lambda: http.get(path).json()["status"] == "done", within=40, because="its turn comes")
        assert left < 15 or stack.scalar(live) > 0, "before the others were through"
    assert (stack.row("posts", mine).scheduled_time - before).days == 1
    eventually(lambda: stack.scalar(live) == 0, within=120, because="the others end too")
