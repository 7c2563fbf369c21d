"""The API as tests start it, with a template that takes long to compile: `uvicorn tests.api.ops.slow_templates:app`.

Never imported by a test: it would be planted in the test's process.
"""

import os
import time
from typing import Any

from api.ops import frame
from tests.watchdog import HELD
from tests.watched_api import app

__all__ = ["app"]

_compile = frame._templates.compile


def _slowly(source: Any, name: str | None = None, *more: Any, **options: Any) -> Any:
    if name == "parts.html":
        os.write(2, b"parts.html takes long\n")
        time.sleep(4 * HELD)
    return _compile(source, name, *more, **options)


frame._templates.compile = _slowly  # type: ignore[method-assign]
