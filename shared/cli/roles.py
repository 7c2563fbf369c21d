"""The single roles for production: `redraft api`, `worker`, `beat`, `flower` and `migrate`.

Each becomes its process (exec), so that a container's signals reach uvicorn or Celery themselves. They are started by
module name: shared imports neither api nor worker.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer


def api(
    *,
    host: Annotated[
        str, typer.Option(help="Where to listen. Put a TLS proxy before anything but loopback.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Where to listen.", min=1, max=65535)] = 8000,
    processes: Annotated[
        int | None, typer.Option(help="Processes on this port. 0 chooses by the machine's cores.", min=0, max=64)
    ] = None,
) -> None:
    """The API: one process, or several on one port, started again when they die."""
    from shared.local import commands  # noqa: PLC0415 - heavy imports wait until the command runs
    from shared.local.datadir import hold_port  # noqa: PLC0415
    from shared.settings import settings  # noqa: PLC0415

    _require("database_url", "redis_url")
    places = commands.api_places(port, settings().api_processes if processes is None else processes)
    argv = commands.api(host=host, port=port)
    if len(places) == 1:
        _become(argv, places["api"])
    # Each process would join those of another program on that port.
    held = hold_port(port, host)
    if held is None:
        raise typer.BadParameter(f"Port {port} is in use by another program.", param_hint="--port")
    with held:
        # uvicorn ends by itself before that.
        _supervise(dict.fromkeys(places, argv), commands.API_GRACE + 5, places)


def worker(
    *,
    queues: Annotated[str, typer.Option(help="Queues with commas between; all of them if not given.")] = "",
    name: Annotated[
        str, typer.Option(help="This machine's part of the workers' names; its host name if not given.")
    ] = "",
) -> None:
    """Workers: one process for each queue, started again when they die. A single queue is that process itself."""
    from shared.local import commands  # noqa: PLC0415 - as above
    from shared.settings import settings  # noqa: PLC0415

    chosen = [queue.strip() for queue in queues.split(",") if queue.strip()] or list(commands.POOLS)
    unknown = [queue for queue in chosen if queue not in commands.POOLS]
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}: there are only {', '.join(commands.POOLS)}.")
    _require("database_url", "redis_url")
    if len(chosen) == 1:
        _become(commands.worker(chosen[0], name=name))
    _supervise({queue: commands.worker(queue, name=name) for queue in chosen}, settings().grace)


def beat() -> None:
    """The clock that rings dispatch and rescue. Two are as safe as one."""
    from shared.local import commands  # noqa: PLC0415 - as above

    _require("redis_url")
    _become(commands.beat())


def flower(
    *,
    address: Annotated[str, typer.Option(help="Where to listen. Its /metrics has no password.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Where to listen.", min=1, max=65535)] = 5555,
    data_dir: Annotated[Path, typer.Option(help="Where it keeps its history.")] = Path(".redraft"),
) -> None:
    """Flower, always with a password: REDRAFT_FLOWER_USER and REDRAFT_FLOWER_PASSWORD, else one made up and printed."""
    import secrets  # noqa: PLC0415 - as above

    from shared.local import commands  # noqa: PLC0415
    from shared.local.datadir import private_folder  # noqa: PLC0415
    from shared.settings import settings  # noqa: PLC0415

    _require("redis_url")
    history = private_folder(data_dir) / "flower"
    user, password = settings().flower_user, settings().flower_password
    if not password:
        password = secrets.token_urlsafe(24)
        typer.echo(f"Flower: user {user}, password {password} (REDRAFT_FLOWER_PASSWORD sets one that stays)")
    try:
        environment = commands.flower_environment(user, password)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    _become(commands.flower(address=address, port=port, history=history), environment)


def migrate(*, as_json: Annotated[bool, typer.Option("--json", help="JSON, for scripts.")] = False) -> None:
    """Bring the database's tables up to date. Safe to run by several machines at once."""
    from shared.cli.workspaces import in_words  # noqa: PLC0415 - as above
    from shared.settings import settings  # noqa: PLC0415

    _require("database_url")
    # Half a second of imports, which a user who has to set something first need not wait for.
    from shared.store.migrating import migrate as bring_up_to_date  # noqa: PLC0415

    # Its lock belongs to a session, which a pooler would lend to others.
    direct = settings().database_direct_url
    url = direct or settings().database_url
    with in_words(url, "REDRAFT_DATABASE_DIRECT_URL" if direct else "REDRAFT_DATABASE_URL"):
        bring_up_to_date(url)
    typer.echo('{"upToDate": true}' if as_json else "The database is up to date.")


def _require(*names: str) -> None:
    """A role does not guess where its servers are, nor start where it cannot work. Raises StartError."""
    from shared.settings import settings  # noqa: PLC0415
    from shared.store import prerequisites  # noqa: PLC0415 - as above

    missing = [f"REDRAFT_{name.upper()}" for name in names if not getattr(settings(), name)]
    if missing:
        typer.echo(f"Set {' and '.join(missing)} first, or run everything at once with: redraft up", err=True)
        raise typer.Exit(2)
    prerequisites.refuse(settings())


def _become(argv: list[str], environment: Mapping[str, str] | None = None) -> NoReturn:
    from shared.local import commands  # noqa: PLC0415 - as above

    os.chdir(commands.ROOT)
    sys.stdout.flush()
    os.execvpe(argv[0], argv, {**os.environ, **(environment or {})})  # noqa: S606 - see this file's head


def _supervise(
    commands_of: Mapping[str, Sequence[str]], grace: float, more: Mapping[str, Mapping[str, str]] | None = None
) -> None:
    """Keep a process of each name running until a signal. `more`: what each one's environment has beside ours."""
    import asyncio  # noqa: PLC0415 - as above

    from shared.local import commands, supervisor  # noqa: PLC0415
    from shared.local.output import Output  # noqa: PLC0415
    from shared.settings import settings  # noqa: PLC0415

    form = settings().log_format
    if form == "auto":
        form = "console" if sys.stdout.isatty() else "json"
    environment = {**os.environ, "REDRAFT_LOG_FORMAT": form, "PYTHONUNBUFFERED": "1"}
    children = [
        supervisor.Child(
            name=name,
            argv=argv,
            environment={**environment, **(more or {}).get(name, {})},
            cwd=str(commands.ROOT),
            grace=grace,
        )
        for name, argv in commands_of.items()
    ]

    async def begin(keeper: supervisor.Supervisor) -> None:
        keeper.start(*children)

    # JSON lines stay as they are: what reads them wants no prefix, and each says who wrote it.
    asyncio.run(supervisor.run(begin, Output(prefixed=form == "console")))
