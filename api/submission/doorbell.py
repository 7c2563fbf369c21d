"""When to ring: one edit rings at once, a flood forms batches, and a worker that does not answer is rung seldom.

docs/glossary.md says what a doorbell (a bell, for short) is.
"""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Iterable, KeysView, Mapping
from typing import Any

from api.http.shares import Active, Lines, Shares
from shared.broker import answers, queue
from shared.broker.doorbells import Outcome
from shared.telemetry import metrics

FIRST_PATIENCE = 0.25
LONGEST_PATIENCE = 5.0
UNANSWERED_AT_MOST = 2
UNAWAITED_AT_MOST = 1
"""The same while no request waits for the results of new edits: the larger a batch, the less an edit costs."""

SEVERAL_AT_MOST = 96
"""Posts for one bell while several workspaces are active: the larger a batch, the longer each edit in it waits."""

UNRUNG_AT_MOST = 50_000
"""Edits that wait for a bell. The bound keeps an hour without a worker from filling the API's memory."""


class Window:
    """How many doorbells may be out at once. Pure: callers give the time, in seconds of a clock that never goes back.

    A bell is out until a worker answers it, or until its patience is over. Each unanswered bell in a row doubles the
    patience of the next one, up to LONGEST_PATIENCE. Any answer resets the patience.
    """

    def __init__(self) -> None:
        self._out: dict[int, float] = {}
        self._silent = 0

    def forget_unanswered(self, now: float) -> None:
        """The bells whose patience is over are out no longer."""
        for bell in [bell for bell, until in self._out.items() if until <= now]:
            del self._out[bell]
            self._silent += 1
            metrics.UNANSWERED.inc()

    def may_ring(self, *, awaited: bool = True) -> bool:
        """Whether one more bell may go out. `awaited`: requests wait for the results of its edits."""
        return len(self._out) < (UNANSWERED_AT_MOST if awaited else UNAWAITED_AT_MOST)

    def rung(self, bell: int, now: float) -> None:
        """This bell goes out now."""
        patience = min(FIRST_PATIENCE * 2 ** min(self._silent, 10), LONGEST_PATIENCE)
        self._out[bell] = now + patience

    def answered(self, bell: int) -> None:
        """The results that this bell asked for are known: from its own answer, or from elsewhere."""
        self._silent = 0
        self._out.pop(bell, None)

    @property
    def out(self) -> KeysView[int]:
        """The bells that are out, as of the last call of `forget_unanswered`."""
        return self._out.keys()

    def opens_at(self) -> float | None:
        """When the patience of the next bell is over; None with no bell out."""
        return min(self._out.values(), default=None)


