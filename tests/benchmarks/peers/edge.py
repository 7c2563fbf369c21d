"""The HTTP side that all peers share: the route, the body, the key, the answer."""

from functools import lru_cache
from hashlib import sha256
from typing import Annotated, Any

from fastapi import Depends, Header, HTTPException, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select

from shared.store.tables import api_keys
from tests.benchmarks.peers import edit

ROUTE = "/v1/posts/{post_id}"
WAIT = 10.0
"""Seconds to wait for a job's end, as long as Redraft waits."""


class Change(BaseModel):
    """What a client may send. Captions only: the benchmark edits nothing else."""

    model_config = ConfigDict(extra="forbid")
    caption: Annotated[str, Field(max_length=2200)]


@lru_cache(maxsize=1)
def _keys() -> frozenset[bytes]:
    with edit.engine.connect() as tx:
        return frozenset(tx.execute(select(api_keys.c.secret_hash).where(api_keys.c.revoked_at.is_(None))).scalars())


async def authenticated(authorization: Annotated[str, Header()] = "") -> None:
    """The key, looked up among the hashes that this process read once."""
    if sha256(authorization.removeprefix("Bearer ").encode()).digest() not in _keys():
        raise HTTPException(401, "Invalid or missing API key", {"WWW-Authenticate": "Bearer"})


Authenticated = Depends(authenticated)


def answer(result: dict[str, Any]) -> Response:
    """The post as the edit left it, ready as text: nothing is validated or encoded a second time."""
    if result["status"] != 200:
        raise HTTPException(result["status"], result["error"])
    headers = {
        "ETag": f'"{result["revision"]}"',
        "Edit-Id": result["edit_id"],
        "Location": f"/v1/edits/{result['edit_id']}",
    }
    return Response(result["body"], media_type="application/json", headers=headers)
