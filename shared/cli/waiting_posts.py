"""Posts and accounts over HTTP: the posts that wait, and single posts, each with its revision."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, Final

from shared.cli.api_client import Api, ArgumentsError, RefusedError
from shared.domain.errors import printable

POSTS: Final = "/v1/posts"
THREADS: Final = 8
BATCH: Final = 200
# A post goes from one status to the other at any moment, in both directions. The first is walked again at the end, so
# that a post which changes its status meanwhile is met once at least.
WALKS: Final = ("pending_render", "generated", "pending_render")

Post = dict[str, Any]


class Posts:
    """The posts of one key's workspace."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def accounts(self) -> dict[str, str]:
        """The name of each account, by its id."""
        return {one["accountId"]: one["name"] for one in self._api.json("GET", "/v1/accounts")["data"]}

    def waiting(self, account_ids: Sequence[str], scheduled_from: str, scheduled_to: str) -> Iterator[Post]:
        """Each post that waits, once, with its `revision`. Empty filters mean every account and every time."""
        met: set[str] = set()
        times = {"scheduledFrom": scheduled_from, "scheduledTo": scheduled_to}
        asked = {name: value for name, value in times.items() if value} | {"limit": "100"}
        for account_id in account_ids or [""]:
            of_account = asked | ({"accountId": account_id} if account_id else {})
            for status in WALKS:
                for post in self._pages(of_account | {"status": status}):
                    if post["postId"] not in met:
                        met.add(post["postId"])
                        yield post

    def _pages(self, asked: dict[str, str]) -> Iterator[Post]:
        cursor: dict[str, str] = {}
        while True:
            page = self._api.json("GET", POSTS, params=asked | cursor)
            yield from self._with_revisions(page["data"])
            if not page["hasMore"]:
                return
            cursor = {"cursor": page["nextCursor"]}

    def _with_revisions(self, listed: Sequence[Post]) -> Sequence[Post]:
        if all("revision" in post for post in listed):
            return listed
        # An API of the version before shows it of single posts only.
        each = self.each(post["postId"] for post in listed)
        return [post for _, post in each if post is not None and post["revision"] is not None]

    def each(self, post_ids: Iterable[str]) -> Iterator[tuple[str, Post | None]]:
        """Each post as it is now, in the order of the ids; None for a post that is not there. Its `revision` is None
        while it is being published.
        """
        ids = iter(post_ids)
        with ThreadPoolExecutor(THREADS) as pool:
            while batch := list(islice(ids, BATCH)):
                yield from zip(batch, pool.map(self._one, batch), strict=True)

    def _one(self, post_id: str) -> Post | None:
        # An id of a file may hold anything: it is one segment of the path all the same.
        path = "".join(f"%{byte:02X}" for byte in post_id.encode("utf-8", "replace"))
        try:
            answer = self._api.answer("GET", f"{POSTS}/{path}")
        except RefusedError as refused:
            if refused.status == 404:
                return None
            raise
        post: Post = answer.json()
        tag = answer.headers.get("etag")
        return post | {"revision": tag and int(tag.strip('"'))}


def check_accounts(asked: Iterable[str], known: dict[str, str]) -> None:
    """Raises ArgumentsError for an account that does not exist, and says which there are."""
    for account_id in asked:
        if account_id not in known:
            some = ", ".join(f"{one} ({printable(name)})" for one, name in islice(known.items(), 10)) or "none"
            more = f" and {len(known) - 10} more" if len(known) > 10 else ""
            raise ArgumentsError(f"there is no account {printable(account_id)}; there are: {some}{more}")
