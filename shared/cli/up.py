"""`redraft up`: everything on this machine, for trying it out and for working on it."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from shared.local.output import Output
    from shared.local.stack import Places, Plan
    from shared.local.supervisor import Supervisor
    from shared.settings import Settings


def up(
    *,
    demo: Annotated[
        bool, typer.Option("--demo", help="Add a workspace, two accounts, 200 posts and an API key.")
    ] = False,
    port: Annotated[int, typer.Option(help="The API's port.", min=1, max=65535)] = 8000,
    flower_port: Annotated[int, typer.Option(help="Flower's port.", min=1, max=65535)] = 5555,
    data_dir: Annotated[Path, typer.Option(help="Where the embedded servers keep their data.")] = Path(".redraft"),
    reference_services: Annotated[
        bool, typer.Option("--reference-services", help="Publish and render with the test suite's stand-ins.")
    ] = False,
) -> None:
    """Start everything: PostgreSQL, Redis (Valkey), API, workers, beat and Flower. Ctrl-C stops it all.

    The servers are embedded ones unless REDRAFT_DATABASE_URL or REDRAFT_REDIS_URL say where yours are.
    """
    import asyncio  # noqa: PLC0415 - heavy imports wait until the command runs
    import os  # noqa: PLC0415

    from shared.domain.start_rules import StartError  # noqa: PLC0415
    from shared.local import supervisor  # noqa: PLC0415
    from shared.local.datadir import DataDir  # noqa: PLC0415
    from shared.local.errors import LocalError  # noqa: PLC0415
    from shared.local.output import Output  # noqa: PLC0415
    from shared.local.stack import Plan, Stack  # noqa: PLC0415
    from shared.settings import settings  # noqa: PLC0415
    from shared.store import prerequisites  # noqa: PLC0415

    # Whatever is kept from here on, by us or by what we start, is ours alone to read.
    os.umask(0o077)
    output = Output()
    plan = Plan(port=port, flower_port=flower_port, demo=demo, reference_services=reference_services)
    try:
        data = DataDir.open(data_dir)
        config = settings()
        prerequisites.refuse(config)
        stack = Stack(plan, data, config, lambda places: announce(output, places, plan, config, data.path))

        async def begin(watch: "Supervisor") -> None:
            # Said when signals are heard: who reads it may press Ctrl-C at once.
            output("redraft", f"starting in {data.path}")
            await stack.begin(watch)

        try:
            asyncio.run(supervisor.run(begin, output))
        finally:
            stack.end()
        output("redraft", "stopped")
    except (LocalError, StartError) as error:
        typer.echo(f"redraft up: {error}", err=True)
        raise typer.Exit(1) from error


def announce(output: "Output", places: "Places", plan: "Plan", config: "Settings", folder: Path) -> None:
    """Tell a person where everything is, and what to type next."""
    lines = ["", "Redraft is up. Ctrl-C stops everything.", "", *parts(places, folder)]
    if not (config.publisher_url or plan.reference_services):
        lines.append("  Publishing  a sandbox that only logs; REDRAFT_PUBLISHER_URL names a real publisher")
    output.write("\n".join([*lines, "", *next_step(places, folder), "", ""]))


def parts(places: "Places", folder: Path) -> list[str]:
    """Where everything is, a line each."""
    return [
        f"  API         {places.api_url}/v1    its pages: {places.api_url}/docs",
        f"  Operators   {places.ops_url}    user {places.ops_user}, password {places.ops_password}",
        f"  Flower      {places.flower_url}    user {places.flower_user}, password {places.flower_password}",
        f"  PostgreSQL  {places.database_url}",
        f"  Redis       {places.redis_url}",
        f"  Data        {folder} (all of the above: stack.json)",
    ]


def next_step(places: "Places", folder: Path) -> list[str]:
    """What to type next: the documented request, or how to make a key."""
    if places.api_key is None:
        return [
            "There is no API key yet. Start with --demo for one and some posts, or make your own in another terminal:",
            f"  redraft workspaces create NAME --data-dir {shlex.quote(str(folder))}",
            f"  redraft keys create WORKSPACE NAME --data-dir {shlex.quote(str(folder))}",
        ]
    return ["Try it (in another terminal):", "", request(places.api_url, places.api_key)]


def request(api_url: str, api_key: str) -> str:
    """The documented request with a time tomorrow, ready to paste."""
    from datetime import UTC, datetime, timedelta  # noqa: PLC0415 - as above
    from zoneinfo import ZoneInfo  # noqa: PLC0415

    zone = "America/New_York"
    tomorrow = (datetime.now(UTC).astimezone(ZoneInfo(zone)) + timedelta(days=1)).date()
    return (
        f"curl -i -X PATCH {api_url}/v1/posts/post_abc123 \\\n"
        f"  -H 'Authorization: Bearer {api_key}' \\\n"
        "  -H 'Content-Type: application/json' \\\n"
        '  -d \'{"caption": "Edited while it waits", '
        f'"scheduledTime": "{tomorrow}T15:00", "timezone": "{zone}"}}\''
    )
