"""Checks a publisher of yours against docs/services.md: it sends signed publishes to its URL, as Redraft would.

    REDRAFT_SERVICE_SECRET=whsec_… python -m tests.reference_services.verification http://127.0.0.1:9000/publish

It publishes for real, up to 15 posts: give it the account of a test. It ends with 1 where a check failed, else with 0.
A check that it could not make is no failure: the report names it, with all else that cannot be seen from outside.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import httpx

from shared.domain.service_answers import Outcome
from tests.reference_services.under_test import SERVICE_TIMEOUT, NotCheckedError, Publisher, UnusableError
from worker.outbound.services import signature

UNSIGNED, NO_MEMORY, NO_GUARD = "No check of the signature", "No memory of keys", "No guard while a request is at work"
NOT_LOOKED_UP = "No look at the platform for a key without an answer"
LOST, ANY_BODY = "Keys are lost in a restart", "No check of the body under a known key"


def only_what_we_signed(publisher: Publisher) -> None:
    """Whatever was not signed under the secret within five minutes is refused with 401."""
    body = publisher.body()
    now = int(time.time())
    others = ",".join(f"{one}x" for one in publisher.secret.split(","))
    for what, signed in (
        ("without a signature", ""),
        ("signed with another secret", signature(others, body, now)),
        ("signed for another body", signature(publisher.secret, body + " ", now)),
        ("signed ten minutes ago", signature(publisher.secret, body, now - 600)),
        ("with a signature of another form", "v1=1"),
    ):
        key = publisher.key(f"came {what}", UNSIGNED, effects=0)
        status = publisher.post(body, key, signed=signed).status_code
        publisher.expect(status in {401, 403}, UNSIGNED, f"401 to a request {what}", str(status))


def it_publishes(publisher: Publisher) -> None:
    """A post goes out, and the same key is answered as before."""
    body, key = publisher.body(), publisher.key("came again after its answer", NO_MEMORY)
    first = publisher.to_the_end(body, key)
    if not publisher.went_out(first, "a post"):
        return
    again = publisher.to_the_end(body, key, first.asked + 1)
    same = again.reply == first.reply
    publisher.expect(same, NO_MEMORY, f"the first answer again under its key, {first}", str(again))
    if "platformPostId" not in first.reply.data:
        if publisher.effects_at is None:
            publisher.fail("No platformPostId", "platformPostId in the answer, or --effects URL_OR_FILE", str(first))
        else:
            publisher.warn("Your answer has no platformPostId, so Redraft cannot show where the post is")


def once_for_two_at_a_time(publisher: Publisher) -> None:
    """The same key twice at once, many times over, has one effect each time."""
    twice: list[set[str]] = []
    for _ in range(publisher.rounds):
        body, key = publisher.body(), publisher.key("came twice at once", NO_GUARD)
        both = publisher.at_once(body, key)
        for heard in both:
            fine = heard.done or heard.at_work
            publisher.expect(fine, NO_GUARD, "409 or 202 with Retry-After while the first is under way", str(heard))
        ended = publisher.to_the_end(body, key, 3)
        if not publisher.went_out(ended, "a key that came twice at once"):
            return
        made = {json.dumps(heard.reply.data, sort_keys=True) for heard in (*both, ended) if heard.done}
        if len(made) > 1:
            twice.append(made)
    if twice:
        seen = f"another answer to the same key in {len(twice)} of {publisher.rounds} rounds, {sorted(twice[0])}"
        publisher.fail(NO_GUARD, "one effect, and one answer to both", seen)
    elif not publisher.overlapped:
        raise NotCheckedError(
            "your publisher answers so fast that two requests may never have met: let a publish take half a second"
        )


def once_though_the_caller_left(publisher: Publisher) -> None:
    """A caller that gives up does not make a second effect by asking again."""
    body, key = publisher.body(), publisher.key("came again at once after its caller gave up", NO_GUARD)
    publisher.give_up(body, key)
    ended = publisher.to_the_end(body, key, 2)
    if not publisher.went_out(ended, "a post whose first request was cut off"):
        return
    again = publisher.to_the_end(body, key, ended.asked + 1)
    publisher.expect(
        again.reply == ended.reply, NO_MEMORY, f"the same answer to each later request, {ended}", str(again)
    )


def another_body_under_a_key(publisher: Publisher) -> None:
    """A key stands for one body."""
    body, key = publisher.body(), publisher.key("came again with another body", ANY_BODY)
    first = publisher.to_the_end(body, key)
    if not publisher.went_out(first, "a post"):
        return
    _refuses_another_body(publisher, key)
    again = publisher.to_the_end(body, key, 3)
    publisher.expect(again.reply == first.reply, ANY_BODY, f"the key's own answer after that, {first}", str(again))


def _refuses_another_body(publisher: Publisher, key: str, when: str = "") -> None:
    reply = publisher.call(publisher.body("another caption"), key, 2)
    refused = reply.reply.outcome is Outcome.REFUSED
    publisher.expect(refused, ANY_BODY, f"422 to the same key with another body{when}", str(reply))


def a_key_survives_a_restart(publisher: Publisher) -> None:
    """A key, its body and its answer are still known after a restart; what was under way goes out once."""
    if publisher.restart is None:
        raise NotCheckedError("give --restart COMMAND or --restart-by-hand")
    known, cut = publisher.body(), publisher.body()
    known_key = publisher.key("came again after a restart", LOST)
    cut_key = publisher.key("was under way at a restart", NOT_LOOKED_UP)
    first = publisher.to_the_end(known, known_key)
    if not publisher.went_out(first, "a post"):
        return
    publisher.give_up(cut, cut_key)
    publisher.restart()
    publisher.wait_until_up(publisher.patience)
    _refuses_another_body(publisher, known_key, " after a restart")
    again = publisher.to_the_end(known, known_key, 3)
    publisher.expect(again.reply == first.reply, LOST, f"the answer from before the restart, {first}", str(again))
    publisher.went_out(publisher.to_the_end(cut, cut_key, 2), "a post that was under way at a restart")


def each_key_has_one_effect(publisher: Publisher) -> None:
    """By the publisher's own list, each key went out once, and nothing else did."""
    if publisher.effects_at is None:
        raise NotCheckedError(
            "give --effects URL_OR_FILE: answers alone do not show a publish without an effect, "
            "nor one with two effects under one platformPostId"
        )
    listed = publisher.settled_effects()
    for due in dict.fromkeys(publisher.due.values()):
        keys = [key for key, other in publisher.due.items() if other == due]
        more = [key for key in keys if listed[key] > due.effects]
        expected = f"{due.effects} effect{'' if due.effects == 1 else 's'} for each key that {due.what}"
        if more:
            seen = f"{listed[more[0]]} effects, at {len(more)} of {len(keys)} such keys"
            publisher.fail(due.missing, expected, seen)
        less = [key for key in keys if listed[key] < due.effects]
        publisher.expect(not less, "No post went out", expected, f"0 effects, at {len(less)} of {len(keys)} such keys")


