"""What a client probably meant by a name, a zone or a time that the API does not take. Pure.

Finding near misses is slow. Ask only for what a client is going to see.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from difflib import get_close_matches
from typing import Final

from shared.domain import times

_LONGEST: Final = 64
_OTHER_NAMES: Final[Mapping[str, str]] = {
    "us/eastern": "America/New_York", "est": "America/New_York", "edt": "America/New_York", "et": "America/New_York",
    "est5edt": "America/New_York", "us/central": "America/Chicago", "cst": "America/Chicago", "cdt": "America/Chicago",
    "cst6cdt": "America/Chicago", "us/mountain": "America/Denver", "mst": "America/Denver", "mdt": "America/Denver",
    "mst7mdt": "America/Denver", "us/pacific": "America/Los_Angeles", "pst": "America/Los_Angeles",
    "pdt": "America/Los_Angeles", "pst8pdt": "America/Los_Angeles", "us/alaska": "America/Anchorage",
    "akst": "America/Anchorage", "us/hawaii": "Pacific/Honolulu", "hst": "Pacific/Honolulu", "gb": "Europe/London",
    "bst": "Europe/London", "gmt": "Europe/London", "cet": "Europe/Paris", "cest": "Europe/Paris",
    "japan": "Asia/Tokyo", "jst": "Asia/Tokyo", "singapore": "Asia/Singapore", "sgt": "Asia/Singapore",
    "australia/nsw": "Australia/Sydney", "aest": "Australia/Sydney", "aedt": "Australia/Sydney",
}  # fmt: skip
"""Old names and abbreviations of the zones that there are, in lower case."""


def near(given: str, known: Iterable[str]) -> str | None:
    """The name that was probably meant; case, underscores and hyphens do not count. None without a near miss."""
    plain = {_plain(name): name for name in known}
    found = get_close_matches(_plain(given), plain, n=1, cutoff=0.7) if len(given) <= _LONGEST else []
    return plain[found[0]] if found else None


def zone(given: str) -> str:
    """`; did you mean Europe/Paris?`, to be read after the fault of a zone. Empty without a guess."""
    meant = _OTHER_NAMES.get(given.strip().lower()) if len(given) <= _LONGEST else None
    meant = meant or near(given.strip().replace(" ", "_"), times.ZONES)
    return f"; did you mean {meant}?" if meant else ""


def time(given: str, zone_name: object) -> str:
    """What to send instead of a time with an offset, to be read after its fault. Empty where it has none.

    `zone_name`: what was sent as `timezone` beside it.
    """
    if len(given) > _LONGEST:
        return ""
    try:
        instant = datetime.fromisoformat(given)
        if instant.tzinfo is None:
            return ""
        if not isinstance(zone_name, str) or zone_name not in times.ZONES:
            return "; answers show UTC, requests take the local time of timezone: leave out the offset"
        local = times.format_local(times.to_local(instant, zone_name))
    except (ValueError, OverflowError):
        return ""
    return f"; answers show UTC, requests take local time: in {zone_name} that is {local}, so send {local}"


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
