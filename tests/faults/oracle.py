"""The oracle of docs/faults.md: what must hold after any fault, judged from rows, journal and the clients' log alone.

    violations = judge(gather(engine, first, load.exchanges, journal))

It knows tables and HTTP, and nothing of how the product works. `settled=False` leaves out what holds only once the
queue has run empty.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.faults.evidence import AttemptRow, Call, EditRow, Evidence, Exchange
from tests.faults.replay import ANYTHING, SHOWN, Replay

FINAL = ("applied", "rejected", "failed")


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise. `kind`: lost, doubled, history, state, order, claim, body, keys, replayed, answer.

    The soak has two more: held and burst.
    """

    kind: str
    post_id: str
    words: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.post_id}: {self.words}"


def judge(evidence: Evidence, *, settled: bool = True) -> list[Violation]:
    """Every promise that the evidence shows broken; empty if there is none."""
    found = list(_accepted_edits_ended(evidence, settled=settled))
    replays: dict[str, Replay] = {}
    edits = _by_post(evidence.edits)
    for post_id, first in evidence.first.items():
        replays[post_id] = replay = Replay.of(first)
        if post_id in evidence.posts:
            replay.retries = evidence.posts[post_id].retries - first.retries
        replay.run(edits[post_id])
        found += [Violation(kind, post_id, words) for kind, words in replay.faults]
        if post_id not in evidence.posts:
            found.append(Violation("lost", post_id, "the post itself is gone"))
        else:
            found += [Violation(kind, post_id, words) for kind, words in replay.end(evidence.posts[post_id])]
    found += _in_order(evidence)
    found += _answers_are_true(evidence, replays)
    found += _nothing_after_a_claim(evidence, replays)
    found += _one_key_and_one_body(evidence, settled=settled)
    return found


def verdict(evidence: Evidence, violations: list[Violation]) -> str:
    """For a failure's message: the violations, and the whole story of the posts concerned."""
    posts = dict.fromkeys(violation.post_id for violation in violations)
    stories = [evidence.story(post_id) for post_id in list(posts)[:3]]
    return "\n".join([f"{len(violations)} violations", *map(str, violations[:20]), *stories])


def _by_post(edits: Iterable[EditRow]) -> defaultdict[str, list[EditRow]]:
    grouped: defaultdict[str, list[EditRow]] = defaultdict(list)
    for edit in edits:
        grouped[edit.post_id].append(edit)
    return grouped


def _by_request(exchanges: Iterable[Exchange]) -> dict[str, list[Exchange]]:
    grouped: dict[str, list[Exchange]] = {}
    for exchange in exchanges:
        grouped.setdefault(exchange.request, []).append(exchange)
    return grouped


def _accepted_edits_ended(evidence: Evidence, *, settled: bool) -> Iterator[Violation]:
    """What was answered 2xx has one row, which has ended; one request, however often repeated, has one edit."""
    rows = {edit.id: edit for edit in evidence.edits}
    made: defaultdict[str | None, list[str]] = defaultdict(list)
    for edit in evidence.edits:
        made[edit.request_id].append(edit.id)
        if settled and (edit.status not in FINAL or edit.finalized_at is None):
            yield Violation("lost", edit.post_id, f"{edit.id} is still {edit.status}")
    for request, exchanges in _by_request(evidence.exchanges).items():
        post_id = exchanges[0].post_id
        if len(made[request]) > 1:
            yield Violation("replayed", post_id, f"{request} made {len(made[request])} edits: {made[request]}")
        named = {exchange.edit_id for exchange in exchanges if exchange.status != 503} - {None}
        if len(named) > 1:
            yield Violation(
                "replayed", post_id, f"{request} was answered with several edits: {sorted(map(str, named))}"
            )
        for exchange in exchanges:
            if exchange.status is None or exchange.status == 503:
                continue
            if 200 <= exchange.status < 300 and exchange.edit_id is None:
                yield Violation("answer", post_id, f"{request} was answered {exchange.status} without an Edit-Id")
            if exchange.edit_id is not None and exchange.edit_id not in rows:
                words = f"{exchange.edit_id} of {request} was answered {exchange.status} and has no row"
                yield Violation("lost", post_id, words)
        if made[request] and all(exchange.status in range(400, 500) and not exchange.edit_id for exchange in exchanges):
            yield Violation("answer", post_id, f"{request} was refused at once and left {made[request]}")


def _in_order(evidence: Evidence) -> Iterator[Violation]:
    """If one edit of a post was answered before another was sent, it is applied first."""
    rows = {edit.request_id: edit for edit in evidence.edits if edit.revision is not None}
    known: defaultdict[str, list[tuple[float, float, EditRow]]] = defaultdict(list)
    for request, exchanges in _by_request(evidence.exchanges).items():
        if request in rows:
            sent = min(exchange.sent for exchange in exchanges)
            answers = [one.answered for one in exchanges if one.answered is not None and (one.status or 500) < 500]
            known[rows[request].post_id].append((sent, min(answers, default=float("inf")), rows[request]))
    for post_id, edits in known.items():
        by_answer = sorted(edits, key=lambda one: one[1])
        latest, answered = None, 0
        for sent, _, edit in sorted(edits, key=lambda one: one[0]):
            while answered < len(by_answer) and by_answer[answered][1] < sent:
                candidate = by_answer[answered][2]
                latest = candidate if latest is None or _rank(candidate) > _rank(latest) else latest
                answered += 1
            if latest is not None and edit is not latest and _rank(edit) - edit.changing < _rank(latest):
                words = (
                    f"{latest.id} (revision {latest.revision}) was answered before {edit.id} ({edit.revision}) was sent"
                )
                yield Violation("order", post_id, words)


