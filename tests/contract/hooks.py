"""What the schema fuzzer has to be told: which strings mean something, and which refusals no schema can foretell.

Loaded by Schemathesis itself (schemathesis.toml), not by pytest.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from zlib import crc32

import hypothesis
import schemathesis
from hypothesis import strategies as st
from schemathesis.openapi.checks import RejectedPositiveData

from api import schemas
from api.operations import TAGS
from shared import times
from tests import rows

# At noon no clock ever changes, and two days from now it is the future everywhere.
_NOON = datetime.now(UTC).replace(hour=12, minute=0, tzinfo=None)
_AHEAD = st.integers(2, 3_000).map(lambda days: _NOON + timedelta(days=days))
_HOSTS = st.from_regex(r"\A[a-z][a-z0-9-]{0,20}[a-z0-9]\.(example|test)(:[1-9][0-9]{0,3})?\Z")
_REST = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters="\\"), max_size=60)

# What tests/contract/test_schema.py has put into the database.
ACCOUNTS = [rows.TIKTOK, rows.INSTAGRAM]
POSTS = ["post_abc123", "post_slides", "post_posted"]

schemathesis.openapi.format("local-time", _AHEAD.map(times.format_local))
schemathesis.openapi.format("instant", _AHEAD.map(lambda local: f"{times.format_local(local)}:00Z"))
schemathesis.openapi.format("web-address", st.builds("https://{}/{}".format, _HOSTS, _REST))
schemathesis.openapi.format(
    "duration", st.builds("{}P{}DT{}H{}M".format, st.sampled_from(["", "-"]), *[st.integers(0, 999)] * 3)
)

# Schemathesis steers towards what an operation accepts; for bodies of a thousand ids that takes hours, and what it
# would find is what map_case below sends anyway.
hypothesis.target = lambda *_, **__: 0.0

_FORMATS = {schemas.LOCAL_TIME: "local-time", schemas.INSTANT: "instant", schemas.WEB_ADDRESS: "web-address"}


@schemathesis.hook
def before_load_schema(context: Any, schema: dict[str, Any]) -> None:
    """Give strings of a known pattern a generator that knows what they mean."""
    _name_formats(schema)
    schema["components"]["schemas"]["NewJob"]["properties"]["shift"]["format"] = "duration"


def _name_formats(node: Any) -> None:
    if isinstance(node, dict):
        if node.get("pattern") in _FORMATS:
            node["format"] = _FORMATS[node["pattern"]]
        for below in node.values():
            _name_formats(below)
    elif isinstance(node, list):
        for below in node:
            _name_formats(below)


def luck_of(case: Any) -> int:
    """A number that hangs on the request alone, so that a seed repeats a run."""
    return crc32(repr((case.path_parameters, case.body)).encode())


@schemathesis.hook
def map_case(context: Any, case: Any) -> Any:
    """Let good data meet rows that are there, mostly, and leave out cursors, which nobody can guess."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return case
    if case.query:
        case.query.pop("cursor", None)
    if case.query and "csv" in (case.headers or {}).get("Accept", ""):
        case.query.pop("limit", None)
    if case.headers and "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = f"{case.operation.label}-{luck_of(case)}".replace(" ", "-")
    luck = luck_of(case) % 4
    if case.path_parameters and "postId" in case.path_parameters and luck:
        case.path_parameters["postId"] = POSTS[luck - 1]
    if isinstance(case.body, dict) and "accountIds" in case.body and luck:
        case.body["accountIds"] = ACCOUNTS[: 1 + luck // 2]
    if isinstance(case.body, dict) and "postIds" in case.body and luck:
        case.body["postIds"] = [*case.body["postIds"], f"post_gone_{luck}"][:1000]
    return case


_BEYOND_SCHEMAS = (
    (r"cursor", "is not one of this list"),
    (r"limit", "is for pages"),
    (r"scheduledTime", "must lie"),
    (r"spread\.to", "must not be before"),
    (r"filter\.scheduledTo", "must be after"),
    (r"items\[\d+\]\.postId", "names the same as"),
    (r"soundId", "works on TikTok posts only"),
    (r"contentUrls?", "image URLs on Instagram"),
)


@schemathesis.hook
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    """Keep every failure but this: good data refused for a reason that lies in a row, a clock or another field."""
    if not isinstance(failure, RejectedPositiveData) or response.status_code != 400:
        return True
    if not all(re.fullmatch(TAGS, (case.headers or {}).get(name, "*")) for name in ("If-Match", "If-None-Match")):
        # Its coverage phase fills a header with "0" where it has nothing better: against the pattern, so no good data.
        return False
    faults = response.json()["error"].get("details", [])
    return not faults or not all(_beyond_schemas(one["field"], one["message"]) for one in faults)


def _beyond_schemas(field: str, message: str) -> bool:
    return any(re.fullmatch(name, field) and said in message for name, said in _BEYOND_SCHEMAS)
