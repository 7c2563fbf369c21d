"""A publisher under test: signed calls of it, read as Redraft reads them, and what was found on the way."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from shared.domain import service_answers
from shared.domain.service_answers import Outcome, Reply
from worker.outbound.services import signature

SERVICE_TIMEOUT = 30.0
OVERLAP = 0.2
"""Seconds. Two requests that were sent together and both took longer than this were under way at the same time."""


class NotCheckedError(Exception):
    """A check was not asked for. Its text says what the check needs."""


class UnusableError(Exception):
    """A check was asked for, and what it was given is of no use. Its text says why."""


@dataclass(frozen=True)
class Heard:
    """One answer. `seconds`: how long it took. `asked`: which request under its key it answers, from 1."""

    status: int
    text: str
    reply: Reply
    seconds: float
    asked: int = 1

    @property
    def done(self) -> bool:
        return self.reply.outcome is Outcome.DONE

    @property
    def at_work(self) -> bool:
        return self.reply.outcome in {Outcome.NOT_NOW, Outcome.PROCESSING}

    def __str__(self) -> str:
        return f"{self.status} {service_answers.readable(self.text)[:120]}".strip()


def met(one: Heard, other: Heard) -> bool:
    """Whether two requests that were sent together were surely under way together. A 429 is no sign of it."""
    turned_away = any(heard.at_work and heard.status != 429 for heard in (one, other))
    return turned_away or min(one.seconds, other.seconds) > OVERLAP


@dataclass(frozen=True)
class Due:
    """How many effects a key must have had, `what` was done under it, and what is `missing` where there are more."""

    effects: int
    what: str
    missing: str


@dataclass
class Publisher:
    """The publisher under test, and what was found so far.

    `patience`: seconds for a post to go out, and for a restart. `rounds`: how often one key comes twice at once.
    `effects_at`: a URL or a file that lists what went out. `restart`: restarts it, and returns when it may be asked.
    `settle`: for at least so many seconds the list of effects must stay as it is.
    """

    url: str
    secret: str
    account: str = "acc_1a2b3c4d5e"
    content: str = "https://cdn.example.com/verification.mp4"
    patience: float = 60.0
    rounds: int = 10
    effects_at: str | None = None
    restart: Callable[[], None] | None = None
    settle: float = 1.0
    failures: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    due: dict[str, Due] = field(default_factory=dict)
    overlapped: bool = False
    slowest: float = 0.0

    def body(self, caption: str = "Redraft verification") -> str:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        post = {
            "postId": f"post_{uuid4().hex[:12]}", "accountId": self.account, "platform": "tiktok",
            "contentType": "video", "contentUrl": self.content, "thumbnailUrl": None, "caption": caption,
            "soundId": None, "timezone": "UTC", "scheduledTime": now, "status": "generated", "createdAt": now,
            "renderedUrl": None, "slideDuration": None,
        }  # fmt: skip
        return json.dumps({"type": "publish", "post": post})

    def key(self, what: str, missing: str, *, effects: int = 1) -> str:
        """A new key, which must have had so many effects in the end."""
        key = f"pub_{uuid4().hex}"
        self.due[key] = Due(effects, what, missing)
        return key

    def post(
        self,
        body: str,
        key: str,
        attempt: int = 1,
        *,
        signed: str | None = None,
        within: float = SERVICE_TIMEOUT,
        content: Iterator[bytes] | None = None,
    ) -> httpx.Response:
        """One request on a connection of its own. `content`: the same bytes as `body`, sent piece by piece."""
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body.encode())),
            "Idempotency-Key": key,
            "Redraft-Attempt": str(attempt),
            "Redraft-Signature": signature(self.secret, body, int(time.time())) if signed is None else signed,
        }
        # The time-out is of the answer alone: a request that is given up was sent.
        timeout = httpx.Timeout(SERVICE_TIMEOUT, read=within)
        return httpx.post(self.url, content=content or body.encode(), headers=headers, timeout=timeout, trust_env=False)

    def call(self, body: str, key: str, attempt: int = 1, **given: Any) -> Heard:
        """One call, read as Redraft reads it."""
        began = time.monotonic()
        said = self.post(body, key, attempt, **given)
        seconds = time.monotonic() - began
        self.slowest = max(self.slowest, seconds)
        asked = service_answers.retry_after(
            said.headers.get("retry-after"), said.headers.get("date"), datetime.now(UTC)
        )
        reply = service_answers.read("publish", said.status_code, said.content, asked)
        heard = Heard(said.status_code, said.text, reply, seconds, attempt)
        self._look_at(heard)
        return heard

    def _look_at(self, heard: Heard) -> None:
        """What is wrong with an answer, whatever it answers."""
        if heard.at_work and heard.reply.retry_after is None:
            self.fail("No Retry-After", "Retry-After with 'not now' and with 'still at work'", str(heard))
        if heard.at_work and heard.reply.retry_after == 0:
            self.warn("Retry-After: 0 asks for the next request at once. Say when you expect to be done")
        if heard.done and "error" in heard.reply.data:
            self.warn(f"A 2xx says that the post is out, and its body tells of an error: {heard}. Answer 4xx or 5xx")

    def to_the_end(self, body: str, key: str, attempt: int = 1) -> Heard:
        """Ask under one key until it went out, as long as the publisher says "not now" or "still at work"."""
        until = time.monotonic() + self.patience
        while True:
            heard = self.call(body, key, attempt)
            if not heard.at_work or time.monotonic() > until:
                return heard
            time.sleep(min(max(heard.reply.retry_after or 0.0, 0.2), 10.0))
            attempt += 1

    def give_up(self, body: str, key: str) -> None:
        """Send a request, and leave before its answer."""
        with suppress(httpx.ReadTimeout):
            self.post(body, key, within=0.02)

    def at_once(self, body: str, key: str) -> tuple[Heard, Heard]:
        """The same request on two connections. Both send their last byte at the same moment."""
        data, both = body.encode(), threading.Barrier(2, timeout=SERVICE_TIMEOUT)

        def pieces() -> Iterator[bytes]:
            yield data[:-1]
            both.wait()
            yield data[-1:]

        def asked(attempt: int) -> Heard:
            try:
                return self.call(body, key, attempt, content=pieces())
            except httpx.HTTPError:
                both.abort()
                raise

        with ThreadPoolExecutor(2) as threads:
            calls = [threads.submit(asked, attempt) for attempt in (1, 2)]
        # A broken barrier is the other one's failure, which is what there is to tell.
        errors = sorted((error for call in calls if (error := call.exception())), key=lambda error: not _is_http(error))
        if errors:
            raise errors[0]
        one, other = (call.result() for call in calls)
        self.overlapped = self.overlapped or met(one, other)
        return one, other

    def wait_until_up(self, within: float) -> None:
        """Until it answers, whatever it says to a request that is not signed; httpx.TransportError if it does not."""
        until = time.monotonic() + within
        key = self.key("was not signed", "No check of the signature", effects=0)
        while True:
            try:
                if self.post(self.body(), key, signed="").status_code < 500 or time.monotonic() > until:
                    return
            except httpx.TransportError:
                if time.monotonic() > until:
                    raise
            time.sleep(0.1)

    def effects(self) -> Counter[str]:
        """How often each key stands in the list of what went out."""
        said = self._list_of_effects()
        try:
            return Counter(one["key"] for one in _objects(said))
        except (ValueError, TypeError, KeyError):
            seen = service_answers.readable(said)[:120]
            raise UnusableError(f"JSON objects with `key` from {self.effects_at}. Seen: {seen}") from None

    def _list_of_effects(self) -> str:
        assert self.effects_at is not None
        if not self.effects_at.startswith(("http://", "https://")):
            try:
                return Path(self.effects_at).read_text()
            except OSError as error:
                raise UnusableError(f"a URL or a file of effects. Seen: {error}") from None
        headers = {"Redraft-Signature": signature(self.secret, "", int(time.time()))}
        said = httpx.get(self.effects_at, headers=headers, timeout=SERVICE_TIMEOUT, trust_env=False)
        if said.status_code != 200:
            raise UnusableError(f"200 from {self.effects_at}. Seen: {said.status_code}")
        return said.text

    def settled_effects(self) -> Counter[str]:
        """The same, once the list stays as it is: what was begun twice may come later than its answer."""
        until, listed = time.monotonic() + self.patience, self.effects()
        while True:
            time.sleep(max(self.settle, 2 * self.slowest))
            before, listed = listed, self.effects()
            if listed == before or time.monotonic() > until:
                return listed

    def fail(self, missing: str, expected: str, seen: str) -> None:
        words = f"{missing}. Expected: {expected}. Seen: {seen}"
        if words not in self.failures:
            self.failures.append(words)

    def expect(self, wanted: bool, missing: str, expected: str, seen: str) -> bool:
        if not wanted:
            self.fail(missing, expected, seen)
        return wanted

    def warn(self, words: str) -> None:
        if words not in self.warnings:
            self.warnings.append(words)

    def went_out(self, heard: Heard, what: str) -> bool:
        seen = f"{heard}, to request {heard.asked} under this key"
        expected = f"a 2xx with a JSON object for {what}, within {self.patience:g} s"
        return self.expect(heard.done, "No post went out", expected, seen)


def _objects(said: str) -> list[Any]:
    """A JSON list, or an object in each line."""
    try:
        found = json.loads(said)
    except ValueError:
        return [json.loads(line) for line in said.splitlines() if line.strip()]
    return found if isinstance(found, list) else [found]


def _is_http(error: BaseException) -> bool:
    return isinstance(error, httpx.HTTPError)
