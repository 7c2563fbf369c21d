"""What a worker of each queue has to do while something strikes it, and how one sees that it was done, once.

duty = DUTIES["publish"](harness, reference)
with duty.under_way():
    duty.more()  # again and again, while it is struck
duty.done()      # AssertionError until it is
duty.judged()
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from sqlalchemy import text

from tests import factories
from tests.faults.evidence import Call
from tests.faults.harness import Harness
from tests.faults.test_bulk import ended, fill, moved_once, no_deadlock, started
from tests.reference_services.client import Reference
from tests.waiting import eventually


def nobody_holds_anything(harness: Harness) -> None:
    """No claim, no lease, no chunk and no transaction is left to anybody."""
    assert harness.scalar("SELECT count(*) FROM posts WHERE claim_kind IS NOT NULL OR claim_token IS NOT NULL") == 0
    assert (
        harness.scalar("SELECT count(*) FROM webhook_events WHERE lease_token IS NOT NULL AND status = 'queued'") == 0
    )
    eventually(lambda: harness.locks_left() == [], within=30, because="no transaction is left open")


def left(harness: Harness, posts: Sequence[str], status: str) -> int:
    """How many of the posts have not come to that status."""
    return int(
        harness.scalar(
            "SELECT count(*) FROM posts WHERE id = ANY(:ids) AND status <> :status", ids=posts, status=status
        )
    )


class Duty:
    """One worker's. `beside`: the queues whose workers it needs, with a sound network."""

    beside: ClassVar[tuple[str, ...]] = ()
    needs_api = False

    def __init__(self, harness: Harness, reference: Reference) -> None:
        self.harness, self.reference = harness, reference

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Something to do, of which the first has been done and the last has not."""
        for _ in range(5):
            self.more()
        eventually(self.begun, within=30, every=0.1, because="the first of it is done")
        yield

    def more(self) -> None:
        """Something more to do."""

    def begun(self) -> bool:
        raise NotImplementedError

    def done(self) -> None:
        raise NotImplementedError

    def judged(self) -> None:
        """Each thing was done once, and the oracle is content."""
        raise NotImplementedError


class Publishes(Duty):
    """Posts that are due, of which one in three has an edit that is still queued: its claim has to drain it."""

    def __init__(self, harness: Harness, reference: Reference) -> None:
        super().__init__(harness, reference)
        self.posts: list[str] = []

    def more(self) -> None:
        with self.harness.engine.begin() as tx:
            ids = [factories.post(tx, scheduled_time=factories.soon(-5)) for _ in range(3)]
        self.harness.remember(ids)
        with self.harness.engine.begin() as tx:
            factories.edit(tx, ids[0], {"caption": "at the last moment"})
        self.posts += ids

    def begun(self) -> bool:
        return left(self.harness, self.posts, "posted") < len(self.posts)

    def done(self) -> None:
        assert left(self.harness, self.posts, "posted") == 0

    def judged(self) -> None:
        self.went_out_once()
        calls = self.reference.calls("publish")
        self.harness.judge([Call(call["at"], call["key"], call["body"], call["status"]) for call in calls])

    def went_out_once(self) -> None:
        """Under one key and body each, however often the publisher was asked."""
        calls = self.reference.calls("publish")
        assert all(call["genuine"] for call in calls)
        sent = {(call["post_id"], call["key"], call["body"]) for call in calls}
        assert sorted(post for post, _, _ in sent) == sorted(self.posts)
        ended = "SELECT count(*) FROM publish_attempts WHERE outcome = 'done'"
        assert self.harness.scalar(ended) == len(self.posts)
        self.harness.note(f"{len(self.posts)} posts went out by {len(calls)} calls")


class Renders(Duty):
    """Slides that wait for their video."""

    def __init__(self, harness: Harness, reference: Reference) -> None:
        super().__init__(harness, reference)
        self.posts: list[str] = []

    def more(self) -> None:
        with self.harness.engine.begin() as tx:
            ids = [factories.slides(tx, created_at=datetime.now(UTC) - timedelta(minutes=1)) for _ in range(3)]
        self.harness.remember(ids)
        self.posts += ids

    def begun(self) -> bool:
        return left(self.harness, self.posts, "generated") < len(self.posts)

    def done(self) -> None:
        assert left(self.harness, self.posts, "generated") == 0

    def judged(self) -> None:
        self.were_made_once()
        self.harness.judge()

    def were_made_once(self) -> None:
        """Under one key and body each, and what was made stands in the post."""
        calls = self.reference.calls("render")
        sent = {(call["post_id"], call["key"], call["body"]) for call in calls}
        assert sorted(post for post, _, _ in sent) == sorted(self.posts)
        with self.harness.engine.connect() as tx:
            made = tx.execute(text("SELECT rendered_url FROM posts WHERE id = ANY(:ids)"), {"ids": self.posts})
            assert len(set(made.scalars()) - {None}) == len(self.posts), "each has a video of its own"
        self.harness.note(f"{len(self.posts)} posts were rendered by {len(calls)} calls")


class Deliveries(Duty):
    """What happens to posts under load, to be told in its order."""

    beside = ("edits",)
    needs_api = True

    @contextmanager
    def under_way(self) -> Iterator[None]:
        with self.harness.load(self.harness.populate(10), clients=2, pause=0.8):
            eventually(self.begun, within=30, every=0.1, because="the first of it is told")
            yield
        self.harness.drained(within=30)

    def begun(self) -> bool:
        return bool(self.harness.scalar("SELECT count(*) FROM webhook_events WHERE status = 'delivered'"))

    def done(self) -> None:
        assert self.harness.scalar("SELECT count(*) FROM webhook_events WHERE status = 'queued'") == 0

    def judged(self) -> None:
        with self.harness.engine.connect() as tx:
            events = tx.execute(text("SELECT post_id, id, seq, status FROM webhook_events ORDER BY seq")).all()
        assert {event.status for event in events} == {"delivered"}
        place = {event.id: event.seq for event in events}
        heard: defaultdict[str, list[int]] = defaultdict(list)
        bodies: defaultdict[str, set[str]] = defaultdict(set)
        for call in self.reference.calls("webhook"):
            heard[call["post_id"]].append(place[json.loads(call["body"])["id"]])
            bodies[call["key"]].add(call["body"])
        for post, places in heard.items():
            assert places == sorted(places), f"{post} was told out of order"
        assert {seq for places in heard.values() for seq in places} == set(place.values()), "all of it was told"
        assert all(len(said) == 1 for said in bodies.values())
        calls = sum(len(places) for places in heard.values())
        self.harness.note(f"{len(events)} events were told by {calls} calls")
        self.harness.judge()


class Moves(Duty):
    """Bulk jobs one after the other, each of all posts, and single edits of some posts meanwhile."""

    beside = ("edits",)
    needs_api = True
    count = 5_000

    @contextmanager
    def under_way(self) -> Iterator[None]:
        self.edited = self.harness.populate(10)
        fill(self.harness, self.count)
        with self.harness.load(self.edited, clients=2, pause=0.2):
            self.jobs = [started(self.harness)]
            eventually(self.begun, within=30, every=0.05, because="its first chunks are moved")
            yield
        self.harness.drained(within=30)

    def more(self) -> None:
        if self.ended():
            self.jobs.append(started(self.harness))

    def job(self) -> dict[str, Any]:
        """The newest."""
        found: dict[str, Any] = self.harness.http.get(f"/v1/reschedules/{self.jobs[-1]}").json()
        return found

    def ended(self) -> bool:
        return self.job()["status"] not in {"queued", "running"}

    def begun(self) -> bool:
        return bool(self.job()["applied"])

    def done(self) -> None:
        assert self.ended(), self.job()

    def judged(self) -> None:
        self.harness.note(f"{len(self.jobs)} jobs")
        moved_once(self.harness, [ended(self.harness, job_id, within=1) for job_id in self.jobs], self.edited)
        no_deadlock(self.harness, *self.harness.workers.values())
        self.harness.judge()


class Rounds(Duty):
    """Dispatch and rescue: posts that are due, edits whose doorbell nobody rang, slides that nobody asked for."""

    beside = ("publish", "edits", "render")

    def __init__(self, harness: Harness, reference: Reference) -> None:
        super().__init__(harness, reference)
        self.publishes, self.renders = Publishes(harness, reference), Renders(harness, reference)
        self.waiting = harness.populate(10)
        self.edits = 0

    def more(self) -> None:
        self.publishes.more()
        self.renders.more()
        with self.harness.engine.begin() as tx:
            factories.edit(tx, self.waiting[self.edits % 10], {"caption": f"forgotten {self.edits}"})
        self.edits += 1

    def begun(self) -> bool:
        return self.publishes.begun() and self.renders.begun() and self.harness.queued() < self.edits

    def done(self) -> None:
        self.publishes.done()
        self.renders.done()
        assert self.harness.queued() == 0

    def judged(self) -> None:
        self.renders.were_made_once()
        self.publishes.judged()


DUTIES: dict[str, type[Duty]] = {
    "publish": Publishes, "render": Renders, "webhooks": Deliveries, "bulk": Moves, "ops": Rounds,
}  # fmt: skip
