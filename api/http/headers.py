"""The request headers that the API reads: Prefer, If-Match, If-None-Match, Accept, Idempotency-Key.

A header with a list is read as RFC 9110, 5.6.1 says, over all of its lines together: empty elements are skipped, and a
comma in a quoted string is no separator. The work of each function is linear in the size of the header.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from starlette.requests import Request

from shared.domain.errors import InvalidRequest, PreconditionFailed, printable
from shared.domain.lifecycle import NOT, check_met

TAGS_MAX = 64

_MARK = re.compile('[",]')
_MARK_OR_ESCAPE = re.compile(r'\\.|[",]', re.DOTALL)
_ENTITY_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_OURS = re.compile('"[1-9][0-9]{0,18}"')
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_QUALITY = re.compile(r"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")


def elements(values: Iterable[str], *, escapes: bool = True) -> list[str]:
    """The elements of a header's list, without the white space around them.

    `escapes`: whether a backslash in a quoted string escapes the next character. In an entity tag it does not.
    """
    text = ",".join(values)
    if '"' not in text:
        return [element for element in (each.strip(" \t") for each in text.split(",")) if element]
    found, start, quoted = [], 0, False
    for mark in (_MARK_OR_ESCAPE if escapes else _MARK).finditer(text):
        if mark[0] == '"':
            quoted = not quoted
        elif mark[0] == "," and not quoted:
            found.append(text[start : mark.start()])
            start = mark.end()
    found.append(text[start:])
    return [element for element in (each.strip(" \t") for each in found) if element]


# -- Preconditions (RFC 9110, 13)


def entity_tags(values: Iterable[str], header: str) -> tuple[str, ...]:
    """The entity tags of a list as they were sent, weak ones with their W/; or ("*",). InvalidRequest otherwise."""
    tags = elements(values, escapes=False)
    if tags != ["*"] and not all(map(_ENTITY_TAG.fullmatch, tags)):
        raise InvalidRequest(f'{header} must be * or a list of entity tags like "3"; take it from an ETag')
    return tuple(tags)


def names(tags: Iterable[str], tag: str) -> bool:
    """Whether If-None-Match names a tag: weak comparison, and `*` is any (13.1.2)."""
    return any(each == "*" or each.removeprefix("W/") == tag for each in tags)


class Preconditions(NamedTuple):
    """The preconditions of a request about one post.

    `tags`: those that `lifecycle.matches` judges under the post's lock; None without either header. `hopeless`: the
    error of preconditions that can never be met. It is answered only if the request would succeed without them
    (13.2.1).
    """

    tags: tuple[str, ...] | None = None
    hopeless: PreconditionFailed | None = None

    def judge(self, revision: int) -> None:
        """Raises PreconditionFailed where a post at that revision does not meet them. All other checks come first."""
        check_met(self.tags, self.hopeless, revision)


def preconditions(request: Request) -> Preconditions:
    """What If-Match and If-None-Match of the request ask for. Raises InvalidRequest."""
    wanted, unwanted = request.headers.getlist("if-match"), request.headers.getlist("if-none-match")
    found, hopeless = if_match(wanted) if wanted else ([], None)
    if unwanted:
        tags = _bounded(entity_tags(unwanted, "If-None-Match"), "If-None-Match")
        if tags == ("*",):
            why = "If-None-Match: * asks that there be no such post, and an edit needs one; leave the header out"
            hopeless = hopeless or PreconditionFailed(None, why)
        found += [NOT + tag for tag in (each.removeprefix("W/") for each in tags) if _OURS.fullmatch(tag)]
    return Preconditions(tuple(dict.fromkeys(found)) if found else None, hopeless)


def refuse_preconditions(request: Request) -> None:
    """Raises InvalidRequest for a precondition that the route does not judge: the client expects an effect."""
    for name in ("If-Match", "If-None-Match"):
        if name in request.headers:
            raise InvalidRequest(f"This route does not judge {name}, and would go on whatever it says; leave it out")


def if_match(values: Iterable[str], header: str = "If-Match") -> tuple[list[str], PreconditionFailed | None]:
    """The tags of If-Match that a post can have, and the error where there is none. InvalidRequest for what is no list
    of tags.
    """
    tags = _bounded(entity_tags(values, header), header)
    found = [tag for tag in tags if tag == "*" or _OURS.fullmatch(tag)]
    return found, None if found else PreconditionFailed(None, _why_never(tags))


def _bounded(tags: tuple[str, ...], header: str) -> tuple[str, ...]:
    if len(tags) > TAGS_MAX:
        raise InvalidRequest(f"{header} may name at most {TAGS_MAX} tags and names {len(tags):,}; send those you have")
    return tags


def _why_never(tags: tuple[str, ...]) -> str:
    if not tags:
        return "If-Match names no tag; send the post's ETag in it, or leave the header out"
    if all(tag.startswith("W/") for tag in tags):
        return "If-Match names weak tags only, and those never match; send the post's ETag as it was given, without W/"
    strange = printable(next(tag for tag in tags if not tag.startswith("W/")))
    return (
        f'If-Match names {strange}, which is no ETag of a post: those are like "3". '
        "A proxy on the way may have changed it; send the ETag as the API gives it"
    )


# -- Idempotency-Key


def idempotency_key(request: Request) -> str | None:
    """The Idempotency-Key, 1 to 255 visible ASCII characters, or None without the header."""
    values = request.headers.getlist("idempotency-key")
    if not values:
        return None
    if len(values) > 1 or not _KEY.fullmatch(values[0]):
        raise InvalidRequest("Idempotency-Key must be one value of 1 to 255 visible characters, without spaces")
    return values[0]


# -- Prefer (RFC 7240)


@dataclass(frozen=True, slots=True)
class Preference:
    """What Prefer asks for. `wait`: seconds, at most REDRAFT_WAIT_MAX; None if the header does not say."""

    respond_async: bool = False
    wait: float | None = None

    def patience(self, default: float) -> float:
        """Seconds to wait for the edit's result; `default` if the header says nothing. With both preferences, `wait` is
        how long to wait before the request is answered without the result (RFC 7240, 4.3).
        """
        if self.wait is not None:
            return self.wait
        return 0.0 if self.respond_async else default

    def applied(self, *, answered_async: bool) -> dict[str, str]:
        """The header Preference-Applied, if a preference was honoured."""
        honoured = ["respond-async"] if answered_async and self.respond_async else []
        if self.wait is not None:
            honoured.append(f"wait={self.wait:.0f}")
        return {"Preference-Applied": ", ".join(honoured)} if honoured else {}


NO_PREFERENCE = Preference()


def prefer(request: Request, wait_max: float) -> Preference:
    """The preferences that the API knows. Others are ignored, and so are repeated ones (RFC 7240, 2). Raises
    InvalidRequest for a `wait` that is no number.
    """
    values = request.headers.getlist("prefer")
    if not values:
        return NO_PREFERENCE
    respond_async, wait = False, None
    for element in elements(values):
        name, _, value = (part.strip(" \t") for part in element.partition(";")[0].partition("="))
        if name.lower() == "respond-async":
            respond_async = True
        elif name.lower() == "wait" and wait is None:
            wait = _seconds(value, wait_max)
    return Preference(respond_async, wait)


def _seconds(value: str, most: float) -> float:
    digits = value[1:-1] if value[:1] == value[-1:] == '"' else value
    if not (digits.isascii() and digits.isdigit()):
        raise InvalidRequest("Prefer: wait must be a whole number of seconds, like wait=5")
    # Nine digits are longer than any wait, and int() and float() get slow on thousands of digits.
    return most if len(digits) > 9 else min(float(digits), most)


# -- Accept


def likes_better(accept: Iterable[str], kind: str, other: str) -> bool:
    """Whether Accept prefers one media type to another (RFC 9110, 12.5.1). False if it prefers neither."""
    ranges = {name: (name, f"{name.partition('/')[0]}/*", "*/*") for name in (kind, other)}
    wanted = {*ranges[kind], *ranges[other]}
    liked: dict[str, float] = {}
    for element in elements(accept):
        name, *parameters = element.lower().split(";")
        # A head has room for thirty thousand media types, and few of them matter here.
        if (name := name.strip(" \t")) not in wanted:
            continue
        stripped = (piece.strip(" \t") for piece in parameters)
        quality = next((piece[2:] for piece in stripped if piece.startswith("q=")), "1")
        if _QUALITY.fullmatch(quality):
            liked[name] = float(quality)

    def quality_of(name: str) -> float:
        return next((liked[each] for each in ranges[name] if each in liked), 0.0)

    return quality_of(kind) > quality_of(other)
