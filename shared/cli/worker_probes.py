"""Asks the workers for their state: queues, clocks, code, and whether beat is heard."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Final

from shared import task_names
from shared.broker import queue, worker_metrics
from shared.broker.queue import depths
from shared.cli.facts import Queue, WorkerFacts
from shared.settings import settings
from shared.telemetry.code_version import UNKNOWN

REPLIES_WITHIN: Final = 1.5
LISTEN: Final = 2.5
"""Seconds, and at least two and a half periods of dispatch. In that time each worker reports what it has taken (every
two seconds, shared/broker/metric_snapshots.py), so a beat that lives is heard.
"""

OF_BEAT: Final = (task_names.POSTS_DISPATCH_DUE, task_names.OPS_RESCUE)


def workers() -> WorkerFacts:
    """Which workers answer, how their clocks go, what code they run, and whether beat is heard."""
    before, taken = depths(), _taken_of_beat()
    app = queue.sender()
    with ThreadPoolExecutor(1, thread_name_prefix="doctor-events") as thread:
        listening = thread.submit(_listen, app)
        # Not by `inspect`: of two workers of one name it shows one, and warns on the terminal.
        replies = app.control.broadcast("active_queues", reply=True, timeout=REPLIES_WITHIN) or []
        skews = listening.result()
    takes: dict[str, list[str]] = {}
    answered = [(worker, queues) for reply in replies for worker, queues in reply.items()]
    for worker, queues in answered:
        for one in queues or ():
            takes.setdefault(one["name"], []).append(worker)
    after = depths()
    heard = any(count > taken.get(place, count) for place, count in _taken_of_beat().items())
    beat: bool | None = heard or after["ops"] > before["ops"]
    full = after["ops"] >= queue.WAITING_BEATS
    if not beat and (full or (not takes.get("ops") and after["ops"] < before["ops"])):
        # A living beat sends nothing while so many messages wait. And a worker may have taken what beat sent.
        beat = None
    queues = tuple(Queue(name, after[name], tuple(sorted(takes.get(name, ())))) for name in task_names.QUEUES)
    names = Counter(worker for worker, _ in answered)
    namesakes = {name: count for name, count in names.items() if count > 1}
    return WorkerFacts(queues, skews, beat, _versions(names), namesakes)


def _taken_of_beat() -> dict[tuple[str, str], float]:
    """How many of beat's messages each worker process has taken, as it reports every two seconds."""
    found = Counter[tuple[str, str]]()
    for family in worker_metrics.of_workers():
        for sample in family.samples if family.name == "redraft_tasks" else ():
            if sample.name == "redraft_tasks_total" and sample.labels["task"] in OF_BEAT:
                found[sample.labels["worker"], sample.labels["place"]] += int(sample.value)
    return dict(found)


def shown(version: str, code: str) -> str:
    """A version with the digest of its code; nothing where that is not known."""
    return "" if code == UNKNOWN else f"{version} ({code})"


def _versions(answering: Iterable[str]) -> dict[str, str]:
    """The code of each worker that answers; left out: workers that have not reported it."""
    living, found = set(answering), {}
    for family in worker_metrics.of_workers():
        for sample in family.samples if family.name == "redraft_worker_code" else ():
            worker, version = sample.labels["worker"], shown(sample.labels["version"], sample.labels["code"])
            if worker in living and version:
                found[worker] = version
    return found


def listening() -> float:
    """For how many seconds workers are listened to."""
    return max(LISTEN, 2.5 * settings().dispatch_period)


def _listen(app: Any) -> dict[str, float]:
    """Each worker's clock minus ours, by its heartbeat."""
    skews: dict[str, float] = {}

    def beats(event: Mapping[str, Any]) -> None:
        # Of two workers of one name, the clock that is further off counts.
        skew = float(event["timestamp"]) - float(event["local_received"])
        skews[event["hostname"]] = max(skew, skews.get(event["hostname"], skew), key=abs)

    seconds = listening()
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"worker-heartbeat": beats})
        # Localizing takes seconds since 1970 for a wall clock's, and is hours off for a worker in another zone.
        receiver.event_from_message = partial(receiver.event_from_message, localize=False)
        deadline = time.monotonic() + seconds
        with suppress(TimeoutError):
            # It asks all workers for a heartbeat at once, and gives up after so many seconds of silence.
            for _ in receiver.itercapture(timeout=seconds):
                if time.monotonic() > deadline:
                    break
    return skews
