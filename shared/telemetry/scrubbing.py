"""What a line of a log may hold of other people's text: no keys, no secrets of URLs, no control characters, bounded.

Pure. Every rule here takes time in proportion to the text that it is given, whatever that text is: strangers choose it.
"""

import re
from collections.abc import Iterable, Mapping, MutableMapping
from datetime import date, timedelta
from typing import Any, Final

from shared.domain.edits import PLAIN, PlainField

FIELD_MAX: Final = 512
"""Characters of one value in a line; an id has 255 at most."""

ITEMS_MAX: Final = 50
"""Items of one list or mapping in a line."""

EXCEPTION: Final = "exception"
EXCEPTION_MAX: Final = 3_000
"""The field that tells an error, the only one of several lines, and its characters at most."""

_NUMBER_BITS: Final = 128

_NAMES: Final = (
    "after|answer|args|authorization|api_?key|before|body|captions?|changes|claim_?token|content_?urls?|data|headers|input"
    "|kwargs|message|param(eter)?s|password|payload|query|rendered_?url|result|secret|statement|thumbnail_?url|token|urls?"
)


def blocked_names(plain_fields: Iterable[PlainField]) -> re.Pattern[str]:
    """The names of fields that no line may carry. Each plain field is among them, by its public name and its attribute:
    it is a client's text.
    """
    plain = (re.escape(name) for each in plain_fields for name in (each.name, each.attribute))
    return re.compile("|".join((_NAMES, *plain)), re.IGNORECASE)


BLOCKED: Final = blocked_names(PLAIN)
"""Fields that no line may carry: what they hold may be a client's text."""

# Found by "://" and not by the scheme before it: a search for schemes begins anew at each word and reads on to the end
# of the run of letters, dots and hyphens, which takes twelve seconds for a path of 60 KB that is nothing but "a-a-a-".
_URL: Final = re.compile(r"(?<=[a-z0-9+.-])://(?:[^\s/?#'\"]*@)?([^\s/?#'\"<>]*)([^\s'\"<>]*)", re.IGNORECASE)
_KEY: Final = re.compile(r"\bsk_[\w-]+|\bBearer\s+[^\s'\"]+", re.IGNORECASE)


def scrubbed(text: str) -> str:
    """Text whose keys are gone, and whose URLs say where they lead but not to what, nor with which password."""
    text = _KEY.sub("[key]", text)
    return _URL.sub(lambda found: "://" + found[1] + ("/…" if len(found[2]) > 1 else found[2]), text)


def shown(text: str, most: int = FIELD_MAX) -> str:
    r"""Text as one line of a terminal may show it: at most `most` characters, all of them printable.

    Controls (C0, DEL, C1), line separators, marks that change the direction of text and lone surrogates come out as
    escapes: `\x1b`, `\u2028`.
    """
    if len(text) > most:
        text = text[: most - 1] + "…"
    if text.isprintable():
        return text
    escaped = "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)
    return escaped if len(escaped) <= most else escaped[: most - 1] + "…"


def clean(value: Any, most: int = FIELD_MAX) -> Any:
    """A value as a line may hold it. Texts are scrubbed before they are cut: half a password is one too."""
    if value is None or isinstance(value, bool | float | date | timedelta):
        return value
    if isinstance(value, int) and value.bit_length() <= _NUMBER_BITS:
        return value
    if isinstance(value, Mapping):
        kept = [(name, one) for name, one in value.items() if not BLOCKED.fullmatch(str(name))]
        left_out = {"…": f"+{len(kept) - ITEMS_MAX}"} if len(kept) > ITEMS_MAX else {}
        return {shown(str(name), most): clean(one, most) for name, one in kept[:ITEMS_MAX]} | left_out
    if isinstance(value, list | tuple | set | frozenset):
        return _cleaned(value, most)
    return shown(scrubbed(_said(value)), most)


def _said(value: Any) -> str:
    if isinstance(value, BaseException):
        # Its words may quote a client; shared/telemetry/logs.py knows which may be said.
        return type(value).__name__
    if isinstance(value, int):
        return f"a number of {value.bit_length()} bits"
    return str(value)


def _cleaned(values: Iterable[Any], most: int) -> list[Any]:
    found = list(values)
    left_out = [f"+{len(found) - ITEMS_MAX}"] if len(found) > ITEMS_MAX else []
    return [clean(one, most) for one in found[:ITEMS_MAX]] + left_out


def block(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Drop the fields that no line may carry, and say which, so that their author notices; clean the rest."""
    blocked = [name for name in event if BLOCKED.fullmatch(name)]
    for name in blocked:
        del event[name]
    for name, value in event.items():
        # What is left alone is structlog's own, and gone before the line is written.
        if name != "exc_info" and not name.startswith("_"):
            event[name] = clean(value)
    if blocked:
        event["blocked"] = sorted(blocked)
    return event


def shortened(event: Mapping[str, Any], most: int) -> dict[str, Any]:
    """The same line with less in it, for one that came out too long: texts of `most` characters, lists of a few."""
    return {name: _shorter(value, most * 4 if name == EXCEPTION else most) for name, value in event.items()}


def _shorter(value: Any, most: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= most else value[: most - 1] + "…"
    if isinstance(value, list | dict):
        return _shorter(str(value), most)
    return value
