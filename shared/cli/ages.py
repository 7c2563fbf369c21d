"""Lengths of time as options take them: 48h, 90d, 12w."""

import re
from datetime import timedelta
from typing import Final

RULE: Final = "write a number and h, d or w, like 90d"
_AGE: Final = re.compile(r"([1-9]\d{0,5})([hdw])")
_UNITS: Final = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def parse_age(given: str) -> timedelta | None:
    """The length; None for everything that RULE does not describe."""
    found = _AGE.fullmatch(given.strip())
    return int(found[1]) * _UNITS[found[2]] if found else None
