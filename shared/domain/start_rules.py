"""What has to hold before a role starts: settings that do not contradict each other, a PostgreSQL that serves us.

Pure; shared/store/prerequisites.py applies the rules. A role that cannot work refuses to start, in one line.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

OLDEST_POSTGRESQL: Final = 18
"""The first that has what the statements use: uuidv7() and RETURNING OLD."""
ENCODING: Final = "UTF8"
"""The encoding that takes every caption."""

_TIMES: Final = (
    *("rescue_period", "dispatch_period", "horizon", "lock_timeout", "idle_in_transaction_session_timeout"),
    *("transaction_timeout", "service_timeout", "claim_expiry", "visibility_timeout", "grace", "redis_timeout"),
    *("database_patience", "idempotency_hours", "publisher_keeps_keys"),
)


class StartError(Exception):
    """Nothing can start as things are. The message is for a person and says what to do."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Two settings, of which the first has to leave room for the second. `must` says in words what `holds` decides."""

    one: str
    other: str
    must: str
    holds: Callable[[float, float], bool]
    why: str


def _below(one: float, other: float) -> bool:
    return one < other


def _at_most(one: float, other: float) -> bool:
    return one <= other


# A task's own limit lies 5 s below the grace (worker/runtime/app.py).
_IN_A_TASK: Final = 5

RULES: Final = (
    Rule(
        *("service_timeout", "claim_expiry", "be at most half of"),
        lambda one, other: one * 2 <= other,
        "a call begins within the first half of its claim and has to end within the second, or another worker makes it "
        "again meanwhile",
    ),
    Rule(
        *("service_timeout", "grace", f"be at least {_IN_A_TASK} s below"),
        lambda one, other: one + _IN_A_TASK <= other,
        "a worker that has to stop would be killed in the middle of a call",
    ),
    Rule(
        *("transaction_timeout", "grace", f"be more than {_IN_A_TASK} s below"),
        lambda one, other: one + _IN_A_TASK < other,
        "a task would be killed before PostgreSQL gives up its transaction, and its edits would count that as a death",
    ),
    Rule(
        *("lock_timeout", "transaction_timeout", "be below"),
        _below,
        "a statement that waits for a lock would lose its connection instead",
    ),
    Rule(
        *("idle_in_transaction_session_timeout", "transaction_timeout", "be below"),
        _below,
        "the transaction would be ended first, so the setting would have no effect",
    ),
    Rule(
        *("horizon", "visibility_timeout", "be below"),
        _below,
        "Redis would give a message that waits in a worker for its time to another worker as well, again and again",
    ),
    Rule(
        *("grace", "visibility_timeout", "be below"),
        _below,
        "Redis would give a task that is still at work to another worker",
    ),
    Rule(
        *("rescue_period", "visibility_timeout", "be below"),
        _below,
        "rescue has to find lost work before Redis hands it out again",
    ),
    Rule(
        *("dispatch_period", "horizon", "be at most"),
        _at_most,
        "posts would come due between two dispatches",
    ),
    Rule(
        *("wait_default", "wait_max", "be at most"),
        _at_most,
        "it is the longest time that a request may wait",
    ),
)


@dataclass(frozen=True, slots=True)
class Minimum:
    """The least that a setting may be."""

    name: str
    least: float
    why: str


MINIMA: Final = (
    Minimum(
        "publisher_keeps_keys",
        7200,
        "an hour of tries under one key has to fit, and an hour for clocks that differ",
    ),
)


NAMED: Final = frozenset({*_TIMES, *(name for rule in RULES for name in (rule.one, rule.other))})
"""The settings that the rules are about."""


def contradictions(values: Mapping[str, float]) -> list[str]:
    """The contradictions among these settings: a sentence each, which names both variables with their values."""
    found = [
        f"{variable(name)}={_number(values[name])}: it must be above 0 and finite"
        for name in _TIMES
        if not (0 < values[name] < math.inf)
    ]
    return found or [
        f"{variable(rule.one)}={_number(values[rule.one])} must {rule.must} "
        f"{variable(rule.other)}={_number(values[rule.other])}: {rule.why}"
        for rule in RULES
        if not rule.holds(values[rule.one], values[rule.other])
    ] + [
        f"{variable(one.name)}={_number(values[one.name])} must be at least {_number(one.least)}: {one.why}"
        for one in MINIMA
        if values[one.name] < one.least
    ]


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"REDRAFT_{name.upper()}"


def _number(value: float) -> str:
    return f"{value:g}"


class Unfit(NamedTuple):
    """Why a database cannot serve us, as a code and in words, and what to do."""

    code: str
    what: str
    todo: str


def unfit(version: str, encoding: str) -> Unfit | None:
    """What is wrong with a PostgreSQL of this version, such as `18.4`, and a database of this encoding. Empty where one
    is not known.
    """
    if version and int(version.partition(".")[0]) < OLDEST_POSTGRESQL:
        return Unfit(
            "postgresql_too_old",
            f"PostgreSQL {version} is too old: Redraft needs {OLDEST_POSTGRESQL} or newer",
            "Upgrade it, or let REDRAFT_DATABASE_URL name a newer one.",
        )
    if encoding and encoding != ENCODING:
        return Unfit(
            "database_encoding",
            f"The database has the encoding {encoding}: Redraft needs {ENCODING}",
            f"Make another one with CREATE DATABASE redraft ENCODING '{ENCODING}' TEMPLATE template0, and let "
            "REDRAFT_DATABASE_URL name it.",
        )
    return None
