"""Random interleavings of edits, applies, claims, finishes and doorbells, against the real database and the oracle.

Every worker is a thread of this process that really holds its locks: one of them may be stopped anywhere between lock
and commit while the others go on, any number of calls may be out, claims expire under their holders, a person holds a
row, and messages are lost, doubled, late and made up. The oracle of docs/faults.md holds after each step. Once all is
quiet every edit has its result and every due post has gone out.
"""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import Connection, Engine, create_engine, text

from shared.domain.service_answers import Reply
from shared.local.postgres import PostgreSQL
from shared.store import StaleWriteError, db
from tests import factories
from tests.conftest import TEMPLATE
from tests.faults.actors import POINTS, Actor, Answer, InOneThread, stopping_points
from tests.faults.evidence import Exchange, PostRow, gather, snapshot
from tests.faults.oracle import judge, verdict
from worker.apply import apply_edits
from worker.follow_ups import FollowUps, Publish, Render
from worker.publish import publish
from worker.render import render

Message = tuple[Any, ...]

# An edit is taken to have been accepted two hours ago, so that times which have come since can be asked for.
ACCEPTED = timedelta(hours=2)
CDN = "https://cdn.example.com"
# Seldom done: that ends a post's story.
kinds = st.sampled_from(["never_started", "server_error", "unknown", "done", "never_started", "unknown", "refused"])


EXPIRE = "UPDATE posts SET claim_expires_at = now() WHERE id = :id AND claim_kind IS NOT NULL"
RETRY = "UPDATE posts SET retry_at = now() WHERE id = :id AND retry_at IS NOT NULL"
HAPPENINGS = [
    *["an edit is accepted"] * 6, *["a worker turns to a post"] * 8, *["a call is answered"] * 5, "a claim expires",
    *["a message comes"] * 3, "a message comes twice", "a message is lost", "a message is made up", "rescue rings",
    "a person holds a post",
]  # fmt: skip


