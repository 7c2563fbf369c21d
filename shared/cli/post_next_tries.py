"""`redraft posts retry --waiting`: the next try of posts that wait for it, now that their service is well again."""

from collections import Counter
from pathlib import Path
from typing import Final

import typer

from shared.cli.places import parts, reaching
from shared.cli.workspaces import database, echo, echo_wrapped, find_workspace, refuse, say_json

MOST: Final = 10_000
TOGETHER: Final = 500
GROUPS: Final = 5


def try_waiting(
    post_ids: list[str],
    reason: str | None,
    workspace: str | None,
    account: str | None,
    *,
    by: str,
    yes: bool,
    data_dir: Path,
    as_json: bool,
) -> None:
    """Try posts between two tries now: these, or all that the other options mean. Says first how many."""
    from shared.store import next_tries  # noqa: PLC0415 - heavy imports wait until the command runs

    if as_json and not yes:
        refuse("--json asks no questions: give --yes too.")
    with database(data_dir) as tx:
        home = find_workspace(tx, workspace).id if workspace is not None else None
        found = next_tries.waiting(tx, MOST, reason=reason, workspace_id=home, account_id=account)
    chosen = [one for one in found if not post_ids or one.post_id in set(post_ids)]
    if not as_json:
        _preview([one.words for one in chosen])
        if chosen and not yes:
            typer.confirm("Try it now?" if len(chosen) == 1 else f"Try all {len(chosen):,} now?", abort=True)
    done = _try([one.post_id for one in chosen], by, data_dir)
    left = [one for one in dict.fromkeys(post_ids or (one.post_id for one in chosen)) if one not in set(done)]
    if as_json:
        rows = [{"postId": one, "done": True, "why": None} for one in done]
        say_json(rows + [{"postId": one, "done": False, "why": "does_not_wait_or_locked"} for one in left])
    elif chosen:
        echo(f"{len(done):,} of {len(chosen):,} {'is' if len(done) == 1 else 'are'} tried now.")
    if left:
        some = " ".join(left[:GROUPS]) + (" …" if len(left) > GROUPS else "")
        echo_wrapped(f"{len(left):,} wait for no such try any more, or are locked by another session: {some}", err=True)
        raise typer.Exit(1)


def _preview(words: list[str]) -> None:
    if not words:
        echo("No post waits for another try of a service that could not be reached, failed or was set up wrongly.")
        return
    echo(f"{len(words):,} post{' waits' if len(words) == 1 else 's wait'} for the next try. The last answers:")
    groups = Counter(words)
    for one, count in groups.most_common(GROUPS):
        echo_wrapped(f"  {count:,} {one or 'no words'}", indent=4)
    if len(groups) > GROUPS:
        echo(f"  and {len(groups) - GROUPS:,} others")


def _try(post_ids: list[str], by: str, data_dir: Path) -> list[str]:
    """Some hundred posts in a transaction, and the ringing below its commit."""
    from shared.broker import queue  # noqa: PLC0415 - as above
    from shared.store import next_tries  # noqa: PLC0415
    from shared.store.acts import Actor  # noqa: PLC0415

    done: list[str] = []
    places = parts(data_dir)
    for start in range(0, len(post_ids), TOGETHER):
        with database(data_dir) as tx:
            tried = next_tries.try_now(tx, post_ids[start : start + TOGETHER], Actor(by))
        done += [post_id for post_id, _ in (*tried.publishes, *tried.renders)]
        # What is not rung for, rescue and dispatch find within seconds.
        if places.redis_url and done:
            with reaching(places):
                queue.enqueue_publish([(post_id, revision, None) for post_id, revision in tried.publishes])
                queue.enqueue_renders(tried.renders)
    return done
