"""How long a caption may be, counted as each platform counts. The edit is the last check before the platform. Pure.

TikTok counts UTF-16 code units, in which most emoji are two (Content Posting API, Direct Post: a video's `title`; photo
posts: `description`). Instagram counts characters, hashtags and mentions (Graph API, IG User Media: `caption`). Each
count costs one walk through the caption.
"""

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from shared.domain.errors import Faults

# What follows the sign makes it one: no white space, no sign again, no ASCII punctuation but the underscore.
_HASHTAG: Final = re.compile(r"#(?=[^\s!-/:-@\[-^`{-~])")
# An at sign within a word is a mail address.
_MENTION: Final = re.compile(r"(?<![\w.])@(?=[A-Za-z0-9_])")


def utf16_units(text: str) -> int:
    """The length as JavaScript and Java count: one for most characters, two beyond U+FFFF. No lone surrogates."""
    return len(text.encode("utf-16-le")) // 2


class Limit(NamedTuple):
    """`rule` is read as in "caption may have at most 2,200 characters on Instagram and has 2,201; shorten it"."""

    most: int
    count: Callable[[str], int]
    rule: str
    advice: str = "shorten it"


_UNITS: Final = "UTF-16 code units (most emoji are two or more) {}"
_INSTAGRAM: Final = (
    Limit(2_200, len, "characters on Instagram"),
    Limit(30, lambda text: len(_HASHTAG.findall(text)), "hashtags on Instagram", "take some out"),
    Limit(20, lambda text: len(_MENTION.findall(text)), "mentions on Instagram", "take some out"),
)
LIMITS: Final[dict[tuple[str, str], tuple[Limit, ...]]] = {
    ("tiktok", "video"): (Limit(2_200, utf16_units, _UNITS.format("as a TikTok video")),),
    ("tiktok", "slides"): (Limit(4_000, utf16_units, _UNITS.format("as TikTok slides")),),
    ("instagram", "video"): _INSTAGRAM,
    ("instagram", "slides"): _INSTAGRAM,
}
MOST: Final = 4_000
"""No caption may be longer, whatever its post and however it is counted."""


def limits_of(platform: str, content_type: str, *, render_as_video: bool) -> tuple[Limit, ...]:
    """The limits of a caption. Slides that are rendered go out as a video and have the limit of a video."""
    return LIMITS[platform, "video" if render_as_video else content_type]


def check(caption: str, limits: tuple[Limit, ...], faults: Faults, *, unchanged: bool = False) -> None:
    """The caption against its limits. `unchanged`: it is the post's own, and new content brings it another limit."""
    for limit in limits:
        count = limit.count(caption)
        if count > limit.most:
            what = "the caption stands as it is, and" if unchanged else "caption"
            then = "send a shorter one with the new content" if unchanged else limit.advice
            message = f"{what} may have at most {limit.most:,} {limit.rule} and has {count:,}; {then}"
            faults.add("invalid_caption", "caption", message)
