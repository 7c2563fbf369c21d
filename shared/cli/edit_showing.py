"""`redraft edits show`: one edit's history, and what a requeue of it would do."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from shared.cli.places import ask_redis
from shared.cli.workspaces import DATA_DIR, AsJson, Folder, database, echo, echo_wrapped, refuse, say_json

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from shared.domain.edit_histories import EditHistory, Prospect
    from shared.store.acts import Recorded

SHOWN = 20


def show(
    edit_id: Annotated[
        str, typer.Argument(metavar="EDIT", help="As lists, logs and Flower show it: edit_… Or its request's id: req_…")
    ],
    *,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Show one edit's history: its times, what it changed or why it did not, and what to do."""
    from shared.domain import edit_histories, waits  # noqa: PLC0415 - as above
    from shared.domain.lifecycle import EditStatus  # noqa: PLC0415
    from shared.store import acts, keys, locks, operator_actions  # noqa: PLC0415 - heavy imports wait until the command runs
    from shared.store import posts as posts_store  # noqa: PLC0415

    with database(data_dir) as tx:
        edit_id = _of_request(tx, edit_id)
        seen = operator_actions.prospect(tx, edit_id)
        done = acts.of(tx, edit_id, SHOWN)
        post = posts_store.read_posts(tx, [seen.edit.post_id])[0].get(seen.edit.post_id) if seen else None
        account = keys.account(tx, post.account_id) if post else None
        locked = locks.of_posts(tx, [seen.edit.post_id]) if seen else {}
    if seen is None:
        refuse(f"There is no edit {edit_id}, nor one of a request {edit_id}. See which there are: redraft edits list")
    failed = seen.edit.status == EditStatus.FAILED
    found = waits.Waits(locked, ask_redis(data_dir) if seen.edit.status == EditStatus.QUEUED else waits.UNKNOWN)
    if as_json:
        kept = {"acts": [act.as_json() for act in done]}
        of_post = {"accountId": post and post.account_id, "accountName": account and account.name}
        say_json(
            waits.as_json(seen.edit, found)
            | of_post
            | kept
            | ({"requeue": edit_histories.prospect_as_json(seen)} if failed else {})
        )
        return
    zone = post.facts.timezone if post else None
    for line in _lines(seen.edit, done, zone):
        echo_wrapped(line, indent=15)
    if post is not None:
        echo(f"Its post belongs to account {post.account_id}{f' ({account.name})' if account else ''}.")
    if failed:
        echo("\nA requeue now:")
        show_prospect(seen, zone)
    echo_wrapped(f"\n{waits.advice(seen.edit, found)}")


def _of_request(tx: "Connection", given: str) -> str:
    """The id of the one edit of the request with this id; the given text where there is none. Exits with 2 where there
    are several, and names them.
    """
    from shared.store import edit_lists, operator_actions  # noqa: PLC0415 - as above
    from shared.store.edit_lists import EditFilter  # noqa: PLC0415

    if operator_actions.history(tx, given) is not None:
        return given
    found = edit_lists.page(tx, EditFilter(request_id=given), limit=SHOWN).edits
    if len(found) > 1:
        ids = "\n".join(f"  redraft edits show {edit.id}" for edit in found)
        refuse(f"There are several edits of requests with the id {given}. Show one of them:\n{ids}")
    return found[0].id if found else given


def _lines(edit: "EditHistory", done: "list[Recorded]", zone: str | None) -> list[str]:
    """The history, line by line."""
    from shared.domain import edit_histories  # noqa: PLC0415 - as above

    lines = [f"{edit.id} of {edit.post_id} in {edit.workspace_id}: {edit.status}"]
    for what, when, note in edit_histories.milestones(edit):
        lines.append(f"  {what:<12} {edit_histories.moment(when) or '':<26}{note}")
    if edit.request_id:
        lines.append(f"  {'request':<12} {edit.request_id}")
    if edit.reschedule_id:
        lines.append(f"  {'bulk job':<12} {edit.reschedule_id}")
    if edit.error_code:
        lines.append(f"  {'error':<12} {edit.error_code}: {edit.error_message}")
    lines.append("It asked for:")
    lines += _fields(edit_histories.without_secrets(edit.changes))
    if edit.after:
        lines.append(f"It left the post at revision {edit.revision}:")
        lines += _changes(edit.before, edit.after, zone)
    if done:
        lines.append("What was done to it:")
    lines += [f"  {edit_histories.moment(act.at)} {act.words()}" for act in done]
    return lines


def show_prospect(seen: "Prospect", zone: str | None = None) -> None:
    from shared.domain import edit_histories  # noqa: PLC0415 - as above

    for sentence in seen.sentences():
        echo_wrapped(f"  {sentence}", indent=2)
    for one in seen.overwrites:
        fields = edit_histories.listed(one.fields)
        echo_wrapped(
            f"    {fields} as {one.edit_id} set it"
            f" ({one.status} {edit_histories.moment(one.at)}, by {one.requested_by})",
            indent=6,
        )
    for line in _changes(seen.before, seen.after, zone):
        echo_wrapped(f"  {line}", indent=19)


def _fields(values: dict[str, Any]) -> list[str]:
    return [f"  {name:<14} {_shown(value)}" for name, value in values.items()]


def _changes(before: dict[str, Any] | None, after: dict[str, Any], zone: str | None) -> list[str]:
    """What changed, line by line; times in the post's zone too."""
    from shared.domain import edit_histories, histories  # noqa: PLC0415 - as above

    was, now = edit_histories.without_secrets(before or {}), edit_histories.without_secrets(after)
    lines = [f"  {name:<14} {_shown(was.get(name))} -> {_shown(value)}" for name, value in now.items()]
    if "scheduledTime" in now:
        zones = (was.get("timezone") or zone, now.get("timezone") or zone)
        local = [histories.in_zone(one.get("scheduledTime"), of) for one, of in zip((was, now), zones, strict=True)]
        lines += [f"  {'local time':<14} {local[0] or 'none'} -> {local[1]}"] if local[1] else []
    return lines


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "none" if value is None else f'"{value}"' if isinstance(value, str) else str(value)
