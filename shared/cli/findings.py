"""What is wrong, and what to do about it: facts in, findings out (`redraft doctor`).

Pure. shared/cli/probes.py asks the parts; this judges what they said.
"""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Final

from shared.cli.facts import DatabaseFacts, Facts, Finding, WorkerFacts
from shared.cli.finding_weights import weight
from shared.cli.redis_findings import of_redis
from shared.cli.service_findings import failed_posts, services, webhooks
from shared.domain import waits
from shared.domain.edit_histories import duration, listed
from shared.domain.failure_classes import NAMED_AT_MOST
from shared.domain.plurals import capped, counted

SKEW: Final = 1.0
"""Seconds. Workers hand a publish its time by their own clock; the database's decides whether it has come."""
JOB_STALLED: Final = 60.0
KEYS_END_WITHIN: Final = timedelta(days=7)


def diagnose(facts: Facts) -> list[Finding]:
    """Everything that is wrong, what weighs most first."""
    return sorted(_found(facts), key=lambda one: weight(one.code))


def _found(facts: Facts) -> list[Finding]:
    found = [_unreachable(name, said) for name, said in facts.unreachable.items()]
    found += [_untrusted(name, said) for name, said in facts.untrusted.items()]
    found += [_broken(name, said) for name, said in facts.broken.items()]
    if facts.database is not None:
        found += _unfit(facts.database)
        found += _migrations(facts.database)
        found += _unset(facts.database)
    if facts.workers is not None:
        found += _workers(facts.workers, facts)
    if facts.redis is not None:
        found += of_redis(facts.redis)
    if facts.database is not None:
        found += services(facts.database)
        found += _database(facts.database)
        found += failed_posts(facts.database)
        found += webhooks(facts.database.webhooks)
        found += _clocks(facts.database, facts.workers, facts.api_skew)
        # Without its migrations a database lacks columns: that is why, and it has its own finding.
        unread = {} if facts.database.pending else facts.database.unread
        found += [_unread(what, said) for what, said in unread.items()]
    if facts.workers is not None:
        found += _code(facts.workers, facts.version)
    return found


_UNREACHABLE: Final[Mapping[str, str]] = {
    "PostgreSQL": "Nothing works without it: start it, and check REDRAFT_DATABASE_URL and the network between.",
    "Redis": "Edits are accepted and safe, but nothing is applied or published until it is back: start it, and check "
    "REDRAFT_REDIS_URL.",
    "API": "Clients cannot send edits: start it with `redraft api`, or look into its log for why it ended.",
    "Flower": "Redraft works without it, but tasks cannot be watched: start it with `redraft flower`.",
    "publisher": "Posts that come due are tried for an hour and then fail: start it, and check REDRAFT_PUBLISHER_URL.",
    "renderer": "Posts that need a render wait for it and then fail: start it, and check REDRAFT_RENDERER_URL.",
    "receiver of webhooks": "Events wait for it for a day and are then given up: start it, and check "
    "REDRAFT_WEBHOOK_URL.",
}


def _unreachable(name: str, said: str) -> Finding:
    code = f"unreachable_{name.split(maxsplit=1)[0].lower()}"
    return Finding(code, f"{name} does not answer: {said}", _UNREACHABLE.get(name, "Start it."))


def _untrusted(name: str, said: str) -> Finding:
    return Finding(
        f"untrusted_{name.split(maxsplit=1)[0].lower()}",
        f"The certificate of the {name} is not trusted: {said}",
        "No call reaches it. Give it a certificate of a known authority and of its own name, or let SSL_CERT_FILE of "
        "the workers name a file with your authority.",
    )


def _broken(name: str, said: str) -> Finding:
    return Finding(
        f"probe_failed_{name.split(maxsplit=1)[0].lower()}",
        f"The {name} could not be looked at: {said}",
        "Run `redraft doctor` again. If it says so again, report it: the fault may be in the doctor itself.",
    )


def _unread(what: str, said: str) -> Finding:
    return Finding(
        "unread",
        f"PostgreSQL did not tell of {what}: {said}",
        "It is overloaded, or its statistics are old: look at its load, and run ANALYZE.",
    )


def _code(workers: WorkerFacts, own: str) -> Iterable[Finding]:
    """Workers that run other code than the others, or than this command."""
    groups: dict[str, list[str]] = {own: ["this command"]} if own else {}
    for worker, version in sorted(workers.versions.items()):
        groups.setdefault(version, []).append(worker)
    if len(groups) > 1:
        said = "; ".join(f"{version} on {listed(names[:NAMED_AT_MOST])}" for version, names in groups.items())
        yield Finding(
            "code_differs",
            f"Different code runs: {said}",
            "During an upgrade that is as it should be. Else restart what runs the older code.",
        )


def _unfit(database: DatabaseFacts) -> Iterable[Finding]:
    if (wrong := database.unfit) is not None:
        yield Finding(
            wrong.code, wrong.what, f"{wrong.todo} Nothing works before that, and nothing more was asked of it."
        )


def _migrations(database: DatabaseFacts) -> Iterable[Finding]:
    if database.pending:
        yield Finding(
            "pending_migrations",
            f"The database lacks {counted(len(database.pending), 'migration')}: {listed(database.pending)}",
            "Run `redraft migrate`; the code that runs now survives it.",
        )
    if database.unknown:
        yield Finding(
            "unknown_migrations",
            f"The database stands at {listed(database.unknown)}, which this code does not know",
            "This is older code than what migrated the database: upgrade this machine.",
        )


