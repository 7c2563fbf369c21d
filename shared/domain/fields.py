"""The fields of a JSON body: each field's rule as a pure function, and its type for Pydantic models (docs/api.md).

A rule takes a value as JSON gave it. It returns what the value means, or raises a `fault`. Pydantic runs the rules, and
shared/domain/body_reading.py makes one InvalidRequest of all faults of a body. What a type says to OpenAPI stands
beside its rule.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from shared.domain import captions, times, urls
from shared.domain.errors import InvalidCode
from shared.domain.platforms import PLATFORMS
from shared.domain.times import Duration


class Unset(Enum):
    """The type of UNSET, which says "the client did not send it" where None means null."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET

MAX_ID: Final = 255
MAX_SOUND_ID: Final = 255
CONTENT_TYPES: Final = ("video", "slides")


@dataclass(frozen=True, slots=True)
class Content:
    """`video` with one URL, or `slides` with 1 to 35. Never logged: a URL may carry a secret."""

    kind: Literal["video", "slides"]
    urls: tuple[str, ...] = field(repr=False)


class Schedule(NamedTuple):
    """A local time (naive), its zone, and the instant (aware, UTC) that they mean together."""

    local_time: datetime
    timezone: str
    instant: datetime


def fault(code: InvalidCode, words: str, **other: str) -> PydanticCustomError:
    """What is wrong with a value. `words` are read after the field's name: "must be a string, not null".

    `field`: the name of another field in the same object that is at fault. `time`, `zone`: the value, where
    shared/domain/hints.py may say what was meant. It is asked for the few faults that a client sees.
    """
    return PydanticCustomError(code, "{words}", {"words": words, **other})


# -- Rules


def is_clean(text: str) -> bool:
    """Whether a string holds neither NUL, which PostgreSQL cannot store, nor a lone surrogate, which UTF-8 cannot."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return False
    return "\0" not in text


def text(value: object) -> str:
    """A string without NUL and lone surrogates: every other string rule starts here. null is refused."""
    if not isinstance(value, str):
        raise fault("invalid_request", f"must be a string, not {kind_of(value)}")
    if "\0" in value or not (value.isascii() or is_clean(value)):
        raise fault("invalid_request", "must not contain NUL or lone surrogates; take them out")
    return value


def caption(value: object) -> str:
    """An empty one is allowed. A caption too long for every platform is refused before the post is read."""
    given = text(value)
    if len(given) > captions.MOST:
        raise fault(
            "invalid_caption",
            f"may have at most {captions.MOST:,} characters anywhere and has {len(given):,}; shorten it",
        )
    return given


def identifier(value: object) -> str:
    """An id, ours or not: 1 to 255 characters."""
    given = text(value)
    if not 1 <= len(given) <= MAX_ID:
        raise fault("invalid_request", f"must have 1 to {MAX_ID} characters")
    return given


def sound_id(value: object) -> str | None:
    """1 to 255 characters, or null for no sound. The bound is ours: TikTok's ids have 19 digits. Other lengths are
    invalid_request.
    """
    if value is None:
        return None
    given = text(value)
    if not 1 <= len(given) <= MAX_SOUND_ID:
        words = f"must have 1 to {MAX_SOUND_ID} characters and has {len(given):,}; null removes the sound"
        raise fault("invalid_request", words)
    return given


def url(value: object) -> str:
    """A URL as shared/domain/urls.py has it."""
    if isinstance(value, str) and urls.is_usual(value):
        return value
    given = text(value)
    wrong = urls.fault_of(given)
    if wrong is not None:
        raise fault("invalid_content", wrong)
    return given


def one_url(value: object) -> str:
    """A URL where an array of them may stand too."""
    if not isinstance(value, str):
        raise fault("invalid_request", f"must be a string or an array of strings, not {kind_of(value)}")
    return url(value)


def local_time(value: object) -> datetime:
    """A naive local time. Whether it lies in the future is `times.within_reach`'s to say."""
    given = text(value)
    local = times.parse_local(given)
    if local is None:
        raise fault("invalid_scheduled_time", f"must be {times.LOCAL_RULE}, on a day that exists", time=given)
    return local


def zone(value: object) -> str:
    """One of `times.ZONES`."""
    given = text(value)
    if given not in times.ZONES:
        raise fault("invalid_timezone", f"must be one of {', '.join(times.ZONES)}", zone=given)
    return given


def schedule(value: object, info: ValidationInfo) -> Schedule | None:
    """A zone, with the field `scheduled_time` before it: both, and their instant. None without a good local time."""
    name, local = zone(value), info.data.get("scheduled_time")
    if local is None:
        return None
    try:
        return Schedule(local, name, times.to_instant(local, name))
    except times.SkippedByDst as skipped:
        raise fault("invalid_scheduled_time", str(skipped), field="scheduledTime") from None


def instant(value: object) -> datetime:
    """An RFC 3339 time in UTC; aware."""
    found = times.parse_instant(text(value))
    if found is None:
        raise fault("invalid_request", f"must be {times.INSTANT_RULE}")
    return found


