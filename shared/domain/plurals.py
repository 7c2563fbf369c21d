"""Numbers of things in a sentence. Imports nothing, so that every command may have it."""


def counted(number: int, noun: str) -> str:
    """`1 post`, `1,204 posts`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
