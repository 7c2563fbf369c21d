"""`redraft edits requeue`, `discard` and `failures` of many edits at once: the count first, then part by part."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from shared.cli.places import parts, reaching
from shared.cli.workspaces import database, echo, echo_wrapped, refuse, say, say_json
from shared.domain.plurals import counted

if TYPE_CHECKING:
    from shared.domain.edit_histories import Prospect
    from shared.domain.requeues import Act
    from shared.store.acts import Actor
    from shared.store.edit_lists import EditFilter
    from shared.store.mending import ErrorGroup, ErrorGroups, Mended

MOST: Final = 100_000
"""Edits of one command. It says so if there are more, and is run again for them."""
SHOWN: Final = 10
GROUPS: Final = 20


def mend_chosen(wanted: "EditFilter", verb: str, actor: "Actor", *, yes: bool, data_dir: Path, as_json: bool) -> None:
    """Requeue or discard the edits that a filter means. Shows first how many, why they failed and what a requeue would
    overwrite. Exits with 1 where some were left.
    """
    from shared.domain import requeues  # noqa: PLC0415 - heavy imports wait until the command runs
    from shared.store import mending  # noqa: PLC0415

    ids, more, began_at = _choose(wanted, data_dir)
    if not ids:
        if as_json:
            say_json([])
        else:
            echo(f"No {wanted.status} edit matches.")
        return
    prospects = _prospects(ids, data_dir)
    if not as_json:
        _preview(prospects, verb, str(wanted.status), more=more)
        if not yes:
            typer.confirm(f"{verb.capitalize()} {counted(len(prospects), 'edit')}?", abort=True)
    done: list[str] = []
    left: list[str] = []
    act = requeues.Act(began_at)
    for part in requeues.chunks(prospects, mending.TOGETHER):
        try:
            mended = _mend(part, verb, actor, data_dir, None if yes else act)
        except typer.Exit:
            count = f"{len(done):,} of {counted(len(prospects), 'edit')}"
            echo_wrapped(f"Before that {count} had been done. Run the command again for the rest.", err=True)
            raise
        done, left = done + mended.done, left + mended.left
        act.add(part, mended.done)
    if as_json:
        why = "it has changed, or its post is locked by another session"
        rows: list[dict[str, Any]] = [{"editId": one, "done": True, "why": None} for one in done]
        say_json(rows + [{"editId": one, "done": False, "why": why} for one in left])
    else:
        ended = "queued again" if verb == "requeue" else "discarded"
        echo(f"{len(done):,} of {counted(len(prospects), 'edit')} {'is' if len(done) == 1 else 'are'} {ended}.")
        if left:
            some = " ".join(left[:SHOWN]) + (" …" if len(left) > SHOWN else "")
            echo_wrapped(f"{len(left):,} have changed or are locked by another session; try again: {some}", err=True)
    if left:
        raise typer.Exit(1)


def _choose(wanted: "EditFilter", data_dir: Path) -> tuple[list[str], bool, int]:
    """The ids of the edits that are meant, the oldest first; whether there are more than MOST; and the number of the
    last edit of the queue. Edits that fail from now on are not meant.
    """
    from dataclasses import replace  # noqa: PLC0415 - as above

    from shared.store import mending  # noqa: PLC0415

    with database(data_dir) as tx:
        last = mending.last_place(tx)
    wanted = replace(wanted, up_to=last)
    ids: list[str] = []
    place: int | None = -1
    while place is not None and len(ids) <= MOST:
        # A transaction for each part: none of them may last long.
        with database(data_dir) as tx:
            chosen = mending.choose(tx, wanted, 10_000, place)
        ids += chosen.ids
        place = chosen.next_place
    return ids[:MOST], len(ids) > MOST, last


def _prospects(ids: list[str], data_dir: Path) -> "list[Prospect]":
    from shared.store import mending  # noqa: PLC0415 - as above

    found: list[Prospect] = []
    for start in range(0, len(ids), 1000):
        with database(data_dir) as tx:
            found += mending.prospects(tx, ids[start : start + 1000])
    return found


def _preview(prospects: "list[Prospect]", verb: str, status: str, *, more: bool) -> None:
    """How many edits are meant, of which errors, and what a requeue would do."""
    from collections import Counter  # noqa: PLC0415 - as above

    from shared.domain import requeues  # noqa: PLC0415

    all_of = requeues.of(prospects)
    posts = f"{all_of.posts:,} post{'' if all_of.posts == 1 else 's'}"
    echo(f"{all_of.edits:,} {status} edit{'' if all_of.edits == 1 else 's'} of {posts}.")
    if more:
        echo(f"These are the oldest {MOST:,}; there are more. Run the command again for the others.")
    # Edits that wait have no error.
    words_of = (error_words(one.edit.error_code, one.edit.error_message) for one in prospects)
    errors = Counter(filter(None, words_of))
    for words, count in errors.most_common(SHOWN):
        echo_wrapped(f"  {count:,} {words}", indent=4)
    if len(errors) > SHOWN:
        echo(f"  and {len(errors) - SHOWN:,} errors more")
    if verb == "requeue":
        echo("A requeue now:")
        for sentence in all_of.sentences():
            echo_wrapped(f"  {sentence}", indent=2)
        if all_of.edited_since:
            some = " ".join(all_of.edited_since[:SHOWN]) + (" …" if len(all_of.edited_since) > SHOWN else "")
            echo_wrapped(f"  Posts edited since: {some}", indent=4)
    else:
        echo("They never take effect then, and their clients are told so by webhook.")


def _mend(part: "list[Prospect]", verb: str, actor: "Actor", data_dir: Path, act: "Act | None") -> "Mended":
    """One part in a transaction, and the ringing below its commit. `act`: the operator confirmed what was shown, and an
    edit of which something else is true now is left, unless the earlier parts of the act made it so.
    """
    from shared.broker import doorbells, queue  # noqa: PLC0415 - as above
    from shared.store import mending  # noqa: PLC0415

    with database(data_dir) as tx:
        if verb == "requeue":
            mended = mending.requeue(tx, {one.edit.id: one.mark if act else None for one in part}, actor, act)
        else:
            mended = mending.discard(tx, {one.edit.id: one.edit.status for one in part}, actor)
    found = parts(data_dir)
    # What is not rung for, rescue finds within seconds.
    if found.redis_url and (mended.posts or mended.webhooks):
        with reaching(found):
            doorbells.ring(mended.posts)
            if mended.webhooks:
                queue.ring_webhooks(mended.webhooks)
    return mended


def say_failures(wanted: "EditFilter", *, data_dir: Path, as_json: bool) -> None:
    """The failed edits of a filter by error, the most frequent first."""
    from shared.domain import histories  # noqa: PLC0415 - heavy imports wait until the command runs
    from shared.store import mending  # noqa: PLC0415

    with database(data_dir) as tx:
        found = mending.groups(tx, wanted, GROUPS)
    if as_json:
        say_json([_group_as_json(one) for one in found.groups])
    else:
        rows = [
            {
                "edits": f"{one.count:,}",
                "posts": f"{one.posts:,}",
                "newest": histories.away(one.newest, found.now),
                "error": error_words(one.code, one.message),
            }
            for one in found.groups
        ]
        headings = {"edits": "edits", "posts": "posts", "newest": "latest", "error": "error"}
        say(rows, headings, as_json=False, none="No failed edit matches.", wraps="error")
    if found.groups and not as_json:
        echo(f"{found.total:,} failed edit{'' if found.total == 1 else 's'} in all.")
        code = found.groups[0].code
        echo_wrapped(f"What a requeue would overwrite, before it asks: redraft edits requeue --error {code}")
    _say_cuts(found)


def _say_cuts(found: "ErrorGroups") -> None:
    from shared.store import mending  # noqa: PLC0415 - as above

    if found.distinct > len(found.groups):
        echo(f"Only the first {len(found.groups):,} of {found.distinct:,} errors are shown.", err=True)
    if found.truncated:
        echo(f"Only the newest {mending.LOOKED_AT:,} failed edits were looked at.", err=True)


def _group_as_json(group: "ErrorGroup") -> dict[str, Any]:
    from shared.domain import edit_histories  # noqa: PLC0415 - as above

    return {
        "code": group.code,
        "message": group.message,
        "edits": group.count,
        "posts": group.posts,
        "newestAt": edit_histories.moment(group.newest),
    }


def error_words(code: str | None, message: str | None) -> str:
    """An error as lists show it: `--error` takes any part of it."""
    return ": ".join(one for one in (code, message) if one)


def check_which(ids: list[str] | None, *, filtered: bool, as_json: bool, yes: bool) -> None:
    """Exits with 2 unless edits are either named or chosen by a filter, and for questions that no script answers."""
    if bool(ids) == filtered:
        refuse(
            "Which edits? Name them, or say which with --error, --workspace, --account, --key, --post, --request, "
            "--since and --until."
        )
    if as_json and not yes:
        refuse("--json asks no questions: give --yes too. `redraft edits show` says what a requeue would overwrite.")
