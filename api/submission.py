"""Many concurrent PATCHes -> one INSERT -> one doorbell (SPEC 7). Nothing is answered before it is durable."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import structlog

from api.doorbell import Doorbell
from api.recording import Recorded, Request, Verdict, record_batch
from api.waiting import Waiting
from shared import errors, metrics, queue
from shared.edits import EditPatch
from shared.errors import RedraftError
from shared.outcomes import Answer, Listener, client_on_loop
from shared.settings import Settings
from shared.store.edits import NewEdit

BATCH = 256
# A batch gathers, for GATHER seconds at most, until it holds this SHARE of the requests under way lately: each
# batch costs two commits, a doorbell and a task, so that a flood in a few large ones is served several times as fast as
# in many small ones. Lately and not now: those who were answered together ask again together, but not at once.
# With ENOUGH that price is spent on so many that the next batch had better be under way beside this one.
GATHER = 0.003
SHARE = 0.8
ENOUGH = 96
FADING = 0.7

log = structlog.get_logger(__name__)


class Submission:
    """The way of this API process's edits into the database, and of their ends back. Lives on the event loop."""

    def __init__(self, config: Settings) -> None:
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="submission")
        self._pending: list[Request] = []
        self._open: set[Request] = set()
        self._busy = False
        self._lately = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._gathering: asyncio.TimerHandle | None = None
        self._broker = client_on_loop()
        self.bell = Doorbell(f"redraft:answers:{uuid4().hex}", self._ring_out)
        self.waiting = Waiting(self.bell.ended)
        self._listener = Listener(self._broker, self.bell.channel, self._heard)

    def __len__(self) -> int:
        """How many requests are not recorded yet."""
        return len(self._open)

    def start(self) -> None:
        """Begin to hear answers."""
        self._listener.start()

    async def close(self) -> None:
        """Let waiters go, finish the batch in hand, ring what is left. Requests not yet taken were never answered."""
        self._pending.clear()
        await self.waiting.close()
        await self._loop.run_in_executor(None, self._thread.shutdown)
        await self.bell.close()
        await self._listener.stop()
        await self._broker.aclose()

    def record(
        self, new: NewEdit, patch: EditPatch | None, problem: RedraftError | None, *, awaited: bool = True
    ) -> asyncio.Future[Verdict]:
        """A future that ends with the verdict: recorded, or the error to answer with. It never raises.

        `awaited`: whether its end will be waited for.
        Over 2,000 requests not yet inserted, or two seconds without PostgreSQL: Unavailable (SPEC 4).
        """
        future: asyncio.Future[Verdict] = self._loop.create_future()
        if len(self._open) >= self._config.pending_max:
            future.set_result(errors.Unavailable())
            return future
        request = Request(new, patch, problem, future, self._loop.time() + self._config.database_patience, awaited)
        self._open.add(request)
        self._pending.append(request)
        self._flush()
        if self._timer is None:
            self._timer = self._loop.call_later(0.1, self._give_up_on_late)
        return future

    def _flush(self) -> None:
        """Write what is pending, at once where little is under way: a lone edit waits for nobody."""
        if self._busy or not self._pending:
            return
        self._lately = max(self._lately, self._under_way())
        if len(self._pending) < min(ENOUGH, int(self._lately * SHARE)):
            if self._gathering is None:
                self._gathering = self._loop.call_later(GATHER, self._gathered)
            return
        self._write()

    def _under_way(self) -> int:
        return len(self._open) + self.waiting.hopeful

    def _gathered(self) -> None:
        self._gathering = None
        if not self._busy and self._pending:
            self._write()

    def _write(self) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        self._lately = max(self._under_way(), self._lately * FADING)
        batch, self._pending = self._pending[:BATCH], self._pending[BATCH:]
        for request in batch:
            request.taken = True
        self._busy = True
        written = self._loop.run_in_executor(self._thread, record_batch, batch)
        written.add_done_callback(lambda done: self._written(batch, done))

    def _written(self, batch: list[Request], done: asyncio.Future[list[Verdict]]) -> None:
        self._busy = False
        self._flush()
        if done.cancelled() or done.exception():
            log.error("submission_failed", requests=len(batch), exc_info=None if done.cancelled() else done.exception())
            verdicts: list[Verdict] = [errors.Unavailable(edit_id=request.new.id) for request in batch]
        else:
            verdicts = done.result()
        fresh = [
            request
            for request, verdict in zip(batch, verdicts, strict=True)
            if isinstance(verdict, Recorded) and not verdict.replayed
        ]
        metrics.edits_accepted(len(fresh))
        self.bell.ring_for(
            [(request.new.post_id, request.new.id) for request in fresh],
            awaited=any(request.awaited for request in fresh),
        )
        for request, verdict in zip(batch, verdicts, strict=True):
            self._open.discard(request)
            if not request.future.done():
                request.future.set_result(verdict)

    def _give_up_on_late(self) -> None:
        """Answer whoever waited too long for PostgreSQL. What a thread has in hand may still be committed."""
        self._timer = None
        now = self._loop.time()
        late = [request for request in self._open if request.until <= now]
        for request in late:
            self._open.discard(request)
            if not request.future.done():
                edit_id = request.new.id if request.taken and request.problem is None else None
                request.future.set_result(errors.Unavailable(edit_id=edit_id))
        if late:
            self._pending = [request for request in self._pending if not request.future.done()]
        if self._open:
            self._timer = self._loop.call_later(0.1, self._give_up_on_late)

    async def _ring_out(self, posts: list[str], reply_to: str | None) -> None:
        metrics.doorbell_rung(await queue.ring_edits_on_loop(self._broker, posts, reply_to))

    def _heard(self, answer: Answer) -> None:
        self.waiting.heard(answer.ends)
        unnamed = self.bell.answered(answer.bell, more=answer.more) - answer.ends.keys()
        # Of other bells too: a post's queue is taken whole, by whichever comes first.
        self.bell.ended(answer.ends)
        if unnamed:
            self.waiting.look_up(unnamed)
