"""The soak's own parts: its log comes back as it was written, and what is broken in any shard is found and counted."""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import Engine, text

from tests import jobs
from tests.faults.evidence import Exchange
from tests.faults.test_oracle import DUE, History
from tests.processes import Processes
from tests.soak import strikes, verdict
from tests.soak.log import SHARDS, Log, shard_of
from tests.soak.verdict import Verdict
from tests.waiting import eventually


@pytest.fixture
def history(engine: Engine) -> History:
    """Six posts in different shards, each edited four times, one of them published; and a bulk job."""
    history = History(engine)
    posts = [history.post() for _ in range(6)]
    for number in range(4):
        for post in posts:
            history.edit(post, {"caption": f"caption {number}"}, key=f"key-{post}-{number}")
    history.edit(posts[0], {"scheduledTime": DUE, "timezone": "Europe/London"})
    history.publish(posts[0])
    jobs.done({"filter": {"postIds": posts[1:]}, "shift": "PT1H"})
    return history


def reached(history: History, folder: Path) -> Verdict:
    """The verdict on what is there now."""
    log = Log(folder / f"log-{time.monotonic_ns()}")
    for one in history.exchanges:
        log.add(
            one.request, one.post_id, one.body, one.sent,
            key=one.key, answered=one.answered, status=one.status, headers=one.headers,
            answer=json.dumps(one.answer).encode(),
        )  # fmt: skip
    log.close()
    journal: list[dict[str, Any]] = [
        {
            "post_id": history.published,
            "at": call.at,
            "key": call.key,
            "body": call.body,
            "status": 200,
            "genuine": True,
        }
        for call in history.journal
    ]
    return verdict.reach(history.engine, history.first, log, journal)


def test_a_log_is_read_back_as_it_was_written_each_post_in_one_shard(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    said = {
        f"post_{n}": Exchange(
            f"r{n}", f"post_{n}", {"caption": "ü"}, 1.5, 2.5, 200, {"etag": '"2"'}, {"a": [n]}, "k", ""
        )
        for n in range(500)
    }
    for one in said.values():
        log.add(
            one.request, one.post_id, one.body, one.sent,
            key=one.key, answered=one.answered, status=one.status, headers=one.headers,
            answer=b'{"a":\n [%d]}' % one.answer["a"][0],
        )  # fmt: skip
    log.add("silent", "post_0", {}, 3.0, error="TimeoutError")
    log.close()
    read = [one for shard in range(SHARDS) for one in log.read(shard)]
    assert len(read) == log.exchanges == 501
    assert {one.post_id: one for one in read if one.status} == said
    assert [one for one in read if one.status is None] == [Exchange("silent", "post_0", {}, 3.0, error="TimeoutError")]
    assert len({shard_of(post) for post in said}) == SHARDS


def test_an_honest_run_is_clean_and_counted(history: History, tmp_path: Path) -> None:
    found = reached(history, tmp_path)
    assert found.words == []
    assert found.clean
    assert (found.results, found.judged, found.moves) == ({"applied": 30}, 30, 5)
    assert (found.exchanges, found.published, found.calls) == (25, 1, 1)


@pytest.mark.parametrize(
    ("name", "statement"),
    [
        ("lost", "DELETE FROM edits WHERE id = (SELECT min(id) FROM edits)"),
        ("lost", "UPDATE edits SET status = 'queued', finalized_at = NULL WHERE id = (SELECT max(id) FROM edits)"),
        ("doubled", "UPDATE posts SET revision = revision + 1 WHERE id = (SELECT max(id) FROM posts)"),
        ("out of order", "UPDATE edits SET revision = 7 - revision WHERE revision BETWEEN 2 AND 5"),
        ("published twice", "UPDATE publish_attempts SET body = replace(body, 'caption 3', 'caption 2')"),
        ("post and replay of its edits differ", "UPDATE posts SET caption = 'other' WHERE status = 'generated'"),
        ("bulk jobs whose figures and rows differ", "UPDATE reschedules SET applied = applied - 1, skipped = 1"),
        ("bulk jobs whose figures and rows differ", "UPDATE edits SET post_id = 'x' WHERE reschedule_id IS NOT NULL"),
    ],
)
def test_what_is_broken_is_found_and_told(history: History, tmp_path: Path, name: str, statement: str) -> None:
    with history.engine.begin() as tx:
        assert tx.execute(text(statement)).rowcount
    found = reached(history, tmp_path)
    assert found.broken[name] > 0, found.broken
    assert not found.clean
    assert found.words


def test_a_call_that_the_publisher_refused_is_found(history: History, tmp_path: Path) -> None:
    log = Log(tmp_path / "none")
    log.close()
    call = {"post_id": "post_1", "at": 1.0, "key": "k", "body": '{"post": {"postId": "post_1"}}', "status": 422}
    found = verdict.reach(history.engine, {}, log, [{**call, "genuine": True}])
    assert found.broken["published twice"] >= 1


def test_every_kind_of_violation_has_a_name_in_the_report() -> None:
    source = (Path(verdict.__file__).parents[1] / "faults" / "oracle.py").read_text()
    kinds = Counter(line.split('Violation("')[1].split('"')[0] for line in source.splitlines() if 'Violation("' in line)
    assert kinds.keys() <= verdict.NAMES.keys()
    assert len(kinds) >= 6


def test_what_was_frozen_runs_again_whatever_happens_meanwhile(processes: Processes) -> None:
    process = psutil.Process(processes.start(["/bin/sleep", "600"]).pid)

    def interrupted() -> None:
        with strikes._frozen([process]):
            eventually(lambda: process.status() == psutil.STATUS_STOPPED, within=5)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    eventually(lambda: process.status() != psutil.STATUS_STOPPED, within=5)