class Doorbell:
    """Rings for posts that have new edits. Lives on the event loop."""

    def __init__(
        self,
        channel: str,
        ring_out: Callable[[list[str], str | None], Coroutine[Any, Any, Outcome]],
        active: Active | None = None,
    ) -> None:
        """`ring_out` rings for posts, with the address of the answer. It may take its time, and never raises. A bell
        that was "listed" for a worker that is awake is rung once more when its patience is over: that worker may be
        busy, frozen or dead, and no later bell need come that would wake another one.

        `active`: the workspaces that asked recently. With more than one, each has one bell out at a time: the other
        bell, and the worker that it wakes, are the others'.
        """
        self.channel = channel
        self._loop = asyncio.get_running_loop()
        self._sending: set[asyncio.Task[Outcome]] = set()
        self._window = Window()
        # What no bell was rung for yet: the new edits of each post, and a line of posts for each workspace.
        self._new: dict[str, list[str]] = {}
        self._lines: Lines[str] = Lines()
        self._unrung = Shares(UNRUNG_AT_MOST)
        self._awaited = False
        self._bell = 0
        self._bell_of: dict[str, int] = {}
        self._waiting_for: dict[int, set[str]] = {}
        self._listed: dict[int, list[str]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._ring_out = ring_out
        self._active = active or Active(0.0)
        self._owners_of: dict[int, set[str]] = {}

    def ring_for(
        self, pairs: Iterable[tuple[str, str]], *, awaited: bool = True, owners: Mapping[str, str] | None = None
    ) -> None:
        """Ring for new edits, given as (post, edit) pairs, now or when the window allows it.

        `awaited`: a request waits for the result of one of them. `owners`: each post's workspace. Workspaces take turns
        in a bell. Over UNRUNG_AT_MOST edits without a bell are left to rescue.
        """
        for post_id, edit_id in pairs:
            owner = owners[post_id] if owners else ""
            if not self._unrung.admits(owner):
                continue
            if post_id not in self._new:
                self._lines.add(owner, post_id)
            self._new.setdefault(post_id, []).append(edit_id)
            self._unrung.take(owner)
            self._awaited |= awaited
        self._ring()

    def answered(self, bell: int, *, more: bool = False) -> set[str]:
        """A worker answered this bell. Returns the bell's edits whose results are not known yet.

        `more`: the worker will answer once more, since it waits for a locked post. Then nothing is returned, and the
        bell counts no longer: what is new elsewhere must not wait for that lock.
        """
        self._window.answered(bell)
        self._listed.pop(bell, None)
        left = set() if more else self._waiting_for.pop(bell, set())
        for edit_id in left:
            self._bell_of.pop(edit_id, None)
        self._ring()
        return left

    def finalized(self, edit_ids: Iterable[str]) -> None:
        """The results of these edits are known. A bell counts no longer once all its edits have their results."""
        for edit_id in edit_ids:
            bell = self._bell_of.pop(edit_id, None)
            if bell is None:
                continue
            left = self._waiting_for.get(bell)
            if left is not None:
                left.discard(edit_id)
                if not left:
                    del self._waiting_for[bell]
                    self._listed.pop(bell, None)
                    self._window.answered(bell)
                    self._ring()

    async def close(self) -> None:
        """Ring for all posts that are left, and wait until these bells are sent."""
        if self._timer:
            self._timer.cancel()
        left = list(self._new)
        for start in range(0, len(left), queue.DOORBELL_POSTS):
            self._send(left[start : start + queue.DOORBELL_POSTS])
        self._new.clear()
        self._listed.clear()
        self._lines.clear()
        if self._sending:
            await asyncio.wait(self._sending)

    def _ring(self) -> None:
        now = self._loop.time()
        self._window.forget_unanswered(now)
        for bell in self._listed.keys() - self._window.out:
            self._send(self._listed.pop(bell), bell)
        while self._new and self._window.may_ring(awaited=self._awaited):
            posts, edits, owners = self._next(now)
            if not posts:
                break
            self._bell += 1
            self._owners_of = {bell: self._owners_of[bell] for bell in self._window.out} | {self._bell: owners}
            self._awaited &= bool(self._new)
            self._waiting_for[self._bell] = set(edits)
            self._bell_of.update(dict.fromkeys(edits, self._bell))
            self._window.rung(self._bell, now)
            self._forget_old()
            self._send(posts, self._bell, once=False)
        if self._new or self._listed:
            self._ring_by(self._window.opens_at() or now + FIRST_PATIENCE)

    def _next(self, now: float) -> tuple[list[str], list[str], set[str]]:
        """The posts of the next bell, their new edits, and their workspaces. Empty while every workspace must wait."""
        posts: list[str] = []
        edits: list[str] = []
        owners: set[str] = set()
        several = self._active.several(now)
        out = {owner for bell in self._window.out for owner in self._owners_of[bell]} if several else set()
        most = SEVERAL_AT_MOST if several or self._lines.owners > 1 else queue.DOORBELL_POSTS
        while len(posts) < most and (found := self._lines.take(lambda owner: owner not in out)):
            owner, post_id = found
            posts.append(post_id)
            owners.add(owner)
            for edit_id in self._new.pop(post_id):
                edits.append(edit_id)
                self._unrung.give_back(owner)
        return posts, edits, owners

    def _ring_by(self, at: float) -> None:
        """Look at the window at this time at the latest.

        After an outage, a bell with a patience of seconds may be out while a later bell's patience ends sooner.
        """
        if self._timer is not None and self._timer.when() > at:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(at, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._ring()

    def _send(self, posts: list[str], bell: int | None = None, *, once: bool = True) -> None:
        """Ring for these posts. `once`: not again where no worker answers."""
        reply_to = None if bell is None else answers.address(self.channel, bell)
        # In an empty context: a bell serves many requests, and must not carry the trace of the one that set it off.
        sending = self._loop.create_task(self._ring_out(posts, reply_to), context=contextvars.Context())
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)
        if bell is not None and not once:
            sending.add_done_callback(lambda sent: self._sent(posts, bell, sent))

    def _sent(self, posts: list[str], bell: int, sent: asyncio.Task[Outcome]) -> None:
        # A worker may have answered before Redis did.
        if bell in self._window.out and not sent.cancelled() and sent.result() == "listed":
            self._listed[bell] = posts
            self._ring_by(self._window.opens_at() or self._loop.time() + FIRST_PATIENCE)

    def _forget_old(self) -> None:
        """Forget unanswered bells but the newest 64: rescue rings for their edits."""
        for bell in [bell for bell in self._waiting_for if bell < self._bell - 64]:
            self._listed.pop(bell, None)
            for edit_id in self._waiting_for.pop(bell):
                self._bell_of.pop(edit_id, None)
