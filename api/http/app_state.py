"""What the app gives to the connections of its process."""

from collections.abc import Callable
from typing import TypedDict


class AppState(TypedDict):
    """What the app gives to every connection at its start. `on_shutdown` is called when the process is about to end."""

    on_shutdown: Callable[[], object]
