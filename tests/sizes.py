"""The largest legal inputs beside the smallest: size is a dimension of every property, race and history."""

import random
from typing import Any

EMOJI = "\U0001f3ac" * 1_100
"""A caption at the limit of 2,200, counted in UTF-16 units: 4,400 bytes."""

IDEOGRAMS = "\u6f22" * 2_200
"""The same limit, in 6,600 bytes."""

QUOTES = '"\\' * 1_100
"""The same, and each character takes two in JSON, four in JSON within JSON."""

CAPTIONS = (EMOJI, IDEOGRAMS, QUOTES)
SOUND = "s" * 255
TAGS = tuple(f'"{number}"' for number in range(10**15, 10**15 + 63))
"""An If-Match as long as one may be, but for one tag."""

URL = 2_048
SLIDES = 35
ITEMS = 10_000
QUEUED = 1_000
"""Edits of one post that wait at once: as many as one task takes."""


def url(name: object) -> str:
    """One as long as a URL may be."""
    return f"https://cdn.example.com/{name}/".ljust(URL, "a")


def slides(name: object, count: int = SLIDES) -> dict[str, Any]:
    """35 of them: 72 kB."""
    return {"contentType": "slides", "contentUrl": [url(f"{name}-{number}") for number in range(count)]}


def caption(rng: random.Random, name: str) -> str:
    """One at the limit, and like no other."""
    return name + rng.choice(CAPTIONS)[: -len(name)]


def patch(rng: random.Random, name: str) -> dict[str, Any]:
    """A large patch of a TikTok post: content, a caption, or all that there is."""
    kind = rng.choice(("caption", "caption", "slides", "all"))
    body: dict[str, Any] = {} if kind == "slides" else {"caption": caption(rng, name)}
    if kind != "caption":
        body |= slides(name)
    if kind == "all":
        body["soundId"] = SOUND
    return body


def any_size(rng: random.Random, small: dict[str, Any], name: str, share: float) -> dict[str, Any]:
    """Mostly the small one; a large one for that share."""
    return patch(rng, name) if rng.random() < share else small
