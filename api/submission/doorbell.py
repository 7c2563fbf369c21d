"""When to ring: one edit rings at once, a flood forms batches, and a silent worker is not drowned (SPEC 7)."""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from api.http.shares import Active, Lines, Shares
from shared.broker import answers, queue
from shared.telemetry import metrics

FIRST_PATIENCE = 0.25
LONGEST_PATIENCE = 5.0
UNANSWERED_AT_MOST = 2
UNAWAITED_AT_MOST = 1
"""Of those too, while nobody waits for the ends of what is new: the larger a batch, the less an edit costs."""

SEVERAL_AT_MOST = 96
"""Posts a bell, where they are of several workspaces: the larger a batch, the longer each in it waits for its end."""

UNRUNG_AT_MOST = 50_000
"""Edits that wait for a bell: an hour without a worker must not fill the API's memory."""


class Window:
    """How many doorbells may be out. Pure: the time comes in, in seconds of any clock that does not go back.

    A bell counts until it is answered or its patience is over; each that stays unanswered in a row doubles the
    patience of the next, to 5 s; any answer resets it.
    """

    def __init__(self) -> None:
        self._out: dict[int, float] = {}
        self._silent = 0

    def may_ring(self, now: float, *, awaited: bool = True) -> bool:
        """Whether one more bell may go out, for edits whose ends are `awaited`, or are not."""
        for bell in [bell for bell, until in self._out.items() if until <= now]:
            del self._out[bell]
            self._silent += 1
            metrics.UNANSWERED.inc()
        return len(self._out) < (UNANSWERED_AT_MOST if awaited else UNAWAITED_AT_MOST)

    def rung(self, bell: int, now: float) -> None:
        """A bell goes out."""
        patience = min(FIRST_PATIENCE * 2 ** min(self._silent, 10), LONGEST_PATIENCE)
        self._out[bell] = now + patience

    def answered(self, bell: int) -> None:
        """Its answer came, by whatever way."""
        self._silent = 0
        self._out.pop(bell, None)

    @property
    def out(self) -> Iterable[int]:
        """The bells that count, as `may_ring` saw them last."""
        return self._out.keys()

    def opens_at(self) -> float | None:
        """When a bell stops counting next, if nothing is answered before."""
        return min(self._out.values(), default=None)


class Doorbell:
    """Rings for posts that have something new. Lives on the event loop."""

    def __init__(
        self,
        channel: str,
        ring_out: Callable[[list[str], str | None], Coroutine[Any, Any, None]],
        active: Active | None = None,
    ) -> None:
        """`ring_out` rings for posts, with the address of the answer. It may take its time, and never raises.

        `active`: the workspaces that asked recently. With more than one, each has one bell out at a time: the other
        bell, and the worker that it wakes, are the others'.
        """
        self.channel = channel
        self._loop = asyncio.get_running_loop()
        self._sending: set[asyncio.Task[None]] = set()
        self._window = Window()
        # What a bell is to be rung for: the edits of each post, and the posts of each workspace in a line of their own.
        self._new: dict[str, list[str]] = {}
        self._lines: Lines[str] = Lines()
        self._unrung = Shares(UNRUNG_AT_MOST)
        self._awaited = False
        self._bell = 0
        self._bell_of: dict[str, int] = {}
        self._waiting_for: dict[int, set[str]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._ring_out = ring_out
        self._active = active or Active(0.0)
        self._owners_of: dict[int, set[str]] = {}

    def ring_for(
        self, pairs: Iterable[tuple[str, str]], *, awaited: bool = True, owners: Mapping[str, str] | None = None
    ) -> None:
        """There is something new: (post, edit) pairs. `awaited`: somebody waits for the end of one of them. `owners`:
        each post's workspace; a bell is rung for the posts of all of them in turn.

        While nobody answers for long, what is more than UNRUNG_AT_MOST is left to rescue.
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
                    self._window.answered(bell)
                    self._ring()

    async def close(self) -> None:
        """Ring for what is left."""
        if self._timer:
            self._timer.cancel()
        left = list(self._new)
        for start in range(0, len(left), queue.DOORBELL_POSTS):
            self._send(left[start : start + queue.DOORBELL_POSTS], None)
        self._new.clear()
        self._lines.clear()
        if self._sending:
            await asyncio.wait(self._sending)

    def _ring(self) -> None:
        now = self._loop.time()
        while self._new and self._window.may_ring(now, awaited=self._awaited):
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
            self._send(posts, answers.address(self.channel, self._bell))
        if self._new:
            self._ring_by(self._window.opens_at() or now + FIRST_PATIENCE)

    def _next(self, now: float) -> tuple[list[str], list[str], set[str]]:
        """The posts that the next bell is rung for, their new edits, and whose they are; none while all must wait."""
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
        """Then at the latest. After an outage a bell that is patient for seconds may have a nearer one behind it."""
        if self._timer is not None and self._timer.when() > at:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(at, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._ring()

    def _send(self, posts: list[str], reply_to: str | None) -> None:
        # In no request's context: a bell is rung for many, and must not go by the trace of the one that set it off.
        sending = self._loop.create_task(self._ring_out(posts, reply_to), context=contextvars.Context())
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)

    def _forget_old(self) -> None:
        """Bells that nobody answered are remembered for a while only: rescue has them now."""
        for bell in [bell for bell in self._waiting_for if bell < self._bell - 64]:
            for edit_id in self._waiting_for.pop(bell):
                self._bell_of.pop(edit_id, None)
