"""`redraft info`: where the parts of a running stack are, as `redraft up` printed it."""

from shared.cli import up
from shared.cli.places import stack_of
from shared.cli.workspaces import DATA_DIR, AsJson, Folder, echo, refuse, say_json


def info(*, data_dir: Folder = DATA_DIR, as_json: AsJson = False) -> None:
    """Say where everything is, as `redraft up` did: addresses, users, passwords, and the request to try."""
    from shared.local.stack import Places  # noqa: PLC0415 - heavy imports wait until the command runs

    try:
        said = stack_of(data_dir)
        places = Places.of(said)
    except FileNotFoundError:
        refuse(
            f"No stack runs in {data_dir}: start one with `redraft up`, or name its folder with --data-dir. Roles that "
            "run one by one have their addresses in their own environment."
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        refuse(f"The stack.json of {data_dir} cannot be read ({type(error).__name__}).")
    if as_json:
        say_json(said)
        return
    folder = data_dir.resolve()
    for line in [*up.parts(places, folder), "", *up.next_step(places, folder)]:
        echo(line)