def local(minutes: int) -> str:
    return (datetime.now(UTC) + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M")


captions = st.sampled_from(["a", "b", "first"]).map(lambda caption: {"caption": caption})
times = st.sampled_from([-60, -30, 60, 90]).map(lambda minutes: {"scheduledTime": minutes, "timezone": "Europe/London"})
sounds = st.sampled_from([None, "7001"]).map(lambda sound: {"soundId": sound})
contents = st.sampled_from(
    [
        {"contentType": "video", "contentUrl": f"{CDN}/a.mp4"},
        {"contentType": "video", "contentUrl": f"{CDN}/b.mp4"},
        {"contentType": "slides", "contentUrl": [f"{CDN}/1.jpg", f"{CDN}/2.jpg"]},
        {"contentType": "slides", "contentUrl": [f"{CDN}/3.jpg"]},
    ]
)
patches = st.one_of(
    captions, times, sounds, contents, contents, st.tuples(captions, times).map(lambda two: two[0] | two[1])
)
# Most of a run concerns one post, else hardly anything would meet.
which = st.sampled_from([None, None, None, 0, 1, 2])
picks = st.integers(0, 10**6)
tags = st.sampled_from([None, None, None, None, 1, 2, 3])
stops = st.sampled_from([None, None, None, None, None, *POINTS])


class Interleavings(RuleBasedStateMachine):
    """Three posts: a video that is due, a video for later, and slides that are due once they are rendered."""

    engine: ClassVar[Engine]

    def __init__(self) -> None:
        super().__init__()
        self.posts: list[str] = []
        self.focus = 0
        self.first: dict[str, PostRow] = {}
        self.exchanges: list[Exchange] = []
        self.messages: list[Message] = []
        self.actors: list[Actor] = []
        self.flying: list[tuple[Actor, Message, str]] = []
        self.paused: tuple[Actor, Message] | None = None
        self.person: tuple[Connection, str] | None = None

    @initialize(focus=st.sampled_from([2, 0, 1]))
    def create(self, focus: int) -> None:
        self.focus = focus
        with self.engine.begin() as tx:
            due, later = factories.post(tx, scheduled_time=factories.soon(-5)), factories.post(tx)
            self.posts = [due, later, factories.slides(tx, scheduled_time=factories.soon(-5))]
        self.first = snapshot(self.engine, self.posts)
        self.messages = [("publish", due, 1), ("render", self.posts[2], 1)]

    @rule(
        what=st.sampled_from(HAPPENINGS), post=which, patch=patches, tag=tags, pick=picks, stop_at=stops, kind=kinds
    )  # one rule, since hypothesis would leave most of many out of each run
    def happens(  # noqa: PLR0917  -- hypothesis names them
        self,
        what: str,
        post: int | None,
        patch: dict[str, Any],
        tag: int | None,
        pick: int,
        stop_at: str | None,
        kind: Any,
    ) -> None:
        post = self.focus if post is None else post
        match what:
            case "an edit is accepted":
                self.accept(post, patch, tag)
            case "a claim expires":
                self._plainly(EXPIRE, post)
            case "a person holds a post" if self.person is None and self.paused is None:
                self.a_person_holds(post)
            case "rescue rings":
                self.rescue()
            case "a message is lost" if self.messages:
                self.messages.pop(pick % len(self.messages))
            case "a message is made up":
                self.messages.append((("publish", "render")[pick % 2], self.posts[post], pick % 5))
            case "a message comes" if self.messages:
                self._work(self.messages.pop(pick % len(self.messages)), stop_at)
            case "a message comes twice" if self.messages:
                self._work(self.messages[pick % len(self.messages)], stop_at)
            case "a worker turns to a post":
                self._plainly((RETRY, RETRY, EXPIRE)[pick % 3], post)
                ring = [message for message in self.due() if message[1] == self.posts[post]]
                if ring:
                    self._work(ring[pick % len(ring)], stop_at)
            case "a call is answered" if self.person is not None:
                self.the_person_lets_go()
            case "a call is answered" if self.paused is not None:
                self.let_the_stopped_one_on()
            case "a call is answered" if self.flying:
                self.answer(pick % len(self.flying), kind, stop_at)

    # What clients, the clock and people do.

    def accept(self, post: int, patch: dict[str, Any], tag: int | None) -> None:
        body = patch | ({"scheduledTime": local(patch["scheduledTime"])} if "scheduledTime" in patch else {})
        number, post_id = len(self.exchanges), self.posts[post]
        request = f"r{next(factories.numbers)}"
        with self.engine.begin() as tx:
            edit = factories.edit(tx, post_id, body, if_match=None if tag is None else (f'"{tag}"',))
            tx.execute(
                text("UPDATE edits SET request_id = :request, created_at = created_at - :age WHERE id = :id"),
                {"request": request, "id": edit, "age": ACCEPTED},
            )
        self.exchanges.append(Exchange(request, post_id, body, number, number + 0.5, 202, {"edit-id": edit}))
        self.messages.append(("edits", post_id))

    def _plainly(self, statement: str, post: int) -> None:
        """Time passes, unless somebody holds the row: then it passes another time."""
        with self.engine.connect() as tx:
            tx.execute(text("SET LOCAL lock_timeout = 50"))
            try:
                tx.execute(text(statement), {"id": self.posts[post]})
            except Exception as error:
                if not db.lock_timed_out(error):
                    raise
                tx.rollback()
            else:
                tx.commit()

    def a_person_holds(self, post: int) -> None:
        session = self.engine.connect()
        session.execute(text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE"), {"id": self.posts[post]})
        self.person = session, self.posts[post]

    def the_person_lets_go(self) -> None:
        assert self.person is not None
        self.person[0].rollback()
        self.person[0].close()
        self.person = None

    # What the broker does.

    def rescue(self) -> None:
        """What is queued, due or unrendered is rung for again."""
        self.messages += self.due()

    def due(self) -> list[Message]:
        asked, found = {"ids": self.posts}, list[Message]()
        with self.engine.connect() as tx:
            queued = tx.execute(
                text("SELECT DISTINCT post_id FROM edits WHERE post_id = ANY(:ids) AND status = 'queued'"), asked
            )
            found += sorted(("edits", row.post_id) for row in queued)
            for post in tx.execute(text("SELECT * FROM posts WHERE id = ANY(:ids) ORDER BY id"), asked):
                if post.status == "pending_render":
                    found.append(("render", post.id, post.content_revision))
                elif post.status == "generated" and post.scheduled_time <= datetime.now(UTC):
                    found.append(("publish", post.id, post.schedule_revision))
        return found

    # What workers do.

    def _work(self, message: Message, stop_at: str | None = None, answer: Answer = None) -> None:
        kind, post_id, *revision = message
        stop_at = stop_at if self.paused is None else None
        work = {
            "edits": lambda: self._ring(apply_edits([post_id]).follow_ups),
            "publish": lambda: publish([(post_id, *revision)], InOneThread(), self._ring),  # type: ignore[arg-type]
            "render": lambda: render(post_id, *revision, self._ring),  # type: ignore[call-arg]
        }
        actor = Actor(work[kind], stop_at=stop_at, answer=answer)
        self.actors.append(actor)
        self._see(actor, message, actor.start())

    def _see(self, actor: Actor, message: Message, point: str | None) -> None:
        """Where a worker has come to."""
        event(f"{message[0]} came to {point or 'its end'}")
        if point == "call":
            self.flying.append((actor, message, self._row(message[1]).claim_token))
        elif point is not None:
            self.paused = actor, message
        else:
            try:
                actor.result()
            except Exception as error:
                # As worker/runtime/app.py: what passes by itself is rung again.
                if not (db.is_transient(error) or isinstance(error, StaleWriteError)):
                    raise
                self.messages.append(message)

    def _row(self, post_id: str) -> Any:
        with self.engine.connect() as tx:
            return tx.execute(text("SELECT * FROM posts WHERE id = :id"), {"id": post_id}).one()

    def answer(self, number: int, kind: Any, stop_at: str | None) -> None:
        """A call comes back; to somebody whose claim is not his any more it must mean nothing."""
        actor, message, token = self.flying.pop(number)
        before = self._row(message[1])
        stale = before.claim_token != token and (message[0] == "publish" or kind == "done")
        actor.stop_at = None if stale else stop_at
        event(f"{message[0]} answered{', too late' if stale else ''}")
        self._see(actor, message, actor.go_on(_reply(kind)))
        if stale:
            after = self._row(message[1])
            # A 2xx says that a post is out which has failed, or was put back, for want of that answer.
            found_out = message[0] == "publish" and kind == "done" and after.status == "posted"
            assert after == before or found_out, f"a stale {message[0]} changed {before}"

    def let_the_stopped_one_on(self) -> None:
        assert self.paused is not None
        (actor, message), self.paused = self.paused, None
        self._see(actor, message, actor.go_on())

    def _ring(self, follow_ups: FollowUps) -> None:
        publishes = [*follow_ups.publishes, *(one for _, one in follow_ups.snoozes if isinstance(one, Publish))]
        renders = [*follow_ups.renders, *(one for _, one in follow_ups.snoozes if isinstance(one, Render))]
        self.messages += [("publish", one.post_id, one.schedule_revision) for one in publishes]
        self.messages += [("render", *one) for one in renders]
        edits = [*follow_ups.edits, *follow_ups.edits_first, *follow_ups.contended]
        self.messages += [("edits", post_id) for post_id in edits]

    # What must hold.

    @invariant()
    def the_oracle_holds(self) -> None:
        self._judge(settled=False)

    def _judge(self, *, settled: bool) -> None:
        journal = [call for actor in self.actors for call in actor.calls]
        evidence = gather(self.engine, self.first, self.exchanges, journal)
        violations = judge(evidence, settled=settled)
        for edit in evidence.edits:
            if edit.error_code == "cannot_edit" and not settled:
                event("an edit came too late")
        assert not violations, verdict(evidence, violations)
        for call in journal:
            post = json.loads(call.body)["post"]
            if post["postId"] == self.posts[2] and post["contentType"] == "slides":
                assert post["renderedUrl"] == rendered(post), evidence.story(post["postId"])

    def teardown(self) -> None:
        """Everything is let go and delivered; then all edits have ended, and all that is due has gone out."""
        if self.person is not None:
            self.the_person_lets_go()
        if self.paused is not None:
            self.let_the_stopped_one_on()
        while self.flying:
            self.answer(0, "done", None)
        for _ in range(40):
            self.rescue()
            if not self.messages:
                break
            for post in range(len(self.posts)):
                self._plainly(EXPIRE, post)
                self._plainly(RETRY, post)
            waiting, self.messages = list(dict.fromkeys(self.messages)), []
            for message in waiting:
                self._work(message, answer=_reply("done"))
        assert not self.messages, f"never quiet: {self.messages}"
        assert all(actor.over for actor in self.actors)
        self._judge(settled=True)


def rendered(post: dict[str, Any]) -> str:
    """What a render makes of a post: one URL for each content."""
    read = json.dumps([post["contentType"], post["contentUrl"], post["soundId"]])
    return f"{CDN}/{sha256(read.encode()).hexdigest()}.mp4"


def _reply(kind: Any) -> Callable[[str], Reply]:
    def reply(body: str) -> Reply:
        said = json.loads(body)
        if kind == "done" and said["type"] == "render":
            return Reply("done", {"renderedUrl": rendered(said["post"]), "thumbnailUrl": f"{CDN}/t.jpg"})
        return Reply(kind, message=None if kind == "done" else kind)

    return reply


class MoreInterleavings(Interleavings):
    """The same, at length and anew each time."""


FIXED = settings(
    max_examples=40,
    stateful_step_count=40,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
)
TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = FIXED
TestMoreInterleavings = pytest.mark.faults(MoreInterleavings.TestCase)
TestMoreInterleavings.settings = settings(FIXED, max_examples=300, stateful_step_count=80, derandomize=False)


@pytest.fixture(scope="module", autouse=True)
def _stage(postgres: PostgreSQL) -> Iterator[None]:
    url = postgres.create_database("interleavings", template=TEMPLATE)
    with pytest.MonkeyPatch.context() as patch, factories.set_up(patch, url), stopping_points():
        # Pooled: each step looks at everything, and a session for each look would cost more than the looking.
        Interleavings.engine = create_engine(url)
        yield
        Interleavings.engine.dispose()
