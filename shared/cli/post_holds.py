"""`redraft posts hold POST...` and `redraft posts resume POST...`."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from shared.cli.places import parts, reaching
from shared.cli.workspaces import database, echo, echo_wrapped, refuse, say_json
from shared.domain.errors import printable
from shared.domain.plurals import counted

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from shared.domain.posts import Post

TOGETHER: Final = 500
NAMED: Final = 5
PATIENCE: Final = 2.0
"""Seconds to wait for all posts together that other sessions have locked."""
LEAST: Final = 0.05
"""Seconds to wait for each of them at least."""

Work = Callable[["Connection", "Mapping[str, Post]"], None]


@dataclass(slots=True)
class Passed:
    """Posts that were not worked on: unknown ones, and those that other sessions have locked."""

    unknown: list[str] = field(default_factory=list)
    locked: list[str] = field(default_factory=list)

    def say(self) -> None:
        """Name them on standard error, and what to do."""
        for post_id in self.unknown:
            echo(no_post(post_id), err=True)
        for post_id in self.locked:
            echo_wrapped(
                f"{post_id} is being worked on by another session, and nothing was done to it. "
                "`redraft doctor` names a session that stays. Enter the same again.",
                err=True,
            )

    def leave(self, *, left: bool) -> None:
        """Exit with 2 for an unknown post, as for an unknown account, and with 1 where a post was left as it is."""
        if self.unknown:
            raise typer.Exit(2)
        if left or self.locked:
            raise typer.Exit(1)


def no_post(post_id: str) -> str:
    """What is said of an id that no post has."""
    return f"There is no post {printable(post_id)}. See: redraft posts list"


class _StillLockedError(Exception):
    """A post stays locked by another session."""


def each_locked(post_ids: Sequence[str], data_dir: Path, work: Work) -> Passed:
    """Lock posts and work on them, TOGETHER in a transaction. The free ones come first, so that one locked post keeps
    no other from its hold. Then each locked one is waited for, PATIENCE in all.
    """
    from shared.domain.fields import is_clean  # noqa: PLC0415 - heavy imports wait until the command runs
    from shared.store import posts as posts_store  # noqa: PLC0415

    # Bytes of a shell that are no UTF-8 name no post, and PostgreSQL cannot be asked for them.
    wanted, busy = [one for one in dict.fromkeys(post_ids) if is_clean(one)], []
    passed = Passed(unknown=[one for one in dict.fromkeys(post_ids) if not is_clean(one)])
    for start in range(0, len(wanted), TOGETHER):
        some = wanted[start : start + TOGETHER]
        with database(data_dir) as tx:
            found, _ = posts_store.read_posts(tx, some)
            there = [one for one in some if one in found and not found[one].facts.deleted]
            locked = posts_store.lock_posts(tx, there, "skip")
            work(tx, locked)
        passed.unknown += [one for one in some if one not in there]
        busy += [one for one in there if one not in locked]
    until = time.monotonic() + PATIENCE
    for post_id in busy:
        try:
            _wait_for(post_id, data_dir, work, max(LEAST, until - time.monotonic()))
        except _StillLockedError:
            passed.locked.append(post_id)
    return passed


def _wait_for(post_id: str, data_dir: Path, work: Work, seconds: float) -> None:
    from shared.store import db  # noqa: PLC0415 - as above
    from shared.store import posts as posts_store  # noqa: PLC0415

    with database(data_dir) as tx:
        try:
            posts_store.wait_at_most(tx, seconds)
            work(tx, posts_store.lock_posts(tx, [post_id], "wait"))
        except Exception as error:
            if not db.lock_timed_out(error):
                raise
            raise _StillLockedError from error


@contextmanager
def lock_in_words(words: str) -> Iterator[None]:
    """While this lasts, a lock that another session keeps ends the command with these words, and exit code 1."""
    from shared.store import db  # noqa: PLC0415 - as above

    try:
        yield
    except Exception as error:
        if not db.lock_timed_out(error):
            raise
        refuse(words, code=1)


def hold(post_ids: Sequence[str], by: str, reason: str | None, data_dir: Path, *, as_json: bool) -> None:
    """Hold these posts."""
    from shared.store import holds as holds_store  # noqa: PLC0415 - as above
    from shared.store.acts import Actor  # noqa: PLC0415

    held: list[str] = []
    going_out: list[str] = []
    webhooks: list[str] = []

    def take(tx: "Connection", locked: "Mapping[str, Post]") -> None:
        done = holds_store.hold_posts(tx, locked.values(), Actor(by), reason)
        held.extend(done.posts)
        webhooks.extend(done.webhooks)
        going_out.extend(post_id for post_id in done.posts if locked[post_id].facts.claim == "publish")

    passed = each_locked(post_ids, data_dir, take)
    ring(webhooks, data_dir)
    out = {*held, *passed.unknown, *passed.locked}
    left = [post_id for post_id in dict.fromkeys(post_ids) if post_id not in out]
    if as_json:
        say_json({"held": held, "goingOut": going_out, "left": left + passed.unknown, "locked": passed.locked})
    else:
        echo(f"{counted(len(held), 'post')} held.")
        say_going_out(going_out, len(going_out))
        for post_id in left:
            echo(f"{post_id} does not wait to go out: it is left as it is.", err=True)
        passed.say()
    passed.leave(left=bool(left))


def resume(post_ids: Sequence[str], by: str, data_dir: Path, *, publish: bool, as_json: bool) -> None:
    """Resume these posts."""
    from shared.store import holds as holds_store  # noqa: PLC0415 - as above
    from shared.store.acts import Actor  # noqa: PLC0415

    resumed: list[str] = []
    webhooks: list[str] = []
    still: dict[str, Any] = {}
    refused: dict[str, Any] = {}

    def end(tx: "Connection", locked: "Mapping[str, Post]") -> None:
        done = holds_store.resume_posts(tx, locked.values(), Actor(by), publish_missed=publish)
        resumed.extend(done.posts)
        webhooks.extend(done.webhooks)
        refused.update(done.refused)
        still.update(holds_store.effective(tx, locked))

    passed = each_locked(post_ids, data_dir, end)
    ring(webhooks, data_dir)
    if as_json:
        shown = {post_id: hold.public() for post_id, hold in still.items()}
        left = [*refused, *passed.unknown]
        say_json({"resumed": resumed, "held": shown, "left": left, "locked": passed.locked})
    else:
        echo(f"{counted(len(resumed), 'post')} resumed.")
        for post_id, above in refused.items():
            echo_wrapped(f"{post_id} cannot go out: its {above.level} is held; resume that first.", err=True)
        said = [post_id for post_id in still if post_id not in refused]
        for post_id in said[:NAMED]:
            why = f": {still[post_id].reason}" if still[post_id].reason else ""
            echo_wrapped(f"{post_id} is held still, of its {still[post_id].level}{why}")
        if len(said) > NAMED:
            echo(f"So are {counted(len(said) - NAMED, 'post')} more; --json names all.")
        passed.say()
    passed.leave(left=bool(refused))


def ring(webhooks: Sequence[str], data_dir: Path) -> None:
    """Ring for new events. What is not rung for, rescue finds within seconds."""
    from shared.broker import queue  # noqa: PLC0415 - as above

    found = parts(data_dir)
    if webhooks and found.redis_url:
        with reaching(found):
            queue.ring_webhooks(webhooks)


def say_going_out(going_out: Sequence[str], total: int) -> None:
    """Name posts that a publish had claimed before the hold."""
    if total:
        more = f" and {total - NAMED:,} more" if total > NAMED else ""
        was = "was going out already, and goes on" if total == 1 else "were going out already, and go on"
        echo_wrapped(f"{counted(total, 'post')} {was}: {', '.join(going_out[:NAMED])}{more}")
