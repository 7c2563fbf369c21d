"""What a requeue of many edits would do, as operators read it before they agree. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from shared.domain.edit_histories import Prospect
from shared.domain.plurals import counted


@dataclass(frozen=True, slots=True)
class Requeues:
    """The requeues of many edits together. `edited_since`: posts with a later change that would be overwritten;
    `overwriting`: edits that would do so; `refused`: the reasons of those that would be refused again, with counts;
    `at_once`: posts that would go out at once.
    """

    edits: int
    posts: int
    overwriting: int
    edited_since: tuple[str, ...]
    refused: tuple[tuple[str, int], ...]
    at_once: tuple[str, ...]

    def sentences(self) -> list[str]:
        """What an operator should know before saying yes."""
        said = []
        if self.overwriting:
            which = f"{counted(self.overwriting, 'edit')} would overwrite later changes"
            said.append(f"{which} of {counted(len(self.edited_since), 'post')}.")
        else:
            said.append("No later change touches the same fields: nothing is overwritten.")
        said += [f"{counted(number, 'edit')} would be refused again: {why}." for why, number in self.refused]
        if self.at_once:
            said.append(f"{counted(len(self.at_once), 'post')} would go out at once, since the new time has passed.")
        return said


def of(prospects: Iterable[Prospect]) -> Requeues:
    """All of these together."""
    edits = overwriting = 0
    posts: set[str] = set()
    since: dict[str, None] = {}
    at_once: dict[str, None] = {}
    refused: Counter[str] = Counter()
    for one in prospects:
        edits += 1
        posts.add(one.edit.post_id)
        if one.refusal is not None:
            refused[one.refusal] += 1
            continue
        if one.overwrites:
            overwriting += 1
            since[one.edit.post_id] = None
        if one.goes_out_at_once:
            at_once[one.edit.post_id] = None
    return Requeues(edits, len(posts), overwriting, tuple(since), tuple(refused.most_common()), tuple(at_once))


def mark(prospects: Iterable[Prospect]) -> str:
    """Names these requeues as they stand: what was agreed to is these, and no others."""
    return sha256(repr([(one.edit.id, one.mark) for one in prospects]).encode()).hexdigest()[:16]


def chunks(prospects: Sequence[Prospect], at_most: int) -> list[list[Prospect]]:
    """Parts of `at_most` edits. The edits of one post stay in their order, and together if they fit into one part: the
    first of them changes what a requeue of the others would do.
    """
    by_post: dict[str, list[Prospect]] = {}
    for one in prospects:
        by_post.setdefault(one.edit.post_id, []).append(one)
    found: list[list[Prospect]] = []
    for together in by_post.values():
        if not found or len(found[-1]) + len(together) > at_most:
            found.append([])
        for one in together:
            if len(found[-1]) >= at_most:
                found.append([])
            found[-1].append(one)
    return found


@dataclass(slots=True)
class Act:
    """What one act on many edits has done so far, part by part. `began_at`: the number of the last edit of the queue
    when the operator looked; `done`: post -> its edits that the earlier parts requeued.
    """

    began_at: int
    done: dict[str, set[str]] = field(default_factory=dict)

    def add(self, part: Iterable[Prospect], done: Iterable[str]) -> None:
        """Note what a part has requeued."""
        ids = set(done)
        for one in part:
            if one.edit.id in ids:
                self.done.setdefault(one.edit.post_id, set()).add(one.edit.id)
