"""What committed work must ring for: one value, filled by decisions and batches, sent below the commit in one place."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from shared.broker import contended_posts, doorbells, queue
from shared.broker.contended_posts import SNOOZE
from shared.broker.doorbells import Bell
from shared.store.posts import Write

__all__ = ["SNOOZE", "FollowUps", "JobStep", "Publish", "Render"]


class Publish(NamedTuple):
    """A publish of one post. `at`: a worker may start it from then on; None: at once."""

    post_id: str
    schedule_revision: int
    at: datetime | None = None


class Render(NamedTuple):
    """A render of one post."""

    post_id: str
    content_revision: int


class JobStep(NamedTuple):
    """The next step of a bulk job. `shown`: what an operator reads of it in Flower."""

    job_id: str
    shown: str = ""


@dataclass(slots=True)
class FollowUps:
    """What must be rung for once the transaction that decided it is committed. Until `send` it is only a value.

    `edits`: posts whose queues are to be applied. `edits_first`: the same, for a claim that waits for it.
    `contended`: posts that another session has locked. They come back after SNOOZE, all by one message.
    `webhooks`: posts with events for the receiver of webhooks.
    `snoozes`: messages that come back later, each with its seconds.
    """

    publishes: list[Publish] = field(default_factory=list)
    renders: list[Render] = field(default_factory=list)
    edits: list[str] = field(default_factory=list)
    edits_first: list[str] = field(default_factory=list)
    contended: list[str] = field(default_factory=list)
    webhooks: list[str] = field(default_factory=list)
    snoozes: list[tuple[float, Publish | Render | JobStep | Bell]] = field(default_factory=list)

    def add(self, other: "FollowUps") -> None:
        """Take in what other work must ring for, behind what is here."""
        for one in fields(self):
            getattr(self, one.name).extend(getattr(other, one.name))

    def add_write(self, write: Write, now: datetime | None) -> None:
        """The render or the publish that a written post needs; a publish at once where the post is due.

        `now`: the database's clock as the post's edits were read; None where there were none.
        """
        after = write.after
        if write.enqueue == "render":
            self.renders.append(Render(after.id, after.content_revision))
        elif write.enqueue == "publish":
            due = now is not None and after.scheduled_time <= now
            self.publishes.append(Publish(after.id, after.schedule_revision, None if due else after.scheduled_time))

    def snooze(self, seconds: float, *messages: Publish | Render | JobStep | Bell) -> None:
        """Have these messages come back after so many seconds; 0 is at once."""
        self.snoozes += [(seconds, message) for message in messages]

    def __bool__(self) -> bool:
        return any(getattr(self, one.name) for one in fields(self))

    def send(self, addresses: Mapping[str, str | None] | None = None) -> None:
        """Ring for all of it, below the commit. `addresses`: where the results of each post's edits are announced.

        Never raises for a broker that is away: the rows say what is due, and rescue rings for it.
        """
        # First: the next chunk of a bulk job does not wait for the messages of this one.
        for seconds, some in groupby(sorted(self.snoozes, key=itemgetter(0)), itemgetter(0)):
            _send_after(seconds, [message for _, message in some])
        queue.enqueue_publish(self.publishes)
        queue.enqueue_renders(self.renders)
        addresses = addresses or {}
        by_address: dict[str | None, list[str]] = defaultdict(list)
        for post_id in self.edits:
            by_address[addresses.get(post_id)].append(post_id)
        for reply_to, post_ids in by_address.items():
            doorbells.ring(post_ids, reply_to)
        contended_posts.ring({post_id: addresses.get(post_id) for post_id in self.contended})
        # A claim that waits for edits comes back four times a second. While no worker serves the queue of edits, these
        # rings must not fill it.
        if self.edits_first and queue.free_capacity("edits"):
            doorbells.ring(self.edits_first)
        queue.ring_webhooks(self.webhooks)


def _send_after(seconds: float, messages: Iterable[Publish | Render | JobStep | Bell]) -> None:
    publishes: list[Publish] = []
    for message in messages:
        match message:
            case Publish():
                publishes.append(message)
            case Render():
                queue.enqueue_renders([message], countdown=seconds)
            case JobStep(job_id, shown):
                queue.ring_reschedule(job_id, shown, seconds)
            case Bell():
                doorbells.ring_later(message, seconds)
    queue.enqueue_publish(publishes, countdown=seconds)
