"""The operator's name, which is recorded with each action."""

import getpass
import os
from typing import Annotated

import typer

By = Annotated[
    str | None, typer.Option("--by", help="Your name, kept with what you do; else this machine's name for you.")
]
LONGEST = 100


def operator_name(given: str | None) -> str:
    """The name given, else the one of this machine's user; in a container without users, the user's number."""
    try:
        name = given or getpass.getuser()
    except (OSError, KeyError):
        name = f"uid {os.getuid()}"
    shown = "".join(letter if letter.isprintable() else " " for letter in name).strip()
    return shown[:LONGEST] or "unknown"
