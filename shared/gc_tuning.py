"""Settings of the garbage collector. Objects from a process's start live as long as the process: it skips them."""

import gc

_USUAL = gc.get_threshold()
YOUNG = 10_000
"""New containers before the collector looks at them. Python's 700 are made by four requests, whose objects are all
still in use then, and looked at for nothing; what a cycle holds meanwhile is some megabytes at most.
"""


def freeze() -> None:
    """To be called when a process has started, and in one that forks before it does.

    A full collection looks at every object there is, some 150,000 after our imports: 80 ms without service.
    In a forked child it also writes to each, and so copies all of its parent's memory. What is frozen, it leaves alone.
    """
    # Without a collection first: after our imports it takes 50 ms in each of eight processes, and finds nothing.
    gc.freeze()
    gc.set_threshold(YOUNG, *_USUAL[1:])


def unfreeze() -> None:
    """Undo `freeze`, for a process that goes on to other work."""
    gc.unfreeze()
    gc.set_threshold(*_USUAL)
