"""What operators and time do for posts that an opponent leaves behind: failed ones are retried, long waits end as if
the time had passed.
"""

import asyncio
import random
from contextlib import suppress

import httpx
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from tests import factories
from tests.loopback import LOOPBACK
from tests.soak.stack import Stack

EVERY = 2.0
AT_ONCE = 20

# Only waits between tries: a call that is under way has the claim's own time.
_WAITS_END = text("""
    UPDATE posts p SET retry_at = CASE WHEN retry_at IS NOT NULL THEN now() END,
        claim_expires_at = CASE WHEN claim_kind IS NOT NULL THEN now() END
    WHERE id IN (
        SELECT id FROM posts WHERE (claim_expires_at > now() OR retry_at > now()) AND status = 'generated'
            AND NOT EXISTS (SELECT FROM publish_attempts a
                            WHERE a.claim_token = posts.claim_token AND a.outcome IS NULL)
            AND random() < :share
        ORDER BY id FOR NO KEY UPDATE SKIP LOCKED)""")
_FAILED = text("SELECT id FROM posts WHERE status = 'failed' AND deleted_at IS NULL ORDER BY random() LIMIT :limit")


async def operators(running: Stack, rng: random.Random, over: asyncio.Event) -> None:
    while not over.is_set():
        await asyncio.to_thread(look_after, running, share=rng.choice((0.1, 0.5)))
        with suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), EVERY)


def look_after(running: Stack, share: float) -> int:
    """End this share of the waits and retry some failed posts; how many were failed. With PostgreSQL or the API away
    nothing happens this time.
    """
    try:
        with running.engine.begin() as tx:
            tx.execute(_WAITS_END, {"share": share})
            failed = list(tx.execute(_FAILED, {"limit": AT_ONCE}).scalars())
    except OperationalError:
        return 1
    headers = {"Authorization": f"Bearer {factories.SECRET}"}
    api_url = f"http://127.0.0.1:{running.api_port}"
    with suppress(httpx.HTTPError), httpx.Client(base_url=api_url, headers=headers, **LOOPBACK) as api:
        for post_id in failed:
            api.post(f"/v1/posts/{post_id}/retry")
    return len(failed)
