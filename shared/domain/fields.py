"""The fields of a post as JSON gives them, and the rules about them (docs/api.md): for edits, creation, bulk jobs.

Pure, and written by hand rather than as Pydantic models: this runs for every request. Each `check_*` takes a value as
JSON gave it (UNSET where the client left it out), puts what is wrong with it into a `Faults`, and returns the value, or
UNSET where it was left out or at fault.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from difflib import get_close_matches
from enum import Enum
from typing import Final, Literal, NamedTuple, cast

from shared.domain import times, urls
from shared.domain.errors import Faults, printable


class Unset(Enum):
    """The type of UNSET, which says "the client did not send it" where None means null."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET

MAX_SOUND_ID: Final = 255
SLIDES: Final[Mapping[str, tuple[int, int]]] = {"tiktok": (1, 35), "instagram": (2, 10)}
"""How many slides a post may have, by platform."""

_MOST_SLIDES: Final = max(most for _, most in SLIDES.values())
_LABELS: Final = {"tiktok": "TikTok", "instagram": "Instagram"}
_MOST_GUESSES: Final = 20
_LONGEST_GUESS: Final = 64


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


def check_known(body: Mapping[str, object], known: Iterable[str], faults: Faults, *, prefix: str = "") -> None:
    """No field besides `known`; a near miss is answered with the name that was probably meant."""
    unknown = [name for name in body if name not in known]
    if not unknown:
        return
    # Finding near misses is slow. One object has room for ten thousand of them, and a body for ten thousand objects.
    plain = {_plain(name): name for name in known}
    for name in unknown[:_MOST_GUESSES]:
        if faults.enough_of("invalid_request"):
            return
        near = get_close_matches(_plain(name), plain, n=1, cutoff=0.7) if len(name) <= _LONGEST_GUESS else []
        advice = f"did you mean {plain[near[0]]}?" if near else f"send only {', '.join(known)}"
        shown = f"{prefix}{printable(name)}"
        faults.add("invalid_request", shown, f'"{shown}" is not a field here; {advice}')


def is_clean(text: str) -> bool:
    """Whether a string holds neither NUL, which PostgreSQL cannot store, nor a lone surrogate, which UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def check_text(value: object, name: str, faults: Faults) -> str | Unset:
    """A string without NUL and lone surrogates: every other string rule starts here. null is refused."""
    if value is UNSET:
        return UNSET
    if not isinstance(value, str):
        faults.add("invalid_request", name, f"{name} must be a string, not {kind_of(value)}")
    elif not is_clean(value):
        faults.add("invalid_request", name, f"{name} must not contain NUL or lone surrogates; take them out")
    else:
        return value
    return UNSET


def check_schedule(time: object, timezone: object, faults: Faults, *, prefix: str = "") -> Schedule | Unset:
    """`scheduledTime` and `timezone`, both or neither. Whether it lies in the future is `times.within_reach`'s to say.

    `prefix` stands before both names, as in `items[7].`.
    """
    if time is UNSET and timezone is UNSET:
        return UNSET
    time_name, zone_name = f"{prefix}scheduledTime", f"{prefix}timezone"
    local: datetime | None = None
    if time is UNSET:
        faults.add("missing_required_fields", time_name, f"{time_name} is missing; timezone needs it")
    elif (text := check_text(time, time_name, faults)) is not UNSET and (local := times.parse_local(text)) is None:
        faults.add("invalid_scheduled_time", time_name, f"{time_name} must be {times.LOCAL_RULE}, on a day that exists")
    zone: str | Unset = UNSET
    if timezone is UNSET:
        faults.add("missing_required_fields", zone_name, f"{zone_name} is missing; scheduledTime needs it")
    elif (zone := check_text(timezone, zone_name, faults)) is not UNSET and zone not in times.ZONES:
        faults.add("invalid_timezone", zone_name, f"{zone_name} must be one of {', '.join(times.ZONES)}")
        zone = UNSET
    if local is None or zone is UNSET:
        return UNSET
    try:
        return Schedule(local, zone, times.to_instant(local, zone))
    except times.SkippedByDst as skipped:
        faults.add("invalid_scheduled_time", time_name, f"{time_name} {skipped}")
        return UNSET


def check_content(kind: object, url: object, faults: Faults) -> Content | Unset:
    """`contentType` and `contentUrl`, both or neither: a string for `video`, an array of strings for `slides`."""
    if kind is UNSET and url is UNSET:
        return UNSET
    kind = _check_content_type(kind, faults)
    if url is UNSET:
        faults.add("missing_required_fields", "contentUrl", "contentUrl is missing; contentType needs it")
    elif isinstance(url, str):
        if kind == "slides":
            faults.add("invalid_content", "contentUrl", "contentUrl must be an array of image URLs for slides")
        one = check_url(url, faults)
        if kind == "video" and one is not UNSET:
            return Content("video", (one,))
    elif isinstance(url, list):
        if kind == "video":
            faults.add("invalid_content", "contentUrl", "contentUrl must be one URL, as a string, for a video")
        several = check_urls(url, faults)
        if kind == "slides" and several is not UNSET:
            return Content("slides", several)
    else:
        message = f"contentUrl must be a string or an array of strings, not {kind_of(url)}"
        faults.add("invalid_request", "contentUrl", message)
    return UNSET


def check_urls(value: object, faults: Faults, *, name: str = "contentUrl") -> tuple[str, ...] | Unset:
    """An array of URLs, as many as any platform takes; `check_slide_count` knows the post's own."""
    if value is UNSET:
        return UNSET
    if not isinstance(value, list):
        faults.add("invalid_request", name, f"{name} must be an array of strings, not {kind_of(value)}")
        return UNSET
    if not 1 <= len(value) <= _MOST_SLIDES:
        faults.add("invalid_content", name, f"{name} must hold 1 to {_MOST_SLIDES} URLs and holds {len(value):,}")
    # Of far too many only the first are looked at: a body has room for sixty thousand.
    found = [check_url(url, faults, name=f"{name}[{place}]") for place, url in enumerate(value[:_MOST_SLIDES])]
    if len(value) != len(found) or not found:
        return UNSET
    return UNSET if UNSET in found else tuple(cast("list[str]", found))


