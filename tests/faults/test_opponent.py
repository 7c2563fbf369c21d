"""Row 23 of the faults: a publisher that plays against us, while clients edit and delete, workers die, and operators
retry. Its door counts the effects: never two for one post, and none for one that was deleted or refused.

tests/races/test_opponent.py plays the same game step by step; here every process is a real one.
"""

import itertools
import random
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from shared.domain.service_answers import KEY_TOO_OLD
from tests.faults.evidence import Call
from tests.faults.harness import Harness
from tests.faults.publishing import all_end, due, waits_end
from tests.reference_services.client import Played
from tests.waiting import eventually


def play(
    harness: Harness,
    opponent: Played,
    posts: list[str],
    chance: random.Random,
    seconds: float,
    *,
    numbers: Iterator[int],
) -> Counter[str]:
    """What clients, operators and time do meanwhile. `numbers` name the requests of the whole game, each once."""
    seen, until = Counter[str](), time.monotonic() + seconds
    while time.monotonic() < until:
        number, post = next(numbers), chance.choice(posts)
        what = chance.choices(
            ("edit", "delete", "retry", "time", "claims expire", "restart", "kill"), (8, 0.4, 5, 8, 2, 1, 0.6)
        )[0]
        said: int | str | None
        if what == "edit":
            said = harness.send(post, {"caption": f"caption {number}"}, f"edit{number}", Prefer="wait=2").status
        elif what == "delete":
            found = harness.http.request("DELETE", "/v1/posts", json={"postIds": [post]}).json()
            said = found["failed"][0]["reason"] if found["failed"] else "well"
        elif what == "retry":
            said = harness.http.post(f"/v1/posts/{post}/retry").status_code
        elif what == "restart":
            said = None
            opponent.restart()
        elif what == "kill":
            said = None
            harness.workers["publish"].kill()
            harness.start_worker("publish")
        else:
            said = None
            waits_end(harness, posts, claims=what == "claims expire")
            time.sleep(0.1)  # how often it is done
        seen[f"{what} {said or ''}".strip()] += 1
        harness.note(f"{what} {post} {said or ''}")
    return seen


def answered(opponent: Played) -> Counter[str]:
    return Counter(f"answered {call['status']}" for call in opponent.journal()["calls"])


def game(harness: Harness, tmp_path: Path, count: int, seconds: float) -> Counter[str]:
    opponent = Played(harness.processes, harness.seed, tmp_path / "journal")
    harness.environment |= opponent.environment | {
        "REDRAFT_SERVICE_TIMEOUT": "1", "REDRAFT_CLAIM_EXPIRY": "4", "REDRAFT_RESCUE_PERIOD": "1",
    }  # fmt: skip
    harness.start_api().start_ops()
    for name in ("edits", "publish"):
        harness.start_worker(name)
    # They come due one after the other, so that most are edited before, and some deleted.
    start = datetime.now(UTC).replace(microsecond=0)
    posts = [due(harness, scheduled_time=start + timedelta(seconds=seconds * n / count))[0] for n in range(count)]
    chance, last = random.Random(harness.seed), time.monotonic() + 6 * seconds
    numbers = itertools.count(1)
    seen = play(harness, opponent, posts, chance, seconds, numbers=numbers)
    # Deletions and a slow machine may leave little to publish: then the game has more posts.
    while time.monotonic() < last and not ((calls := answered(opponent)).total() > count and len(calls) > 2):
        posts += due(harness, 2)
        seen += play(harness, opponent, posts, chance, seconds / 3, numbers=numbers)
    opponent.calm()
    eventually(lambda: all_end(harness, posts), within=60, every=0.3, because="every post has an end")
    harness.drained(within=30)

    journal = opponent.journal()
    effects = Counter(post for post, _ in journal["effects"])
    assert [post for post, times in effects.items() if times > 1] == [], "went out twice"
    for post in posts:
        row = harness.row("posts", post)
        assert (row.status == "posted") == bool(effects[post]), (post, row)
    assert all(call["genuine"] for call in journal["calls"])
    harness.judge([Call(call["at"], call["key"], call["body"], call["status"]) for call in journal["calls"]])
    seen += answered(opponent)
    print(dict(seen.most_common()))
    return seen


DAYS = text("""
    UPDATE publish_attempts SET started_at = started_at - interval '3 days',
        finished_at = finished_at - interval '3 days'""")


def weekend(harness: Harness, tmp_path: Path, count: int, seconds: float) -> Counter[str]:
    """A game; then three days without workers, after which the publisher knows no key any more. How posts ended."""
    opponent = Played(harness.processes, harness.seed, tmp_path / "journal")
    harness.environment |= opponent.environment | {
        "REDRAFT_SERVICE_TIMEOUT": "1", "REDRAFT_CLAIM_EXPIRY": "4", "REDRAFT_RESCUE_PERIOD": "1",
    }  # fmt: skip
    harness.start_api().start_ops()
    publisher = harness.start_worker("publish")
    posts = due(harness, count)
    chance, until = random.Random(harness.seed), time.monotonic() + seconds
    while time.monotonic() < until:
        if chance.random() < 0.3:
            harness.http.post(f"/v1/posts/{chance.choice(posts)}/retry")
        waits_end(harness, posts)
        time.sleep(0.1)  # how often it is done
    publisher.kill()
    opponent.restart()  # and what was under way comes to nothing
    opponent.forget()
    opponent.calm()
    with harness.engine.begin() as tx:
        tx.execute(DAYS)
    harness.start_worker("publish")

    def ended() -> bool:
        waits_end(harness, posts, claims=True)
        rows = [harness.row("posts", post) for post in posts]
        left = [f"{row.id} {row.status} {row.claim_kind}" for row in rows if row.status not in {"posted", "failed"}]
        assert not left, left
        return True

    eventually(ended, within=60, every=0.3, because="every post has an end")
    effects = Counter(post for post, _ in opponent.journal()["effects"])
    assert [post for post, times in effects.items() if times > 1] == [], "went out twice"
    seen = Counter[str]()
    for post in posts:
        row = harness.row("posts", post)
        seen[f"{row.status} {row.failure_reason or ''}".strip()] += 1
        assert row.status == "failed" or effects[post] == 1
        if row.failure_message == KEY_TOO_OLD:
            refused = harness.http.post(f"/v1/posts/{post}/retry")
            assert (refused.status_code, "--not-sent" in refused.text) == (409, True)
            seen["too old"] += 1
    print(dict(seen))
    return seen


def test_row_23_a_weekend_without_workers_makes_nothing_go_out_twice(harness: Harness, tmp_path: Path) -> None:
    assert weekend(harness, tmp_path, 12, 3)["too old"]


def test_row_23_nothing_goes_out_twice_whatever_a_publisher_does(harness: Harness, tmp_path: Path) -> None:
    answers = {what: times for what, times in game(harness, tmp_path, 8, 10).items() if what.startswith("answered")}
    assert sum(answers.values()) > 8
    assert len(answers) > 2


@pytest.mark.faults
def test_row_23_nothing_goes_out_twice_in_a_long_game(harness: Harness, tmp_path: Path) -> None:
    seen = game(harness, tmp_path, 60, 120)
    assert min(seen["restart"], seen["kill"], seen["edit 200"], seen["edit 409"], seen["retry 200"]) > 2
    assert seen["delete well"]
