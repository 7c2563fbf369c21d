"""Posts that live through orders of their own, with a publisher and a broker that are the test's: a message is a word
in a bag, which may be lost, doubled and late.
"""

import json
import random
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, text

from shared import task_names
from shared.domain.service_answers import Reply
from shared.store import edits as edits_store
from shared.store.edits import NewEdit
from tests import factories, sizes
from tests.faults.evidence import Call
from tests.worker.fake_services import at
from worker import apply, publish, render, rescue
from worker.follow_ups import SNOOZE, FollowUps, Publish
from worker.outbound.call_pool import Completed
from worker.published import Called, Published, finish
from worker.render import Job, Rendering

ROUNDS = 12
URLS = [[f"https://cdn.example.com/{number}-{slide}.jpg" for slide in range(2)] for number in range(3)]


def made_of(post: dict[str, Any]) -> str:
    """What a render of this content is called: whoever publishes another one shows it."""
    content = "+".join(post["contentUrl"])
    shown = content[-30:] if len(content) < sizes.URL else f"{hash(content):x}"
    return f"https://rendered.example.com/{shown}/{post['soundId']}.mp4".replace("+", "_")


@dataclass
class Simulation:
    """Some posts, the messages that are under way, and the calls that are being made."""

    engine: Engine
    chance: random.Random
    size: int
    posts: list[str] = field(default_factory=list)
    publishes: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    renders: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    bells: set[str] = field(default_factory=set)
    calling: list[Called] = field(default_factory=list)
    completed: list[Completed[Called]] = field(default_factory=list)
    rendering: list[tuple[Job, Reply]] = field(default_factory=list)
    journal: list[Call] = field(default_factory=list)
    effects: dict[str, str] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)
    calm: bool = False
    large: float = 0.0
    """That share of the edits is as large as is legal; and one post has a thousand of them waiting at once."""
    flooded: str | None = None

    def populate(self) -> None:
        with self.engine.begin() as tx:
            for number in range(self.size):
                if number % 2:
                    self.posts.append(factories.post(tx, scheduled_time=factories.soon(-5)))
                else:
                    self.posts.append(factories.slides(tx, scheduled_time=factories.soon(-5)))
                    self.renders[self.posts[-1]].append(1)
        for post in self.posts:
            self.publishes[post].append(1)

    def some(self, share: float = 0.3) -> list[str]:
        return list(self.posts) if self.calm else [post for post in self.posts if self.chance.random() < share]

    def lucky(self, share: float) -> bool:
        return share > 0.5 if self.calm else self.chance.random() < share

    def fate(self, **weights: int) -> str:
        return "done" if self.calm else self.chance.choices(list(weights), list(weights.values()))[0]

    # What people and the broker do

    def submit(self) -> None:
        """Edits come in; a bell for them may be lost."""
        new: list[NewEdit] = []
        for post in self.some(0.25):
            flood = sizes.QUEUED if self.large and self.flooded is None and self.lucky(0.1) else 0
            self.flooded = post if flood else self.flooded
            for _ in range(1 + self.lucky(0.2) + flood):
                edit_id = f"edit_{next(factories.numbers):07}"
                new.append(
                    NewEdit(edit_id, post, factories.WORKSPACE, self.changes(), None, factories.KEY_ID, "t", edit_id)
                )
            if self.lucky(0.8):
                self.bells.add(post)
        with self.engine.begin() as tx:
            edits_store.insert_edits(tx, new, datetime.now(UTC) - timedelta(hours=3))

    def changes(self) -> dict[str, Any]:
        if self.large and self.chance.random() < self.large:
            return sizes.patch(self.chance, f"large {self.chance.randrange(4)}")
        kind = self.chance.choice(("caption", "caption", "time", "content", "content", "video", "sound"))
        if kind == "caption":
            return {"caption": f"caption {self.chance.randrange(4)}"}
        if kind == "time":
            return at(self.chance.choice((-10, -20, -30, 600)))
        if kind == "content":
            return {"contentType": "slides", "contentUrl": self.chance.choice(URLS)}
        if kind == "video":
            return {"contentType": "video", "contentUrl": f"https://cdn.example.com/{self.chance.randrange(3)}.mp4"}
        return {"soundId": self.chance.choice(("a", "b", None))}

    def hear(self, task: str, args: Any, **_: Any) -> bool:
        """What is sent goes into a bag, unless the broker loses it."""
        if self.lucky(0.15):
            return True
        if task == task_names.EDITS_APPLY:
            self.bells.update(args[0])
        elif task == task_names.POSTS_RENDER:
            self.renders[args[0]].append(args[1])
        elif task == task_names.POSTS_PUBLISH:
            for post, revision in args[0]:
                self.publishes[post].append(revision)
        return True

    def take(self, bags: dict[str, list[int]], share: float = 0.4) -> list[tuple[str, int]]:
        """Messages that come now: late ones too, out of order, and some of them will come again."""
        taken = []
        for post in self.some(share):
            if bags[post]:
                place = self.chance.randrange(len(bags[post]))
                taken.append((post, bags[post][place]))
                if self.lucky(0.7):
                    bags[post].pop(place)
        return taken

    # What workers do

    def run_edits(self) -> None:
        bells = [post for post in self.some(0.6) if post in self.bells]
        self.bells -= set(bells)
        applied = apply.apply_edits(bells)
        self.ring(applied.follow_ups)

    def ring(self, follow_ups: FollowUps) -> None:
        """The product's own send, at once: the bags know no time, and no Redis that notes contended posts."""
        snoozed = [one for seconds, one in follow_ups.snoozes if seconds == SNOOZE and isinstance(one, Publish)]
        at_once = FollowUps(
            publishes=[*follow_ups.publishes, *snoozed],
            renders=follow_ups.renders,
            edits=[*follow_ups.edits, *follow_ups.edits_first, *follow_ups.contended],
        )
        at_once.send()

    def claim(self) -> None:
        done = Published()
        fenced = publish._compare_fences(self.take(self.publishes, 0.2), done)
        self.calling += publish.claim(dict(fenced), done)
        self.seen.update(f"publish {outcome}" for outcome in done.outcomes.values())
        self.ring(done.follow_ups)

    def call(self) -> None:
        """Calls are made, and end this way or that; a holder may die before, in or after its call."""
        calling, self.calling = self.calling, []
        for called in calling:
            if self.lucky(0.3):
                self.calling.append(called)
                continue
            end = self.fate(
                done=50, refused=2, never_started=10, server_error=10, unknown=10, dies_before=9, dies_after=9
            )
            self.seen[f"call {end}"] += 1
            kind: Any = end
            if end not in {"never_started", "dies_before"}:
                self.received(called, effect=end in {"done", "dies_after"} or self.lucky(0.5))
            if end.startswith("dies"):
                continue
            self.completed.append(Completed(called, Reply(kind, message=end), time.monotonic()))

    def received(self, called: Called, *, effect: bool) -> None:
        attempt = called.attempt
        self.journal.append(Call(time.time(), attempt.idempotency_key, attempt.body))
        post = json.loads(attempt.body)["post"]
        needs = post["contentType"] == "slides" and post["slideDuration"] is not None
        assert post["renderedUrl"] == (made_of(post) if needs else None), "goes out with another content's render"
        if effect:
            assert self.effects.setdefault(post["postId"], attempt.idempotency_key) == attempt.idempotency_key

    def finish(self) -> None:
        completed, self.completed = self.completed, []
        now = [one for one in completed if self.lucky(0.6)]
        self.completed += [one for one in completed if one not in now]
        done = Published()
        assert finish(now, done) == []
        self.seen.update(f"finish {outcome}" for outcome in done.outcomes.values())
        self.ring(done.follow_ups)

    def begin_renders(self) -> None:
        for post, revision in self.take(self.renders, 0.2):
            done = Rendering()
            job = render.begin(post, revision, done)
            self.seen[f"render {done.outcome}"] += 1
            self.ring(done.follow_ups)
            if job is None:
                continue
            made = {"renderedUrl": made_of(json.loads(job.body)["post"]), "thumbnailUrl": None}
            end = self.fate(done=80, refused=2, server_error=8, dies=10)
            if end != "dies":
                kind: Any = end
                self.rendering.append((job, Reply(kind, made if end == "done" else {}, end)))

    def end_renders(self) -> None:
        rendering, self.rendering = self.rendering, []
        for job, reply in rendering:
            if self.lucky(0.3):
                self.rendering.append((job, reply))
                continue
            done = render._finish(job, reply)
            self.seen[f"rendered {done.outcome}"] += 1
            self.ring(done.follow_ups)

    def pass_time(self) -> None:
        """Claims expire, backoffs end, and marks grow old, of some posts."""
        with self.engine.begin() as tx:
            tx.execute(
                text("""UPDATE posts SET claim_expires_at = CASE WHEN claim_kind IS NOT NULL THEN now() END,
                            retry_at = CASE WHEN retry_at IS NOT NULL THEN now() - interval '9 seconds' END,
                            enqueued_at = enqueued_at - interval '1 minute',
                            created_at = created_at - interval '1 minute'
                        WHERE id = ANY(:ids)"""),
                {"ids": self.some(0.3)},
            )
        rescue.rescue()

    def live(self) -> None:
        actions = [self.submit, self.run_edits, self.claim, self.call, self.finish]
        actions += [self.begin_renders, self.end_renders, self.pass_time]
        for _ in range(ROUNDS):
            self.chance.shuffle(actions)
            for act in actions:
                act()

    def settle(self) -> None:
        """No more edits and no more bad luck: everything that is due ends."""
        self.calm = True
        for _ in range(60):
            for act in (self.pass_time, self.run_edits, self.claim, self.call, self.finish):
                act()
            self.begin_renders()
            self.end_renders()
            if not self.left():
                return
        raise AssertionError(f"not settled: {self.left()}")

    def left(self) -> list[Any]:
        with self.engine.connect() as tx:
            return list(
                tx.execute(
                    text("""SELECT id, status, claim_kind FROM posts WHERE id = ANY(:ids) AND (status = 'pending_render'
                                OR claim_kind IS NOT NULL OR status = 'generated' AND scheduled_time <= now())
                            UNION ALL SELECT id, status, post_id FROM edits
                            WHERE post_id = ANY(:ids) AND status = 'queued' LIMIT 5"""),
                    {"ids": self.posts},
                )
            )
