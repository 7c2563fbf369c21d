"""Numbers of things in a sentence. Imports nothing, so that every command may have it."""

MANY = 10_000
"""Counts of long lists end above it: a larger one means more than so many."""


def counted(number: int, noun: str) -> str:
    """`1 post`, `1,204 posts`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def capped(number: int, noun: str = "") -> str:
    """A count that ends above MANY: `10,000+ posts` are more than 10,000."""
    shown = f"{MANY:,}+" if number > MANY else f"{number:,}"
    return f"{shown} {noun}{'' if number == 1 else 's'}" if noun else shown
