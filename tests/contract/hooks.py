"""What the schema fuzzer has to be told: which strings mean something, and which refusals no schema can foretell.

Loaded by Schemathesis itself (schemathesis.toml), not by pytest. What it generates hangs on the document and the seed
alone: a time that lies in the future is put in afterwards, and only where the data was good. (A format of our own in
the document would do that in one go. But data that a hook has touched is held against the document once more, and no
value at all is good for a format that the fuzzer does not know: good data became bad data, and was accepted.)
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from zlib import crc32

import hypothesis
import schemathesis
from schemathesis.openapi.checks import RejectedPositiveData

from api.models.openapi import TAGS
from shared.domain import fields, times, urls
from tests import factories

# At noon no clock ever changes, and two days from now it is the future everywhere.
_NOON = datetime.now(UTC).replace(hour=12, minute=0, tzinfo=None)
_HOSTS = ("cdn.example", "media.example:8443", "a.b.test", "xn--bcher-kva.example")

# What tests/contract/test_schema.py has put into the database.
ACCOUNTS = [factories.TIKTOK, factories.INSTAGRAM]
POSTS = ["post_abc123", "post_slides", "post_posted"]

# Schemathesis steers towards what an operation accepts; for bodies of a thousand ids that takes hours, and what it
# would find is what map_case below sends anyway.
hypothesis.target = lambda *_, **__: 0.0


def _meaning(value: Any) -> Any:
    """The same with times that lie ahead, durations within bounds and URLs that have a host."""
    if isinstance(value, dict):
        return {name: _meaning(below) for name, below in value.items()}
    if isinstance(value, list):
        return [_meaning(below) for below in value]
    return _meant(value) if isinstance(value, str) else value


def _meant(text: str) -> str:
    rng = crc32(text.encode())
    ahead = times.format_local(_NOON + timedelta(days=2 + rng % 3_000))
    if re.fullmatch(fields.LOCAL_PATTERN, text):
        return ahead
    if re.fullmatch(fields.INSTANT_PATTERN, text):
        return f"{ahead}:00Z" if rng % 2 else f"{ahead}Z"
    if re.fullmatch(fields.DURATION_PATTERN, text):
        return re.sub("[0-9]+", lambda number: str(int(number[0]) % 500), text)
    if re.match(fields.URL_PATTERN, text):
        rest = "".join(letter for letter in text[8:] if letter.isprintable() and letter not in " \\")
        return f"https://{_HOSTS[rng % len(_HOSTS)]}/{rest}"[: urls.MAX_URL]
    return text


def luck_of(case: Any) -> int:
    """A number that hangs on the request alone, so that a seed repeats a run."""
    return crc32(repr((case.path_parameters, case.body)).encode())


@schemathesis.hook
def map_case(context: Any, case: Any) -> Any:
    """Let good data meet rows that are there, mostly, and leave out cursors, which nobody can guess."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return case
    # Taken from what was generated, before today's date comes in.
    number = luck_of(case)
    # What is set is held against the schema once more: a body that is left out must not be.
    if isinstance(case.body, dict):
        case.body = _meaning(case.body)
    if case.query:
        case.query = _meaning(case.query)
        case.query.pop("cursor", None)
    if case.query and "csv" in (case.headers or {}).get("Accept", ""):
        case.query.pop("limit", None)
    if case.headers and "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = f"{case.operation.label}-{number}".replace(" ", "-")
    rng = number % 4
    if case.path_parameters and "postId" in case.path_parameters and rng:
        case.path_parameters["postId"] = POSTS[rng - 1]
    if isinstance(case.body, dict) and "accountIds" in case.body and rng:
        case.body["accountIds"] = ACCOUNTS[: 1 + rng // 2]
    if isinstance(case.body, dict) and "postIds" in case.body and rng:
        case.body["postIds"] = [*case.body["postIds"], f"post_gone_{rng}"][:1000]
    return case


_BEYOND_SCHEMAS = (
    (r"cursor", "is not one of this list"),
    (r"limit", "is for pages"),
    (r"scheduledTime", "must lie"),
    (r"caption", "may have at most"),
    (r"spread\.to", "must not be before"),
    (r"filter\.scheduledTo", "must be after"),
    (r"items\[\d+\]\.postId", "names the same as"),
    # The coverage phase fills long arrays without regard to allow-x00.
    (r"filter\.\w+Ids\[\d+\]", "must not contain NUL"),
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