def check_slide_count(count: int, platform: str, faults: Faults, *, name: str = "contentUrl") -> None:
    """1 to 35 slides on TikTok, 2 to 10 on Instagram."""
    least, most = SLIDES[platform]
    if not least <= count <= most:
        message = f"{name} must hold {least} to {most} image URLs on {_LABELS[platform]} and holds {count}"
        faults.add("invalid_content", name, message)


def check_url(value: object, faults: Faults, *, name: str = "contentUrl") -> str | Unset:
    """A URL as shared/domain/urls.py has it."""
    url = check_text(value, name, faults)
    if url is UNSET:
        return UNSET
    fault = urls.fault_of(url)
    if fault is None:
        return url
    faults.add("invalid_content", name, f"{name} {fault}")
    return UNSET


def check_sound_id(value: object, faults: Faults, *, name: str = "soundId") -> str | Unset | None:
    """1 to 255 characters, or null for no sound. The bound is ours: TikTok's ids have 19 digits. Other lengths are
    invalid_request.
    """
    if value is None:
        return None
    sound_id = check_text(value, name, faults)
    if sound_id is not UNSET and not 1 <= len(sound_id) <= MAX_SOUND_ID:
        message = f"{name} must have 1 to {MAX_SOUND_ID} characters and has {len(sound_id):,}; null removes the sound"
        faults.add("invalid_request", name, message)
        return UNSET
    return sound_id


def check_sound_platform(sound_id: str | None, platform: str, faults: Faults, *, name: str = "soundId") -> None:
    """A sound is for TikTok only."""
    if sound_id is not None and platform != "tiktok":
        message = f"{name} works on TikTok posts only; leave it out for {_LABELS[platform]}"
        faults.add("sound_not_supported", name, message)


def _check_content_type(value: object, faults: Faults) -> str | Unset:
    if value is UNSET:
        faults.add("missing_required_fields", "contentType", "contentType is missing; contentUrl needs it")
        return UNSET
    kind = check_text(value, "contentType", faults)
    if kind is not UNSET and kind not in {"video", "slides"}:
        faults.add("invalid_content", "contentType", "contentType must be video or slides")
        return UNSET
    return kind


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


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
