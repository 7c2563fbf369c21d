"""Every SQL statement, in one place, named for what it is for. Takes the transaction first; never commits.

posts     the only row lock, reads and writes of posts        edits    the queue, the results, the audit trail
claims    taking, giving back and finishing a claim           schedule what is due or forgotten
raw_statements  by the driver, for every edit         batches  a batch of edits in few trips
keys      workspaces, accounts, API keys                      idempotency  repeated requests
"""


class StaleWriteError(Exception):
    """A guarded write changed another number of rows than expected: the state that it names is gone. Roll back."""


STALE = "RD001"
"""The SQLSTATE of redraft_expect (migration 0009): the database found another number of rows than expected."""


def expecting(write: str, expected: str, what: str) -> str:
    """A guarded write that checks its own row count, so that it may travel with the COMMIT. `expected` is SQL."""
    return f"WITH written AS ({write} RETURNING 1) SELECT redraft_expect(count(*), {expected}, '{what}') FROM written"


def counted(found: int, expected: int, what: str) -> None:
    """Compare a guarded write's row count with the expected one. StaleWriteError if they differ."""
    if found != expected:
        raise StaleWriteError(f"{what}: {found} rows instead of {expected}")
