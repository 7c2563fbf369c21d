"""Runs Celery with a clock that is off: `python -m tests.faults.shifted SECONDS worker --app=worker.runtime.app
...`.
"""

import datetime as dt
import sys
import time
from typing import Any

real, now = dt.datetime, time.time


class Meta(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, real)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, real)


def shift(seconds: float) -> None:
    """From here on, this process and its children believe that it is `seconds` later than it is."""

    class Shifted(real, metaclass=Meta):  # type: ignore[misc,valid-type]
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return real.now(tz) + dt.timedelta(seconds=seconds)

        @classmethod
        def utcnow(cls) -> Any:
            return real.now(dt.UTC).replace(tzinfo=None) + dt.timedelta(seconds=seconds)

    time.time = lambda: now() + seconds
    dt.datetime = Shifted  # type: ignore[misc]


if __name__ == "__main__":
    shift(float(sys.argv.pop(1)))
    from celery.__main__ import main

    main()
