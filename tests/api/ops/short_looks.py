"""The API as tests start it, with lists of edits that look at few rows: `uvicorn tests.api.ops.short_looks:app`.

A page gives each statement a second. Whether 20,000 rows are looked at within it is a matter of the machine; what the
page says of a list that was cut is not. Never imported by a test: it would be planted in the test's process.
"""

import os

from shared.store import edit_lists
from tests.watched_api import app

__all__ = ["app"]

edit_lists.LOOKED_AT = int(os.environ["TEST_LOOKED_AT"])
