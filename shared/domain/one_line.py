"""Texts that a terminal shows on one line: reasons of holds, ids from a file (docs/api.md, "Hold and resume")."""

import re
from typing import Final

ONE_LINE: Final = r"^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]*$"
"""As a JSON schema has it: no ends of lines, nothing that steers a terminal or turns the direction of a text."""

_ONE_LINE: Final = re.compile(ONE_LINE.removesuffix("$") + r"\Z")


def fault_of_line(given: str) -> str | None:
    """What is wrong with it, read after its name; None if it is one line."""
    return None if _ONE_LINE.match(given) else "must be one line without control characters; take the others out"
