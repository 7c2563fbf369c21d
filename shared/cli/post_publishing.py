"""`redraft posts publish POST...`: posts that wait go out now."""

from typing import Annotated, Any

import typer

from shared.cli.operator import By, operator_name
from shared.cli.places import parts, reaching
from shared.cli.post_holds import no_post
from shared.cli.workspaces import DATA_DIR, AsJson, Folder, database, echo, echo_wrapped, say_json
from shared.domain.plurals import counted

TOGETHER = 500


def publish(
    post_ids: Annotated[list[str], typer.Argument(metavar="POST...", help="These posts.")],
    *,
    by: By = None,
    data_dir: Folder = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Let posts that wait go out now: an edit sets their time to this moment. What is held is refused."""
    from shared.broker import doorbells  # noqa: PLC0415 - heavy imports wait until the command runs
    from shared.domain.errors import NotFound, RedraftError  # noqa: PLC0415 - as above
    from shared.domain.fields import is_clean  # noqa: PLC0415
    from shared.store import publishing  # noqa: PLC0415
    from shared.store.acts import Actor  # noqa: PLC0415

    actor, wanted = Actor(operator_name(by)), list(dict.fromkeys(post_ids))
    done: dict[str, str] = {}
    # PostgreSQL cannot be asked for bytes that are no UTF-8.
    refused: dict[str, RedraftError] = {one: NotFound.post(one) for one in wanted if not is_clean(one)}
    for start in range(0, len(wanted), TOGETHER):
        with database(data_dir) as tx:
            for post_id in (one for one in wanted[start : start + TOGETHER] if one not in refused):
                try:
                    done[post_id] = publishing.by_operator(tx, post_id, actor)
                except RedraftError as error:
                    refused[post_id] = error
        found = parts(data_dir)
        if done and found.redis_url:
            with reaching(found):
                doorbells.ring([post_id for post_id in wanted[start : start + TOGETHER] if post_id in done])
    if as_json:
        rows: list[dict[str, Any]] = [
            {"postId": one, "editId": done.get(one), "why": refused[one].message if one in refused else None}
            for one in wanted
        ]
        say_json(rows)
    else:
        echo(f"{counted(len(done), 'edit')} queued: each post goes out when its edit is applied.")
        for post_id, edit_id in done.items():
            echo(f"{post_id}: {edit_id}")
        for post_id, why in refused.items():
            echo_wrapped(no_post(post_id) if isinstance(why, NotFound) else f"{post_id}: {why.message}.", err=True)
    if any(isinstance(why, NotFound) for why in refused.values()):
        raise typer.Exit(2)
    if refused:
        raise typer.Exit(1)
