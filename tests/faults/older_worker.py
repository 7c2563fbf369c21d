"""A worker as it was before workers stayed awake: `celery worker --include=tests.faults.older_worker`.

One doorbell a task, its attempts counted before the work. It knows no list, no sign of an awake worker, and no hand.
"""

from collections.abc import Sequence
from typing import Any

from shared import task_names
from shared.broker import answers, contended_posts, doorbells, queue
from shared.broker.doorbells import Bell
from worker import awake
from worker.apply import Applied, apply_edits


def serve(bell: Bell, *_: Any) -> dict[str, int]:
    def announce(so_far: Applied) -> None:
        answers.announce([answers.announcement(bell.reply_to, so_far.results, more=True)])

    applied = apply_edits(bell.post_ids, announce, contended_posts.known)
    answers.announce([answers.announcement(bell.reply_to, applied.results[applied.announced :])])
    applied.follow_ups.send(dict.fromkeys(bell.post_ids, bell.reply_to))
    return applied.summary()


def ring(post_ids: Sequence[str], reply_to: str | None = None) -> bool:
    shown = queue.readable(post_ids)
    return not post_ids or queue.send(task_names.EDITS_APPLY, [list(post_ids), reply_to], shown=shown)


awake.serve = serve  # type: ignore[assignment]
doorbells.ring = ring
