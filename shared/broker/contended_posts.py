"""Posts that are locked elsewhere, to be tried again in 250 ms: all of them by one message (docs/decisions/0012).

If each doorbell that met a locked post sent a message of its own, these messages would return four times a second. They
would multiply with each edit of the post, until the workers did nothing else. So the posts are in a hash in Redis, each
with the reply address of the latest request. While one message for them is under way, no other is sent. The hash has
the token of that message beside it. Another message, sent because the first was late, or delivered twice, sends no
successor. Redis may lose all of it: the edits are in their rows, and rescue rings for them.
"""

from collections.abc import Collection, Mapping, Sequence
from uuid import uuid4

import redis
import structlog

from shared.broker import queue, redis_connection
from shared.domain.ids import is_id

SNOOZE = 0.25
"""Seconds until a worker comes back to work that met a lock of another session."""

BELIEVED = 1.0
"""Seconds for which a message that was sent is taken to be under way: longer than it waits, and one may be lost."""

POSTS = "redraft:held"
RUNG = "redraft:held:rung"
_OFF_THE_BOOKS = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"

log = structlog.get_logger(__name__)


def ring(addresses: Mapping[str, str | None]) -> None:
    """Have these posts tried again, each with the address where its results are announced (`answers.address`). None
    keeps the address that is noted already.
    """
    if not addresses:
        return
    token = uuid4().hex
    try:
        with redis_connection.client().pipeline() as together:
            for post_id, reply_to in addresses.items():
                (together.hset if reply_to else together.hsetnx)(POSTS, post_id, reply_to or "")
            together.set(RUNG, token, nx=True, px=int(BELIEVED * 1000))
            *_, first = together.execute()
    except redis.RedisError as error:
        log.warning("held_not_noted", posts=len(addresses), error=type(error).__name__)
        return
    if first:
        queue.ring_contended(token, SNOOZE)


def known(post_ids: Sequence[str]) -> set[str]:
    """Those of the posts that a message under way will still try, so that the caller need not."""
    try:
        with redis_connection.client().pipeline() as together:
            together.exists(RUNG)
            together.hmget(POSTS, post_ids)
            rung, found = together.execute()
    except redis.RedisError:
        return set()
    return {post_id for post_id, address in zip(post_ids, found, strict=True) if address is not None} if rung else set()


def take(token: str | None) -> dict[str, str]:
    """The message arrived: the posts that it means, at most 500, each with its address. They stay noted until `forget`.

    `token` is the message's own. No posts where Redis is away: rescue has them.
    """
    try:
        with redis_connection.client().pipeline() as together:
            # This comes first. A worker that notes a post from now on sends a new message, since this one may have read
            # the hash already. A second message that is under way still reads the hash, and keeps its token.
            together.eval(_OFF_THE_BOOKS, 1, RUNG, token or "")
            together.hrandfield(POSTS, queue.DOORBELL_POSTS, withvalues=True)
            _, found = together.execute()
    except redis.RedisError:
        return {}
    # Pairs, or one behind the other, as the protocol's version has it.
    flat = [word for one in found for word in (one if isinstance(one, list) else [one])]
    words = [word.decode(errors="surrogateescape") for word in flat]
    pairs = zip(words[::2], words[1::2], strict=True)
    addresses = {post_id: address if is_id(address) else "" for post_id, address in pairs if is_id(post_id)}
    nonsense = [word for word, post_id in zip(flat[::2], words[::2], strict=True) if post_id not in addresses]
    if nonsense:
        # Any client of Redis can write there. A value that is no id would fail every message that picks it.
        forget(nonsense)
    return addresses


def forget(post_ids: Collection[str | bytes]) -> None:
    """These posts are no longer locked elsewhere. Notes made since are lost too: read their queues again."""
    if not post_ids:
        return
    try:
        redis_connection.client().hdel(POSTS, *post_ids)
    except redis.RedisError as error:
        log.warning("held_not_forgotten", posts=len(post_ids), error=type(error).__name__)
