"""The primary is killed under load and its synchronous standby is promoted: no accepted edit is lost."""

import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from shared.local.valkey import Valkey
from shared.store import prerequisites
from tests.conftest import empty_database
from tests.deployment.standby import both, promote, standby_of
from tests.processes import Processes, Server
from tests.stack import Running
from tests.waiting import eventually

WRITERS = 4


@pytest.fixture
def servers(own_postgres: Server) -> Iterator[tuple[Server, Server]]:
    with standby_of(own_postgres, synchronous=True) as standby:
        yield own_postgres, standby


def test_every_edit_that_was_answered_is_applied_once(servers: tuple[Server, Server], valkey: Valkey) -> None:
    primary, standby = servers
    url, processes = both(primary, standby), Processes()
    assert prerequisites.server(url) is not None
    stack = Running(processes, url, empty_database(valkey))
    accepted: list[str] = []
    said, ended = Counter[int](), threading.Event()
    try:
        stack.start_worker("edits")
        stack.start_worker("ops")
        stack.start_beat()
        stack.start_api()
        posts = [stack.post() for _ in range(WRITERS)]

        def write_on(post: str) -> None:
            number = 0
            while not ended.is_set():
                number += 1
                answer = stack.patch(post, {"caption": f"number {number}"}, Prefer="wait=1")
                said[answer.status_code] += 1
                if answer.status_code in (200, 202):
                    accepted.append(answer.headers["edit-id"])

        writers = [threading.Thread(target=write_on, args=[post]) for post in posts]
        for writer in writers:
            writer.start()
        eventually(lambda: said[200] > 50, within=30)
        primary.process.kill_tree()
        eventually(lambda: said[503] > 0, within=30, because="nobody takes writes")
        promote(standby)
        before = said[200]
        eventually(lambda: said[200] > before + 50, within=60, because="all processes find the new primary")
        ended.set()
        for writer in writers:
            writer.join()
        assert set(said) <= {200, 202, 503}, said
        assert_applied_once(stack, accepted)
    except BaseException:
        print(processes.report(), said)
        raise
    finally:
        ended.set()
        stack.close()
        processes.close()


def assert_applied_once(stack: Running, accepted: list[str]) -> None:
    def queued() -> int:
        with stack.engine.connect() as tx:
            return int(tx.execute(text("SELECT count(*) FROM edits WHERE status = 'queued'")).scalar_one())

    eventually(lambda: queued() == 0, within=60, because="rescue rings for what was queued")
    with stack.engine.connect() as tx:
        found = tx.execute(text("SELECT id, status FROM edits")).all()
        posts = tx.execute(
            text("""SELECT p.revision - 1 AS revisions, count(e.id) AS edits, count(DISTINCT e.revision) AS own
                    FROM posts p JOIN edits e ON e.post_id = p.id AND e.status = 'applied' GROUP BY p.id, p.revision""")
        ).all()
    assert set(accepted) <= {row.id for row in found if row.status == "applied"}
    for post in posts:
        assert post.revisions == post.edits == post.own
    assert len(posts) == WRITERS