CHECKS: tuple[Callable[[Publisher], None], ...] = (
    only_what_we_signed, it_publishes, once_for_two_at_a_time, once_though_the_caller_left, another_body_under_a_key,
    a_key_survives_a_restart, each_key_has_one_effect,
)  # fmt: skip


@dataclass
class Result:
    """What a check found. `needs`: why it could not be made."""

    check: str
    failures: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    needs: str = ""

    def lines(self) -> Iterator[str]:
        state = "FAILED" if self.failures else "not checked" if self.needs else "ok"
        yield f"{state:<12}{self.check}"
        for words in self.failures:
            yield f"{'':<12}{words}."
        if self.needs:
            yield f"{'':<12}{self.needs}."
        for words in self.warnings:
            yield f"{'warning':<12}{words}."


def run(check: Callable[[Publisher], None], publisher: Publisher) -> Result:
    publisher.failures, publisher.warnings, needs = [], [], ""
    try:
        check(publisher)
    except NotCheckedError as missing:
        needs = str(missing)
    except UnusableError as error:
        publisher.failures.append(f"This check is set up wrongly. Expected: {error}")
    except httpx.HTTPError as error:
        seen = f"{type(error).__name__} {error}".strip()
        publisher.fail("No whole answer", f"an answer of {publisher.url} within {SERVICE_TIMEOUT:g} s", seen)
    return Result(check.__doc__ or "", publisher.failures, publisher.warnings, needs)


