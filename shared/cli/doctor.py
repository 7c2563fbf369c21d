"""`redraft doctor`: checks every part, names what is wrong, and says what to do."""

from typing import TYPE_CHECKING, Any

import typer

from shared.cli.places import parts, reaching
from shared.cli.workspaces import DATA_DIR, AsJson, Folder, echo, echo_wrapped, refuse, say_json, wrapped

if TYPE_CHECKING:
    from shared.cli.facts import Facts, Webhooks


def doctor(*, data_dir: Folder = DATA_DIR, as_json: AsJson = False) -> None:
    """Look at every part, the services and the receiver too; exit code 0 if all is well, 1 if something was found."""
    found = parts(data_dir)
    missing = [name for name in ("database_url", "redis_url") if not getattr(found, name)]
    if missing:
        names = " and ".join(f"REDRAFT_{name.upper()}" for name in missing)
        refuse(f"Set {names}, or start everything with: redraft up (no stack runs in {data_dir})")
    with reaching(found):
        from sqlalchemy.exc import ArgumentError  # noqa: PLC0415 - heavy imports wait until the command runs

        from shared.cli import findings, probes  # noqa: PLC0415

        try:
            facts = probes.examine(found.database_url, api_url=found.api_url, flower_url=found.flower_url)
        except (ArgumentError, ImportError, ValueError):
            # Their messages would hold the URL, and that a password.
            refuse("REDRAFT_DATABASE_URL or REDRAFT_REDIS_URL is no URL of a server. Look at both.")
    problems = findings.diagnose(facts)
    if as_json:
        listed = [{"code": one.code, "what": one.what, "todo": one.todo} for one in problems]
        say_json({"ok": not problems, "findings": listed, "facts": _facts(facts)})
    else:
        for line in _healthy(facts):
            echo_wrapped(line, indent=12)
        for one in problems:
            typer.echo()
            typer.secho("!", fg="red", bold=True, nl=False)
            # The mark takes a column of the first line.
            echo(wrapped(f"! {one.what}", indent=2).removeprefix("!"))
            echo_wrapped(f"  {one.todo}", indent=2)
        count = len(problems)
        typer.echo("\nAll is well." if not problems else f"\n{count} finding{'' if count == 1 else 's'}.")
    if problems:
        raise typer.Exit(1)


def _facts(facts: "Facts") -> dict[str, Any]:
    """The facts behind the findings, for scripts."""
    database, redis, workers = facts.database, facts.redis, facts.workers
    return {
        "database": database
        and {
            "version": database.version or None,
            "clockSkewSeconds": round(database.skew, 3),
            "queuedEdits": database.queued,
            "oldestQueuedSeconds": database.oldest.total_seconds() if database.oldest is not None else None,
            "failedEdits": database.failed,
            "latePosts": database.late,
            "deadWebhooks": database.webhooks.dead,
            "webhooks": _webhooks(database.webhooks),
            "unread": dict(database.unread),
        },
        "redis": redis
        and {
            "policy": redis.policy,
            "persistence": redis.saved,
            "usedBytes": redis.used,
            "maxBytes": redis.most or None,
            "savingFails": redis.saving_fails,
            "refusesWrites": redis.refuses or None,
        },
        "queues": workers
        and {queue.name: {"messages": queue.depth, "workers": list(queue.workers)} for queue in workers.queues},
        "workerClockSkewSeconds": workers and {name: round(skew, 3) for name, skew in workers.skews.items()},
        "workerCode": workers and dict(workers.versions),
        "code": facts.version or None,
        "beat": workers and workers.beat,
        "unreachable": dict(facts.unreachable),
        "untrusted": dict(facts.untrusted),
        "probesFailed": dict(facts.broken),
    }


def _webhooks(found: "Webhooks") -> dict[str, Any]:
    return {
        "queued": found.queued,
        "oldestSeconds": found.oldest.total_seconds() if found.oldest is not None else None,
        "dead": found.dead,
        "callSeconds": found.took.total_seconds() if found.took is not None else None,
        "lastAnswer": found.outcome
        and {
            "outcome": found.outcome.value,
            "words": found.words,
            "secondsAgo": found.since.total_seconds() if found.since is not None else None,
        },
    }


def _healthy(facts: "Facts") -> list[str]:
    """One line for each part that answered."""
    from shared.domain.edit_histories import duration  # noqa: PLC0415
    from shared.domain.plurals import capped  # noqa: PLC0415 - as above

    lines = []
    if (database := facts.database) is not None and database.unfit is None:
        oldest = f", the oldest for {duration(database.oldest)}" if database.oldest is not None else ""
        queue = f"{capped(database.queued, 'edit')} queued{oldest}, {capped(database.late, 'post')} late"
        lines.append(f"PostgreSQL  {database.version} answers; {queue}")
        if database.webhooks.queued or database.webhooks.outcome:
            last = f", last answer {database.webhooks.words}" if database.webhooks.words else ""
            took = database.webhooks.took
            takes = f", a call takes {duration(took)}" if took is not None else ""
            lines.append(f"Webhooks    {capped(database.webhooks.queued)} waiting{last}{takes}")
    if (redis := facts.redis) is not None:
        lines.append(f"Redis       answers; {redis.policy}, persistence {redis.saved}")
    if (workers := facts.workers) is not None:
        count = len({worker for queue in workers.queues for worker in queue.workers})
        depths = ", ".join(f"{queue.name} {queue.depth:,}" for queue in workers.queues if queue.depth)
        lines.append(f"Workers     {count} answer; messages waiting: {depths or 'none'}")
        lines.append(f"Beat        {'heard' if workers.beat else 'not heard'}")
    return lines
