"""One terminal for many processes: each line with the name of who said it."""

import sys
from typing import Final

COLOURS: Final = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
WIDTH: Final = 9  # of the longest name, "reference"


class Output:
    """Prints the lines of children. A closed or broken standard output ends nothing but the printing."""

    def __init__(self, *, prefixed: bool = True, coloured: bool | None = None) -> None:
        """`prefixed` False prints lines as they came, for machines that parse them."""
        self._prefixed = prefixed
        self._coloured = sys.stdout.isatty() if coloured is None else coloured
        self._colour_of: dict[str, int] = {}

    def __call__(self, name: str, line: str) -> None:
        self.write(f"{self._prefix(name)}{line}\n" if self._prefixed else f"{line}\n")

    def write(self, text: str) -> None:
        """Print text of ours, as it is."""
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except (OSError, ValueError):
            # `redraft up | head`: the reader went away, the stack should not. ValueError: closed by us, at the end.
            return

    def _prefix(self, name: str) -> str:
        padded = f"{name:<{WIDTH}} | "
        if not self._coloured:
            return padded
        colour = self._colour_of.setdefault(name, COLOURS[len(self._colour_of) % len(COLOURS)])
        return f"\033[{colour}m{padded}\033[0m"
