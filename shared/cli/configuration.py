"""Prints docs/configuration.md, made from shared/settings.py and the rules between settings.

Run it as `.venv/bin/python -m shared.cli.configuration > docs/configuration.md`.
"""

import sys
from collections.abc import Iterator
from typing import Final

from shared.domain.start_rules import MINIMA, RULES, contradictions, variable
from shared.settings import Settings

_HEAD: Final = """\
# Configuration

<!-- Made from shared/settings.py: .venv/bin/python -m shared.cli.configuration > docs/configuration.md -->

All settings are environment variables. Times are in seconds unless the name says otherwise. A process reads its
settings once, when it starts. Give every process of an installation the same settings.

A role does not start with settings that contradict each other. It says which two in one line. It does not start with a
PostgreSQL older than 18 either. `redraft up` passes its own environment on to everything that it starts.
"""

_FIRST_OF_SECTION: Final = {
    "database_url": "Places, passwords and logs",
    "wait_default": "Answers of the API",
    "rescue_period": "Periods and limits",
    "edits_concurrency": "How much one worker process does at once",
    "flower_user": "Flower",
}
"""The first setting of each section, in the order of shared/settings.py, and the section's heading."""

_KINDS: Final[dict[object, str]] = {str: "text", int: "whole number", float: "number"}

_OTHERS: Final = {
    "`REDRAFT_API_URL`, `REDRAFT_API_KEY`": "`redraft reschedule` calls this API with this key. "
    "Without them it reads `stack.json` of a local stack.",
    "`REDRAFT_DB_PASSWORD`, `REDRAFT_CACHE_PASSWORD`": "The passwords of PostgreSQL and Valkey in "
    "`docker-compose.yml`. Both stand in URLs: use letters and digits.",
    "`OTEL_…`": "The usual variables of OpenTelemetry. With the extra `redraft[tracing]` they switch traces on.",
}
"""Variables that are not settings of a role: their names, and what they do."""


def page() -> str:
    """The whole of docs/configuration.md: a table for each section, then the relations between settings."""
    return "\n".join([_HEAD.rstrip("\n"), *_tables(), *_relations(), *_others(), ""])


def _tables() -> Iterator[str]:
    for name, field in Settings.model_fields.items():
        if name in _FIRST_OF_SECTION:
            yield from ("", f"## {_FIRST_OF_SECTION[name]}", "")
            yield from ("| variable | type | default | what it does |", "|---|---|---|---|")
        kind = _KINDS[field.annotation]
        default = f"`{field.default}`" if field.default != "" else ""
        yield f"| `{variable(name)}` | {kind} | {default} | {field.description} |"


def _relations() -> Iterator[str]:
    yield from ("", "## Relations between settings", "", "A start is refused where one of these does not hold:", "")
    for rule in RULES:
        yield f"- `{variable(rule.one)}` must {rule.must} `{variable(rule.other)}`. Reason: {rule.why}."
    for one in MINIMA:
        yield f"- `{variable(one.name)}` must be at least {one.least:g}. Reason: {one.why}."
    above_zero = ", ".join(f"`{variable(name)}`" for name in _above_zero())
    yield from ("", f"These must be above 0, and finite: {above_zero}.")


def _others() -> Iterator[str]:
    yield from ("", "## Variables that are not settings of a role", "", "| variable | what it does |", "|---|---|")
    for names, what in _OTHERS.items():
        yield f"| {names} | {what} |"


def _above_zero() -> list[str]:
    """The settings that may not be 0, as the rules themselves judge it."""
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    return [name for name in defaults if any("above 0" in said for said in contradictions({**defaults, name: 0}))]


if __name__ == "__main__":
    sys.stdout.write(page())