def duration(value: object) -> Duration:
    """An ISO 8601 duration of weeks, or of days, hours and minutes."""
    found = times.parse_duration(text(value))
    if found is None:
        raise fault("invalid_request", f"must be {times.DURATION_RULE}")
    return found


def one_of(known: Iterable[str], code: InvalidCode = "invalid_request") -> "Ruled":
    """A rule, and its schema: one of a few words."""
    words = [str(word) for word in known]
    shown = " or ".join(words) if len(words) == 2 else f"one of {', '.join(words)}"

    def rule(value: object) -> str:
        if text(value) not in words:
            raise fault(code, f"must be {shown}")
        return str(value)

    return Ruled(rule, enum=words, examples=words[:1])


def flag(value: object) -> bool:
    """True or false; nothing that only looks like it."""
    if not isinstance(value, bool):
        raise fault("invalid_request", "must be true or false")
    return value


# -- Types: a rule, and what OpenAPI says of its values


class Ruled:
    """Makes an annotated type of a rule. `schema`: the JSON Schema of its values. `looks_back`: the rule reads the
    fields that stand before it, too.
    """

    def __init__(
        self, rule: Callable[..., Any], kind: str | list[str] = "string", *, looks_back: bool = False, **schema: Any
    ) -> None:
        self.rule, self.looks_back, self.schema = rule, looks_back, {"type": kind, **schema}

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        # The source type is what the rule returns. Pydantic's own PlainValidator would document that type too.
        if self.looks_back:
            return core_schema.with_info_plain_validator_function(self.rule)
        return core_schema.no_info_plain_validator_function(self.rule)

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return dict(self.schema)


_TIME_PART = "T([0-9]{1,9}H([0-9]{1,9}M)?|[0-9]{1,9}M)"
LOCAL_PATTERN: Final = r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]$"
INSTANT_PATTERN: Final = (
    r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]+)?)?"
    r"([Zz]|[+-]00:00)$"
)
DURATION_PATTERN: Final = f"^[+-]?P([0-9]{{1,9}}W|[0-9]{{1,9}}D({_TIME_PART})?|{_TIME_PART})$"
URL_PATTERN: Final = r"^[Hh][Tt][Tt][Pp][Ss]?://[^/?#]"

_ID: Final = {"minLength": 1, "maxLength": MAX_ID}
Id = Annotated[str, Ruled(identifier, **_ID)]
PostId = Annotated[str, Ruled(identifier, **_ID, examples=["post_abc123"])]
AccountId = Annotated[str, Ruled(identifier, **_ID, examples=["acc_1a2b3c4d5e"])]
Caption = Annotated[
    str,
    Ruled(
        caption,
        maxLength=captions.MOST,
        description="at most 2,200 UTF-16 code units as a TikTok video (rendered slides too), 4,000 as TikTok slides; "
        "on Instagram 2,200 characters, 30 hashtags and 20 mentions",
        examples=["Live at noon, Eastern!"],
    ),
]
SoundId = Annotated[
    str | None,
    Ruled(
        sound_id,
        ["string", "null"],
        minLength=1,
        maxLength=MAX_SOUND_ID,
        description="TikTok only; null removes the sound, absent keeps it",
        examples=["7016547803243022337"],
    ),
]
_URL: Final[dict[str, Any]] = {
    "maxLength": urls.MAX_URL,
    "pattern": URL_PATTERN,
    "description": "http or https, with a host, without credentials; never fetched by the API",
    "examples": ["https://cdn.example.com/clip.mp4"],
}
Url = Annotated[str, Ruled(url, **_URL)]
OneUrl = Annotated[str, Ruled(one_url, **_URL)]
LocalTime = Annotated[
    datetime,
    Ruled(
        local_time,
        pattern=LOCAL_PATTERN,
        description="a local time, without seconds or offset, in the future and within ten years; a time that a clock "
        "change skips is refused, one that occurs twice means its first occurrence",
        examples=["2030-04-22T15:00"],
    ),
]
_ZONE: Final = {"enum": list(times.ZONES), "examples": ["America/New_York"]}
Zone = Annotated[str, Ruled(zone, **_ZONE)]
ScheduleZone = Annotated[Schedule | None, Ruled(schedule, looks_back=True, **_ZONE)]
"""The field `timezone` of a body that has `scheduledTime` before it."""
# No format date-time: it demands seconds, and these may be left out.
Instant = Annotated[
    datetime,
    Ruled(instant, pattern=INSTANT_PATTERN, description="UTC", examples=["2030-04-22T00:00:00Z"]),
]
IsoDuration = Annotated[
    Duration,
    Ruled(duration, pattern=DURATION_PATTERN, description=times.DURATION_RULE, examples=["P1D", "-PT90M"]),
]
Platform = Annotated[str, one_of(PLATFORMS)]
ContentType = Annotated[str, one_of(CONTENT_TYPES, "invalid_content")]
Flag = Annotated[bool, Ruled(flag, "boolean")]


def kind_of(value: object) -> str:
    """The JSON type of a value, with its article."""
    if value is None:
        return "null"
    kinds: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (bool, "a boolean"),
        ((int, float), "a number"),
        (str, "a string"),
        (list, "an array"),
    )
    return next((word for kind, word in kinds if isinstance(value, kind)), "an object")
