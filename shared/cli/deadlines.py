"""Questions asked at the same time, each with a deadline of its own: one that hangs or fails hides no other."""

import threading
import time
from collections.abc import Callable, Mapping
from queue import Empty, SimpleQueue
from typing import Any


def ask_all(questions: Mapping[str, tuple[Callable[[], Any], float]]) -> dict[str, Any]:
    """Ask all of them (name -> the question, seconds for its answer). Name -> the answer, or the Exception that it was:
    TimeoutError where the answer did not come in time.
    """
    answers: SimpleQueue[tuple[str, Any]] = SimpleQueue()
    began = time.monotonic()

    def put(name: str, question: Callable[[], Any]) -> None:
        try:
            answers.put((name, question()))
        except Exception as error:  # noqa: BLE001  -- handed to the caller, who judges it
            answers.put((name, error))

    for name, (question, _) in questions.items():
        # Daemons: a look-up of a name that hangs must not keep the command from its end.
        threading.Thread(target=put, args=(name, question), name=f"doctor-{name}", daemon=True).start()
    found: dict[str, Any] = {}
    waiting = {name: began + within for name, (_, within) in questions.items()}
    while waiting:
        try:
            name, answer = answers.get(timeout=max(0.0, min(waiting.values()) - time.monotonic()))
        except Empty:
            now = time.monotonic()
            late = [name for name, deadline in waiting.items() if deadline <= now]
            found |= {name: TimeoutError("no answer in time") for name in late}
            waiting = {name: deadline for name, deadline in waiting.items() if deadline > now}
        else:
            if waiting.pop(name, None) is not None:
                found[name] = answer
    return {name: found[name] for name in questions}
