"""What `redraft doctor` finds of publisher, renderer and receiver: what they answer now, and what failed for it.

Pure, as shared/cli/findings.py.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from shared.cli.facts import DatabaseFacts, Finding, Said, Webhooks
from shared.domain.edit_histories import duration
from shared.domain.failure_classes import NAMED_AT_MOST, FailureClass, answers_alike, counted_words, shortened
from shared.domain.plurals import capped, counted
from shared.domain.service_answers import FAILURES, Outcome

FAILED_WITHIN: Final = timedelta(days=1)
"""A post that failed longer ago stays on the operators' page, but is no finding any more: many are never put back."""
WAITS_AT_MOST: Final = timedelta(minutes=10)
"""A renderer that makes a post wait for longer is a finding. After an hour the post fails."""


@dataclass(frozen=True, slots=True)
class _Service:
    """How the findings speak of a service. `failed`: the class of posts that failed because it is set up wrongly."""

    name: str
    variable: str
    work: str
    failed: FailureClass

    @property
    def check(self) -> str:
        return f"Check {self.variable}, REDRAFT_SERVICE_SECRET and what the {self.name} itself needs to log in."


_PUBLISHER: Final = _Service("publisher", "REDRAFT_PUBLISHER_URL", "Posts", FailureClass.MISCONFIGURED)
_RENDERER: Final = _Service("renderer", "REDRAFT_RENDERER_URL", "Renders", FailureClass.RENDER_MISCONFIGURED)


def services(database: DatabaseFacts) -> Iterable[Finding]:
    """What publisher and renderer answer for posts that are between two tries."""
    yield from _answers(_PUBLISHER, database.publisher)
    yield from _answers(_RENDERER, database.renderer)
    if database.renderer_waits > WAITS_AT_MOST:
        yield Finding(
            "renderer_busy",
            f"The renderer has asked to wait, or has been at work, for {duration(database.renderer_waits)}",
            "Look into the renderer: it may be overloaded, or its work may hang. After an hour a post fails.",
        )


def _answers(service: _Service, answers: Mapping[Outcome, Said]) -> Iterable[Finding]:
    if (wrongly := answers.get(Outcome.MISCONFIGURED)) is not None:
        yield Finding(
            f"{service.name}_set_up_wrongly",
            answers_alike(service.name, wrongly.words, wrongly.count).removesuffix("."),
            f"{service.check} Then try what waits at once: `redraft posts retry --waiting`. {service.work} are tried "
            f"for an hour; those that fail meanwhile: `redraft posts retry --reason {service.failed}`.",
        )
    failing = [answers[one] for one in (*sorted(FAILURES - {Outcome.MISCONFIGURED}), Outcome.UNKNOWN) if one in answers]
    if failing:
        count = sum(said.count for said in failing)
        words = counted_words((group for said in failing for group in said.groups), count)
        yield Finding(
            f"{service.name}_failing",
            f"The latest try of the {service.name} failed for {counted(count, 'post')}: {words}",
            f"Look into the {service.name} and its log. {service.work} are tried again for an hour, and "
            "`redraft posts show POST` says when; `redraft posts retry --waiting` tries them at once.",
        )


def failed_posts(database: DatabaseFacts) -> Iterable[Finding]:
    """What failed within FAILED_WITHIN and was not put back."""
    for service in (_PUBLISHER, _RENDERER):
        said = database.failed_classes.get(service.failed)
        if said is not None:
            yield Finding(
                f"failed_{service.name}_set_up_wrongly",
                f"{counted(said.count, 'post')} failed within a day because the {service.name} is set up wrongly; last "
                f"words: {said.words}",
                f"{service.check} Then put the posts back: `redraft posts retry --reason {service.failed}`.",
            )
    if database.failed_posts:
        shown = [f"{count:,} {shortened(label)}" for label, count in database.failed_groups[:NAMED_AT_MOST]]
        yield Finding(
            "failed_posts",
            f"{counted(database.failed_posts, 'post')} failed within a day: {'; '.join(shown)}",
            "See them with `redraft posts list --status failed`, or by class and last words on the operators' page. "
            "Repair the cause, then `redraft posts retry --reason WORDS`.",
        )


SLOW: Final = timedelta(seconds=1)
"""A receiver whose calls take longer, while events wait, is a finding."""
EVENTS_WAIT: Final = timedelta(minutes=10)
"""An event that waits for longer is a finding, whatever the receiver answers."""


def webhooks(found: Webhooks) -> Iterable[Finding]:
    """Events that wait for too long, that the receiver does not take now, or that were given up."""
    failing = found.queued and found.outcome not in (None, Outcome.DONE)
    behind = found.oldest is not None and found.oldest > EVENTS_WAIT
    if failing or behind:
        waits = "waits" if found.queued == 1 else "wait"
        oldest = f", the oldest for {duration(found.oldest)}" if found.oldest is not None else ""
        answer = "the receiver was not asked yet"
        if found.since is not None:
            answer = f"the receiver's last answer, {duration(found.since)} ago: {found.words}"
        wrongly = found.outcome is Outcome.MISCONFIGURED
        yield Finding(
            "webhooks_behind" if behind else "receiver_set_up_wrongly" if wrongly else "receiver_failing",
            f"{capped(found.queued, 'webhook event')} {waits}{oldest}; {answer}",
            "Look into the receiver. If it is well, check REDRAFT_WEBHOOK_URL and REDRAFT_SERVICE_SECRET of its "
            "worker. `redraft webhooks status` shows each workspace, `redraft webhooks show EVENT` each try.",
        )
    if found.queued and found.took is not None and found.took >= SLOW:
        yield Finding(
            "receiver_slow",
            f"The receiver of webhooks is slow: a call takes {duration(found.took)}, and "
            f"{capped(found.queued, 'event')} wait{'s' if found.queued == 1 else ''}",
            "Let the receiver answer first, and do its work afterwards. Until then raise REDRAFT_WEBHOOK_CALLS of its "
            "worker, or start more workers of the queue webhooks.",
        )
    if found.dead:
        are, them = ("is", "it") if found.dead == 1 else ("are", "them")
        yield Finding(
            "dead_webhooks",
            f"{capped(found.dead, 'webhook event')} {are} dead: the receiver answered 410, or did not take "
            f"{them} for 24 hours",
            "Repair the receiver. See them with `redraft webhooks list`, then send them again with `redraft webhooks "
            "resend --since TIME --status dead`.",
        )