def _rank(edit: EditRow) -> int:
    return edit.revision or 0


def _answers_are_true(evidence: Evidence, replays: dict[str, Replay]) -> Iterator[Violation]:
    """What a client was told is what the row says, for ever and in every repeat."""
    rows = {edit.id: edit for edit in evidence.edits}
    for exchange in evidence.exchanges:
        edit = rows.get(exchange.edit_id or "")
        if edit is None or exchange.status is None or exchange.status == 503 or exchange.post_id not in replays:
            continue
        who = f"{exchange.request} ({edit.id})"
        if exchange.status == 200:
            yield from _shown_as_left(exchange, edit, who, replays[exchange.post_id])
        elif exchange.status == 500 and edit.status != "failed":
            yield Violation("answer", edit.post_id, f"{who} was answered 500 and is {edit.status}")
        elif 400 <= exchange.status < 500:
            code = (exchange.answer or {}).get("error", {}).get("code")
            if edit.status != "rejected" or edit.error_code != code:
                words = f"{who} was answered {exchange.status} {code} and is {edit.status} {edit.error_code}"
                yield Violation("answer", edit.post_id, words)


def _shown_as_left(exchange: Exchange, edit: EditRow, who: str, replay: Replay) -> Iterator[Violation]:
    if edit.status != "applied" or edit.id not in replay.states:
        yield Violation("answer", edit.post_id, f"{who} was answered 200 and is {edit.status}")
        return
    revision, fields = replay.states[edit.id]
    if exchange.headers.get("etag") != f'"{revision}"':
        words = f"{who} was answered with ETag {exchange.headers.get('etag')} and left revision {revision}"
        yield Violation("answer", edit.post_id, words)
    shown = exchange.answer or {}
    for name in SHOWN:
        if fields[name] is not ANYTHING and shown.get(name) != fields[name]:
            words = f"{who} was shown {name} {shown.get(name)!r} and left {fields[name]!r}"
            yield Violation("answer", edit.post_id, words)


def _nothing_after_a_claim(evidence: Evidence, replays: dict[str, Replay]) -> Iterator[Violation]:
    """A publish claim, once committed, may have been sent: what went out is what the post was and stays."""
    edits = _by_post(evidence.edits)
    calls: defaultdict[str, list[Call]] = defaultdict(list)
    for call in evidence.journal or ():
        calls[call.key].append(call)
    for post_id, attempts in _attempts_by_post(evidence).items():
        sent = [attempt for attempt in attempts if attempt.may_have_been_sent]
        if not sent or post_id not in replays:
            continue
        shown = json.loads(sent[-1].body)["post"]
        final = replays[post_id].fields
        for name in SHOWN:
            if name != "status" and final[name] is not ANYTHING and shown[name] != final[name]:
                words = (
                    f"{sent[-1].idempotency_key} went out with {name} {shown[name]!r}; later it became {final[name]!r}"
                )
                yield Violation("claim", post_id, words)
        known = [one.finished_at.timestamp() for one in sent if one.finished_at is not None]
        known += [call.at for one in sent for call in calls[one.idempotency_key]]
        for edit in edits[post_id]:
            if edit.status == "applied" and edit.finalized_at and known and edit.finalized_at.timestamp() > min(known):
                yield Violation("claim", post_id, f"{edit.id} was applied after the publisher had been called")


def _attempts_by_post(evidence: Evidence) -> dict[str, list[AttemptRow]]:
    grouped: dict[str, list[AttemptRow]] = {}
    for attempt in evidence.attempts:
        grouped.setdefault(attempt.post_id, []).append(attempt)
    return grouped


def _one_key_and_one_body(evidence: Evidence, *, settled: bool) -> Iterator[Violation]:
    """The outer service saw one idempotency key per publish, at its newest time, never two bodies under one key."""
    bodies: defaultdict[str, set[str]] = defaultdict(set)
    owner: dict[str, str] = {}
    for attempt in evidence.attempts:
        bodies[attempt.idempotency_key].add(attempt.body)
        owner[attempt.idempotency_key] = attempt.post_id
    for call in evidence.journal or ():
        post = json.loads(call.body)["post"]
        if call.key not in owner:
            yield Violation("keys", post["postId"], f"{call.key} was called for and has no attempt's row")
        owner.setdefault(call.key, post["postId"])
        bodies[call.key].add(call.body)
    for key, sent in bodies.items():
        if len(sent) > 1:
            yield Violation("body", owner[key], f"{key} carried {len(sent)} bodies")
    for post_id, attempts in _attempts_by_post(evidence).items():
        sent_keys = {one.idempotency_key for one in attempts if one.may_have_been_sent}
        done = [one for one in attempts if one.outcome == "done"]
        if len(sent_keys) > 1:
            yield Violation("keys", post_id, f"may have gone out under several keys: {sorted(sent_keys)}")
        if len({one.idempotency_key for one in done}) > 1:
            yield Violation("keys", post_id, f"was published {len(done)} times")
        post = evidence.posts.get(post_id)
        if post is not None and settled and (post.fields["status"] == "posted") != bool(done):
            words = f"is {post.fields['status']} after {len(done)} attempts that say they were done"
            yield Violation("keys", post_id, words)
    for post_id, post in evidence.posts.items():
        if post.posted_at is not None and post.posted_at.strftime("%Y-%m-%dT%H:%M:%SZ") < post.fields["scheduledTime"]:
            yield Violation("keys", post_id, f"went out at {post.posted_at}, before {post.fields['scheduledTime']}")
