"""The `redraft` command: which name runs what. Modules here import only typer at their top, so that it starts fast."""

from typing import Annotated

import typer

from shared.cli import accounts, edits, jobs, keys, posts, roles, webhooks, workspaces
from shared.cli.doctor import doctor
from shared.cli.info import info
from shared.cli.prune import prune
from shared.cli.reschedule import reschedule
from shared.cli.up import up
from shared.domain.start_rules import StartError
from shared.local.errors import LocalError

app = typer.Typer(
    name="redraft",
    no_args_is_help=True,
    # Commands below it take it over.
    context_settings={"help_option_names": ["-h", "--help"]},
    # A traceback with local values would print passwords.
    pretty_exceptions_show_locals=False,
)


def say_version(wanted: bool) -> None:  # noqa: FBT001  -- typer calls it with the option's value
    """Print the version of the installed package, which pyproject.toml names, and end."""
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415 - 20 ms that no other command should pay

        typer.echo(f"redraft {version('redraft')}")
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=say_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    """Queued edits for scheduled social posts."""


TRY, LOOK, SET_UP, ROLES = "Try it", "Look and mend", "Set up", "Single roles, for production"

app.command("up", rich_help_panel=TRY)(up)
app.command("info", rich_help_panel=TRY)(info)
app.command("doctor", rich_help_panel=LOOK)(doctor)
app.add_typer(edits.app, name="edits", rich_help_panel=LOOK)
app.add_typer(posts.app, name="posts", rich_help_panel=LOOK)
app.add_typer(webhooks.app, name="webhooks", rich_help_panel=LOOK)
app.command("reschedule", rich_help_panel=LOOK)(reschedule)
app.add_typer(jobs.app, name="jobs", rich_help_panel=LOOK)
app.command("prune", rich_help_panel=LOOK)(prune)
app.add_typer(workspaces.app, name="workspaces", rich_help_panel=SET_UP)
app.add_typer(accounts.app, name="accounts", rich_help_panel=SET_UP)
app.add_typer(keys.app, name="keys", rich_help_panel=SET_UP)
app.command("migrate", rich_help_panel=SET_UP)(roles.migrate)
app.command("api", rich_help_panel=ROLES)(roles.api)
app.command("worker", rich_help_panel=ROLES)(roles.worker)
app.command("beat", rich_help_panel=ROLES)(roles.beat)
app.command("flower", rich_help_panel=ROLES)(roles.flower)


def run() -> None:
    """Run the command. An error that a person has to correct is one line, without a traceback."""
    try:
        app()
    except (LocalError, StartError) as error:
        typer.echo(f"redraft: {error}", err=True)
        raise SystemExit(1) from error


if __name__ == "__main__":
    run()
