"""Checks a publisher of yours against docs/services.md: it sends signed publishes to its URL, as Redraft would.

    REDRAFT_SERVICE_SECRET=whsec_… python -m tests.reference_services.verification http://127.0.0.1:9000/publish

It publishes for real, four posts: give it the account of a test. It ends with 0 where all is well, else with 1.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx

from shared.domain import service_answers
from shared.domain.service_answers import Outcome, Reply
from worker.outbound.services import signature


@dataclass
class Publisher:
    """The publisher under test, and what was found so far. `patience`: seconds for a post to have gone out."""

    url: str
    secret: str
    account: str = "acc_1a2b3c4d5e"
    content: str = "https://cdn.example.com/verification.mp4"
    patience: float = 60.0
    failures: list[str] = field(default_factory=list)

    def body(self, caption: str = "Redraft verification") -> str:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        post = {
            "postId": f"post_{uuid4().hex[:12]}", "accountId": self.account, "platform": "tiktok",
            "contentType": "video", "contentUrl": self.content, "thumbnailUrl": None, "caption": caption,
            "soundId": None, "timezone": "UTC", "scheduledTime": now, "status": "generated", "createdAt": now,
            "renderedUrl": None, "slideDuration": None,
        }  # fmt: skip
        return json.dumps({"type": "publish", "post": post})

    def post(
        self, body: str, key: str, attempt: int = 1, *, signed: str | None = None, within: float = 30.0
    ) -> httpx.Response:
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": key,
            "Redraft-Attempt": str(attempt),
            "Redraft-Signature": signature(self.secret, body, int(time.time())) if signed is None else signed,
        }
        return httpx.post(self.url, content=body.encode(), headers=headers, timeout=within, trust_env=False)

    def call(self, body: str, key: str, attempt: int = 1, **given: Any) -> Reply:
        """One call, read as Redraft reads it."""
        said = self.post(body, key, attempt, **given)
        asked = service_answers.retry_after(
            said.headers.get("retry-after"), said.headers.get("date"), datetime.now(UTC)
        )
        return service_answers.read("publish", said.status_code, said.content, asked)

    def to_the_end(self, body: str, key: str) -> Reply:
        """Ask under one key until it went out, as long as the publisher says "not now" or "still at work"."""
        until, attempt = time.monotonic() + self.patience, 1
        while True:
            reply = self.call(body, key, attempt)
            if reply.outcome not in {Outcome.NOT_NOW, Outcome.PROCESSING} or time.monotonic() > until:
                return reply
            if reply.retry_after is None:
                self.note("Say for how long in Retry-After when you answer 'not now' or 'still at work'")
            time.sleep(min(max(reply.retry_after or 2.0, 0.2), 10.0))
            attempt += 1

    def note(self, words: str) -> None:
        if words not in self.failures:
            self.failures.append(words)

    def check(self, wanted: bool, words: str) -> None:
        if not wanted:
            self.note(words)


def it_publishes(publisher: Publisher) -> None:
    """A post goes out, and the same key is answered as before."""
    body, key = publisher.body(), f"pub_{uuid4().hex}"
    first = publisher.to_the_end(body, key)
    publisher.check(first.outcome is Outcome.DONE, f"A post did not go out: {first.message or first.kind}")
    again = publisher.call(body, key, 2)
    publisher.check(again == first, f"The same key was answered anew: {first.data}, then {again.data or again.message}")
    publisher.check("platformPostId" in first.data, "Give a platformPostId: without it nobody sees what went out twice")


def once_for_two_at_a_time(publisher: Publisher) -> None:
    """The same key twice at once has one effect."""
    body, key = publisher.body(), f"pub_{uuid4().hex}"
    with ThreadPoolExecutor(2) as threads:
        both = list(threads.map(lambda number: publisher.call(body, key, number), (1, 2)))
    for reply in both:
        fine = reply.outcome in {Outcome.DONE, Outcome.NOT_NOW, Outcome.PROCESSING}
        said = reply.message or reply.kind
        publisher.check(fine, f"While the first is under way, answer 409 or 202 with Retry-After: it was {said}")
    ended = publisher.to_the_end(body, key)
    made = {json.dumps(reply.data) for reply in (*both, ended) if reply.outcome is Outcome.DONE}
    publisher.check(ended.outcome is Outcome.DONE, f"A post asked for twice at once never went out: {ended.message}")
    publisher.check(len(made) == 1, f"A key that came twice at once went out twice: {sorted(made)}")


def once_though_nobody_waited(publisher: Publisher) -> None:
    """A caller that gives up does not make a second effect by asking again."""
    body, key = publisher.body(), f"pub_{uuid4().hex}"
    with suppress(httpx.TimeoutException):
        publisher.post(body, key, within=0.02)
    ended = publisher.to_the_end(body, key)
    publisher.check(ended.outcome is Outcome.DONE, f"After a call that was cut off, the next failed: {ended.message}")
    again = publisher.call(body, key, 3)
    publisher.check(again == ended, "After a call that was cut off, each try is answered anew")


def another_body_under_a_key(publisher: Publisher) -> None:
    """A key stands for one body."""
    body, key = publisher.body(), f"pub_{uuid4().hex}"
    publisher.to_the_end(body, key)
    reply = publisher.call(publisher.body("another caption"), key, 2)
    publisher.check(reply.outcome is Outcome.REFUSED, "The same key with another body must be refused: answer 422")


def only_what_we_signed(publisher: Publisher) -> None:
    """Whatever was not signed under the secret within five minutes is refused with 401."""
    body = publisher.body()
    now = int(time.time())
    for what, signed in (
        ("without a signature", ""),
        ("signed with another secret", signature(publisher.secret + "x", body, now)),
        ("signed for another body", signature(publisher.secret, body + " ", now)),
        ("signed ten minutes ago", signature(publisher.secret, body, now - 600)),
        ("with a signature of another form", "v1=1"),
    ):
        status = publisher.post(body, f"pub_{uuid4().hex}", signed=signed).status_code
        publisher.check(status in {401, 403}, f"A request {what} must be answered 401: it was {status}")


CHECKS: tuple[Callable[[Publisher], None], ...] = (
    only_what_we_signed, it_publishes, once_for_two_at_a_time, once_though_nobody_waited, another_body_under_a_key,
)  # fmt: skip


def verified(publisher: Publisher) -> bool:
    """Run all checks, and say of each how it ended."""
    well = True
    for check in CHECKS:
        publisher.failures = []
        try:
            check(publisher)
        except httpx.HTTPError as error:
            publisher.note(f"No whole answer came: {type(error).__name__}")
        print(f"{'FAILED' if publisher.failures else 'ok    '} {check.__doc__}", flush=True)
        for words in publisher.failures:
            print(f"       {words}.")
        well = well and not publisher.failures
    return well


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.reference_services.verification", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("url", help="where your publisher listens, as REDRAFT_PUBLISHER_URL will say")
    parser.add_argument("--account", default=Publisher.account, help="the account to publish to")
    parser.add_argument("--content", default=Publisher.content, help="the URL of a video to publish")
    parser.add_argument("--patience", type=float, default=Publisher.patience, help="seconds for one post to go out")
    given = parser.parse_args()
    secret = os.environ.get("REDRAFT_SERVICE_SECRET", "")
    if not secret:
        parser.error("set REDRAFT_SERVICE_SECRET to the secret that your publisher knows")
    return 0 if verified(Publisher(given.url, secret, given.account, given.content, given.patience)) else 1


if __name__ == "__main__":
    sys.exit(main())