UNSEEN = (
    "whether a post stands on the platform: answers and list are your publisher's own",
    "whether a refusal is given again under its key",
    "whether a key is known for a day",
)
"""What no check sees: said, so that no reader takes the checks for more than they are."""


def verified(publisher: Publisher, checks: Iterable[Callable[[Publisher], None]] = CHECKS) -> bool:
    """Run the checks, and say of each how it ended; then what none of them sees. True where none failed."""
    with suppress(httpx.TransportError):
        publisher.wait_until_up(min(publisher.patience, 10.0))
    results = []
    for check in checks:
        results.append(run(check, publisher))
        print("\n".join(results[-1].lines()), flush=True)
    print("No check sees", *UNSEEN, sep="\n  - ", flush=True)
    failed, left = sum(bool(one.failures) for one in results), sum(bool(one.needs) for one in results)
    print(f"{len(results) - failed - left} passed, {failed} failed, {left} not checked", flush=True)
    return not failed


def by_command(command: str, within: float) -> Callable[[], None]:
    """Restarts the publisher with a line for the shell, which ends when the publisher is on its way; UnusableError."""

    def restart() -> None:
        try:
            ended = subprocess.run(command, shell=True, check=False, timeout=within)  # noqa: S602  -- the caller's own
        except subprocess.TimeoutExpired:
            raise UnusableError(f"a restart command that ends. Seen: it still ran after {within:g} s") from None
        if ended.returncode:
            raise UnusableError(f"a restart command that ends with 0. Seen: {ended.returncode}")

    return restart


def by_hand() -> None:
    print("Restart your publisher now, then press Enter.", flush=True)
    if not sys.stdin.readline():
        raise UnusableError("Enter, for --restart-by-hand. Seen: the end of the input")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.reference_services.verification", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("url", help="where your publisher listens, as REDRAFT_PUBLISHER_URL will say")
    parser.add_argument("--account", default=Publisher.account, help="the account to publish to")
    parser.add_argument("--content", default=Publisher.content, help="the URL of a video to publish")
    parser.add_argument("--patience", type=float, default=Publisher.patience, help="seconds for one post to go out")
    parser.add_argument("--rounds", type=int, default=Publisher.rounds, help="how often a key comes twice at once")
    parser.add_argument("--effects", metavar="URL_OR_FILE", help="a list of what went out, with its keys")
    restarts = parser.add_mutually_exclusive_group()
    restarts.add_argument("--restart", metavar="COMMAND", help="a line for the shell that restarts your publisher")
    restarts.add_argument("--restart-by-hand", action="store_true", help="stop and wait while you restart it")
    given = parser.parse_args()
    secret = os.environ.get("REDRAFT_SERVICE_SECRET", "")
    if not secret:
        parser.error("set REDRAFT_SERVICE_SECRET to the secret that your publisher knows")
    if given.rounds < 1:
        parser.error("--rounds must be 1 or more")
    restart = by_hand if given.restart_by_hand else by_command(given.restart, given.patience) if given.restart else None
    publisher = Publisher(
        given.url, secret, given.account, given.content, given.patience, given.rounds, given.effects, restart
    )
    return 0 if verified(publisher) else 1


if __name__ == "__main__":
    sys.exit(main())
