"""The platforms, and what differs between them: how many slides a post may have, and whether it has a sound. Pure."""

from collections.abc import Mapping
from typing import Final

from shared.domain.errors import Faults

PLATFORMS: Final = ("tiktok", "instagram")
SLIDES: Final[Mapping[str, tuple[int, int]]] = {"tiktok": (1, 35), "instagram": (2, 10)}
"""How many slides a post may have, by platform."""

MOST_SLIDES: Final = max(most for _, most in SLIDES.values())
_LABELS: Final = {"tiktok": "TikTok", "instagram": "Instagram"}


def check_slide_count(count: int, platform: str, faults: Faults, *, name: str = "contentUrl") -> None:
    """1 to 35 slides on TikTok, 2 to 10 on Instagram."""
    least, most = SLIDES[platform]
    if not least <= count <= most:
        message = f"{name} must hold {least} to {most} image URLs on {_LABELS[platform]} and holds {count}"
        faults.add("invalid_content", name, message)


def check_sound_platform(sound_id: str | None, platform: str, faults: Faults, *, name: str = "soundId") -> None:
    """A sound is for TikTok only."""
    if sound_id is not None and platform != "tiktok":
        message = f"{name} works on TikTok posts only; leave it out for {_LABELS[platform]}"
        faults.add("sound_not_supported", name, message)
