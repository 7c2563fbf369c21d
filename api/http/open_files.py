"""Each connection is an open file of this process: how many there may be."""

import resource
from contextlib import suppress

FILES = 65_536


def allow_connections() -> None:
    """Many systems let a process have 1,024 open files, some 256, where it does not ask for more: so few clients that
    say nothing would shut everybody else out.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def most_connections() -> int:
    """As many as open files are allowed, but for an eighth that stays for the database, Redis and the rest."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1_000_000 if soft == resource.RLIM_INFINITY else soft - max(32, soft // 8)
