"""How many connections there may be: each one is an open file of this process."""

import resource
from contextlib import suppress

FILES = 65_536


def allow_connections() -> None:
    """Raise this process's limit of open files. Many systems allow 1,024 by default, some 256: a few idle clients would
    shut out all others.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def most_connections() -> int:
    """How many connections there may be: the limit of open files, less an eighth for the database, Redis and others."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1_000_000 if soft == resource.RLIM_INFINITY else soft - max(32, soft // 8)
