"""Load from many clients at once, each with its own seed, each writing down what it asked and what it was answered.

    with Load(lambda: api.url, posts, seed=7) as load:
        ...  # strike
    assert load.accepted

Half of the edits go to the hot posts, which come first. Some carry an Idempotency-Key: these are repeated until they
are answered, as a good client does. Some do not wait for the end, some wait a second, some as long as the API likes.
"""

import random
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import httpx

from tests import factories, sizes
from tests.faults.evidence import Exchange
from tests.loopback import LOOPBACK

ZONES = ("America/New_York", "America/Los_Angeles", "Europe/London", "Europe/Paris", "Asia/Tokyo", "Pacific/Honolulu")
HOT = 3
AGAIN = (429, 500, 502, 503, 504)


class Load:
    """Clients in threads. Entering starts them, leaving stops them and waits until each has its last answer."""

    def __init__(
        self,
        url: Callable[[], str],
        posts: Sequence[str],
        seed: int,
        *,
        clients: int = 6,
        pause: float = 0.03,
        patience: float = 60,
        most: int | None = None,
        large: float = 0.0,
    ) -> None:
        """`pause`: seconds between two edits of a client, on average. `patience`: how long a keyed edit is repeated.
        `most`: edits for each client, then it stops by itself. `large`: that share of them is as large as is legal.
        """
        self.seed = seed
        self.exchanges: list[Exchange] = []
        self._url, self._posts = url, list(posts)
        self._pause, self._patience, self._most, self._large = pause, patience, most, large
        self._stop = threading.Event()
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(clients)]

    @property
    def accepted(self) -> int:
        """How many answers said so."""
        return sum(one.status is not None and 200 <= one.status < 300 for one in list(self.exchanges))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        deadline = time.monotonic() + self._patience + 45
        for thread in self._threads:
            thread.join(max(0.1, deadline - time.monotonic()))
        assert not any(thread.is_alive() for thread in self._threads), "a client never got its answer"
        if self._errors:
            raise self._errors[0]

    def slowest(self, *, since: float = 0, until: float = float("inf")) -> float:
        """Seconds that the slowest answer to a request sent in that time took."""
        times = [
            one.answered - one.sent
            for one in list(self.exchanges)
            if one.answered is not None and one.status is not None and since <= one.sent <= until
        ]
        return max(times, default=0.0)

    def _run(self, number: int) -> None:
        rng = random.Random(f"{self.seed}/{number}")
        tags: dict[str, str] = {}
        try:
            with httpx.Client(timeout=45, **LOOPBACK) as http:
                for count in range(10**9 if self._most is None else self._most):
                    if self._stop.wait(rng.uniform(0, 2 * self._pause)):
                        return
                    self._want(http, rng, tags, f"c{number}-{count}")
        except BaseException as error:  # noqa: BLE001  -- a thread has nobody above it: stop() raises it
            self._errors.append(error)

    def _want(self, http: httpx.Client, rng: random.Random, tags: dict[str, str], name: str) -> None:
        """One edit: sent, and if it has a key, repeated until somebody answers."""
        hot = rng.random() < 0.5
        post_id = rng.choice(self._posts[:HOT] if hot else self._posts)
        large = rng.random() < self._large
        body = sizes.patch(rng, name) if large else patch(rng, name)
        headers = _headers(rng, name, tags.get(post_id), large=large)
        deadline = time.monotonic() + self._patience
        while True:
            exchange = self._send(http, post_id, body, headers)
            if exchange.status == 200:
                tags[post_id] = exchange.headers["etag"]
            unanswered = exchange.status is None or (exchange.status in AGAIN and exchange.edit_id is None)
            if exchange.key is None or not (unanswered or exchange.status == 503) or time.monotonic() > deadline:
                return
            time.sleep(rng.uniform(0.05, 0.3))

    def _send(self, http: httpx.Client, post_id: str, body: dict[str, Any], headers: dict[str, str]) -> Exchange:
        given = {"Authorization": f"Bearer {factories.SECRET}"} | headers
        request, key, sent = headers["X-Request-Id"], headers.get("Idempotency-Key"), time.time()
        try:
            answer = http.patch(f"{self._url()}/v1/posts/{post_id}", json=body, headers=given)
        except httpx.TransportError as error:
            exchange = Exchange(request, post_id, body, sent, key=key, error=f"{type(error).__name__}: {error}")
        else:
            told = {name.lower(): value for name, value in answer.headers.items()}
            exchange = Exchange(
                request, post_id, body, sent, time.time(), answer.status_code, told, answer.json(), key
            )  # fmt: skip
        self.exchanges.append(exchange)
        return exchange


def patch(rng: random.Random, name: str) -> dict[str, Any]:
    """A mixed patch of a TikTok post: new and repeated captions, times, content, sounds, and some that are wrong."""
    body: dict[str, Any] = {}
    if rng.random() < 0.7:
        body["caption"] = name if rng.random() < 0.8 else rng.choice(("", "again"))
    if rng.random() < 0.25:
        day = datetime.now(UTC).date() + timedelta(days=rng.randint(2, 400))
        body |= {"scheduledTime": f"{day}T12:{rng.randint(0, 59):02}", "timezone": rng.choice(ZONES)}
    if rng.random() < 0.15:
        kind = rng.choice(("video", "slides"))
        url = f"https://cdn.example.com/{rng.randint(1, 9)}"
        body |= {"contentType": kind, "contentUrl": url if kind == "video" else [f"{url}-{n}" for n in range(3)]}
    if rng.random() < 0.15:
        body["soundId"] = rng.choice((None, "7001", "7002"))
    if rng.random() < 0.03:
        body["caption"] = None
    return body or {"caption": name}


def _headers(rng: random.Random, name: str, tag: str | None, *, large: bool) -> dict[str, str]:
    headers = {"X-Request-Id": name}
    if rng.random() < 0.6:
        headers["Idempotency-Key"] = f"key-{name}"
    prefer = rng.choice((None, None, "respond-async", "wait=1", "wait=20"))
    if prefer is not None:
        headers["Prefer"] = prefer
    if tag is not None and rng.random() < 0.05:
        headers["If-Match"] = ", ".join((*sizes.TAGS, tag)) if large else tag
    return headers