def _unset(database: DatabaseFacts) -> Iterable[Finding]:
    if database.unset:
        said = (f"{name} is {found}, not {should}" for name, (should, found) in sorted(database.unset.items()))
        yield Finding(
            "settings_unset",
            f"PostgreSQL runs transactions without settings of Redraft's: {listed(list(said))}",
            "A pooler between drops them: without time-outs, one that hangs holds its locks for ever. Let "
            "REDRAFT_DATABASE_DIRECT_URL name PostgreSQL itself; each transaction then brings its settings.",
        )


def _workers(workers: WorkerFacts, facts: Facts) -> Iterable[Finding]:
    for queue in workers.queues:
        idle = queue.name == "webhooks" and not facts.webhooks_wanted and not queue.depth
        if not queue.workers and not idle:
            waiting = f", and {counted(queue.depth, 'message')} wait there" if queue.depth else ""
            yield Finding(
                "no_worker",
                f"No worker takes from the queue {queue.name}{waiting}",
                f"Start one with `redraft worker --queues {queue.name}`. If one runs, it hangs: end it with SIGKILL, "
                "and start it again if its supervisor does not.",
            )
        if queue.depth >= facts.queue_full:
            yield Finding(
                "queue_full",
                f"The queue {queue.name} holds {queue.depth:,} messages",
                f"Its workers do not keep up: start more with `redraft worker --queues {queue.name}`. Nothing is lost "
                "meanwhile: the work is in the database.",
            )
    for name, count in workers.namesakes.items():
        yield Finding(
            "same_names",
            f"{count} workers are named {name}: Flower and the metrics take them for one",
            "Start each with a name of its own: `redraft worker --queues QUEUE --name NAME`.",
        )
    if workers.beat is False:
        yield Finding(
            "no_beat",
            "No beat was heard: posts that come due are not sent, and lost work is not found",
            "Start one with `redraft beat`; two are as safe as one.",
        )


def _database(database: DatabaseFacts) -> Iterable[Finding]:
    if database.flood is not None and (said := database.flood.said(database.oldest)) is not None:
        yield Finding("flood", *said)
    if database.oldest is not None and database.oldest > waits.TOO_LONG:
        why = f"The oldest, {database.oldest_edit}: {database.oldest_waits}. " if database.oldest_waits else ""
        yield Finding(
            "old_edits",
            f"{capped(database.queued, 'edit')} in the queue; the oldest waits for {duration(database.oldest)}",
            f"{why}See all with `redraft edits list --status queued`, and one with `redraft edits show EDIT`.",
        )
    if database.late:
        # One post for each kind of reason: a publisher that is out of reach says the same of all of them.
        kinds = {one.code: one for one in reversed(database.latest)}
        first = [one for one in database.latest if kinds[one.code] is one][:NAMED_AT_MOST]
        shown = [f"{one.post_id} ({duration(one.late)}: {one.why})" for one in first]
        yield Finding(
            "late_posts",
            f"{capped(database.late, 'post')} should have gone out and did not, first of them {'; '.join(shown)}",
            "See them with `redraft posts stuck`, one with `redraft posts show POST`.",
        )
    for holder in database.holders:
        yield Finding("idle_transaction" if holder.idle else "long_transaction", holder.words, holder.todo)
    if database.failed:
        yield Finding(
            "failed_edits",
            f"{capped(database.failed, 'failed edit')} wait{'s' if database.failed == 1 else ''} for your decision",
            "See why with `redraft edits failures`; then `redraft edits requeue` or `discard` them, by id or by error.",
        )
    if database.failed_jobs:
        shown = [f"{job} ({error})" for job, error in database.failed_jobs[:NAMED_AT_MOST]]
        yield Finding(
            "failed_jobs",
            f"{counted(len(database.failed_jobs), 'bulk job')} failed within a day: {'; '.join(shown)}",
            "What a job moved stays moved: `redraft jobs show JOB` says how far it came. The log of its worker names "
            "the error, in lines `attempt_spent` with the job's id; without one the worker was killed. Repair that, "
            "then send the job again.",
        )
    if database.stalled:
        yield Finding(
            "stalled_jobs",
            f"No worker makes progress on the bulk job {listed(database.stalled[:NAMED_AT_MOST])}",
            "Look for a worker on the queue bulk, and into its log.",
        )
    if database.ending_keys:
        ending = [f"{name} in {duration(left)}" for name, left in database.ending_keys[:NAMED_AT_MOST]]
        yield Finding(
            "keys_end_soon",
            f"{counted(len(database.ending_keys), 'API key')} will expire within a week: {', '.join(ending)}",
            "`redraft keys list` shows the last use of each. Make a new key with `redraft keys create` under another "
            "name, and give it to the program that uses the old one.",
        )


def _clocks(database: DatabaseFacts, workers: WorkerFacts | None, api: float | None) -> Iterable[Finding]:
    """Compare clocks with the database's clock, which decides about time."""
    todo = "Let NTP set both clocks. Publishes are handed out by the worker's clock and judged by the database's."
    if abs(database.skew) - database.skew_within > SKEW:
        yield Finding("clock_skew", f"This machine's clock is {_off(-database.skew)} the database's", todo)
    if api is not None and abs(api - database.skew) - database.skew_within > SKEW + 1:
        yield Finding(
            "clock_skew", f"The clock of the API's machine is {_off(api - database.skew)} the database's", todo
        )
    for name, skew in sorted((workers.skews if workers else {}).items()):
        off = skew - database.skew
        # A heartbeat has been under way for some milliseconds, at most for as long as a busy worker is.
        if abs(off) - database.skew_within > SKEW:
            yield Finding("clock_skew", f"The clock of worker {name} is {_off(off)} the database's", todo)


def _off(seconds: float) -> str:
    return f"{duration(timedelta(seconds=abs(seconds)))} {'ahead of' if seconds > 0 else 'behind'}"
