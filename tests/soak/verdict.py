"""The oracle of the faults over a whole soak, one shard of posts after the other, and what the rows add up to."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine, text

from tests.faults.evidence import Call, PostRow, gather
from tests.faults.oracle import Violation, judge, verdict
from tests.soak.log import SHARDS, Log, shard_of

# What a violation of each kind is called in the report.
NAMES: Mapping[str, str] = {
    "lost": "lost",
    "doubled": "doubled",
    "replayed": "doubled",
    "order": "out of order",
    "keys": "published twice",
    "body": "published twice",
    "claim": "edited after a publish had claimed it",
    "history": "audit record and rules differ",
    "state": "post and replay of its edits differ",
    "answer": "answered what is not so",
    "job": "bulk jobs whose figures and rows differ",
    "held": "published while held",
    "burst": "published at a resume although it was missed",
}
KEPT = 20
_RESULTS = text("SELECT status, count(*) AS edits FROM edits GROUP BY status")
_MOVES = text("SELECT count(*) FROM edits WHERE reschedule_id IS NOT NULL")
_POSTED = text("SELECT status, count(*) AS posts FROM posts GROUP BY status")
_OUT = text("SELECT id, status, deleted_at FROM posts")
# A dry run has no rows; there is none here.
_JOBS = text("""
    SELECT r.id, r.status, r.applied, count(e.id), count(DISTINCT e.post_id)
    FROM reschedules r LEFT JOIN edits e ON e.reschedule_id = r.id AND e.status = 'applied'
    GROUP BY r.id HAVING r.applied <> count(e.id) OR count(e.id) <> count(DISTINCT e.post_id)""")


@dataclass
class Verdict:
    """`broken`: how many violations of each kind, by the report's names. `words`: the first few, told in full."""

    judged: int = 0
    exchanges: int = 0
    broken: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(NAMES.values(), 0)))
    words: list[str] = field(default_factory=list)
    story: str = ""
    results: dict[str, int] = field(default_factory=dict)
    posts: dict[str, int] = field(default_factory=dict)
    moves: int = 0
    published: int = 0
    calls: int = 0

    @property
    def clean(self) -> bool:
        return not sum(self.broken.values())

    def add(self, violations: Sequence[Violation]) -> None:
        for one in violations:
            self.broken[NAMES[one.kind]] += 1
            if len(self.words) < KEPT:
                self.words.append(str(one))


def reach(
    engine: Engine,
    first: Mapping[str, PostRow],
    log: Log,
    journal: Sequence[Mapping[str, Any]],
    effects: Sequence[Sequence[str]] | None = None,
) -> Verdict:
    """Judge all of it. `journal`: the calls of the publisher, as tests/reference_services tells them. `effects`: (post,
    key) of each effect at the door of an opponent, which may answer 422 to anything.
    """
    found = Verdict(calls=len(journal), published=len({call["key"] for call in journal}))
    calls: defaultdict[int, list[Call]] = defaultdict(list)
    for call in journal:
        calls[shard_of(call["post_id"])].append(Call(call["at"], call["key"], call["body"], call["status"]))
        if (call["status"] == 422 and effects is None) or not call["genuine"]:
            found.add([Violation("body", call["post_id"], f"the publisher refused {call['key']}: {call['status']}")])
    posts: defaultdict[int, dict[str, PostRow]] = defaultdict(dict)
    for post_id, row in first.items():
        posts[shard_of(post_id)][post_id] = row
    for shard in range(SHARDS):
        evidence = gather(engine, posts[shard], log.read(shard), calls[shard])
        violations = judge(evidence)
        found.judged += len(evidence.edits)
        found.exchanges += len(evidence.exchanges)
        found.add(violations)
        if violations and not found.story:
            found.story = verdict(evidence, violations[:1])
    if effects is not None:
        _at_the_door(engine, effects, found)
    _add_up(engine, found)
    return found


def _at_the_door(engine: Engine, effects: Sequence[Sequence[str]], found: Verdict) -> None:
    """A post that went out did so once, is posted, and was not deleted before; one that is posted went out."""
    times = Counter(post_id for post_id, _ in effects)
    with engine.connect() as tx:
        rows = {row.id: row for row in tx.execute(_OUT)}
    for post_id in sorted({*times, *(row.id for row in rows.values() if row.status == "posted")}):
        row, went = rows[post_id], times[post_id]
        if went != 1 or row.status != "posted" or row.deleted_at is not None:
            found.add([Violation("keys", post_id, f"went out {went} times and is {row.status}")])


def _add_up(engine: Engine, found: Verdict) -> None:
    """What the whole tables say, whoever the posts belong to."""
    with engine.connect() as tx:
        found.results = {row.status: int(row.edits) for row in tx.execute(_RESULTS)}
        found.posts = {row.status: int(row.posts) for row in tx.execute(_POSTED)}
        found.moves = tx.execute(_MOVES).scalar_one()
        wrong = [
            Violation("job", job, f"{status}, says {says} moves and has {rows} rows of {posts} posts")
            for job, status, says, rows, posts in tx.execute(_JOBS)
        ]
    found.add(wrong)
    if (rows := sum(found.results.values())) != found.judged:
        found.add([Violation("lost", "all", f"{rows} edits have rows and {found.judged} were judged")])
