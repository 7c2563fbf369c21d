"""Every SQL statement, in one place, named for what it is for. Takes the transaction first; never commits.

posts     the only row lock, reads and writes of posts        edits    the queue, its ends, the audit trail
claims    taking, giving back and finishing a claim           schedule what is due or forgotten
direct    by the driver itself, for what is hot             batches  a batch of edits in few trips
keys      workspaces, accounts, API keys                      idempotency  repeated requests
"""


class StaleWriteError(Exception):
    """A guarded write found another row count than it must: the state it came from is gone. Roll back."""


def counted(found: int, expected: int, what: str) -> None:
    """Hold a guarded write's row count against what it must be (SPEC 2, 3.4)."""
    if found != expected:
        raise StaleWriteError(f"{what}: {found} rows instead of {expected}")
