"""Secrets that all processes share: random, made by the migrations, never shown."""

from sqlalchemy import Connection, text

CURSORS = "cursors"

_SECRET = text("SELECT value FROM secrets WHERE name = :name")


def secret(tx: Connection, name: str) -> bytes:
    """The secret of that name: 32 random bytes."""
    return bytes(tx.execute(_SECRET, {"name": name}).scalar_one())
