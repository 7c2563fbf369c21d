"""The serial replay: what a post must be after its changing edits, one by one, in the order of their revisions.

Written from docs/lifecycle.md alone and sharing no rule with the product, so that a mistake there is not repeated here.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from tests.faults.evidence import TEXTS, EditRow, PostRow, instant

ANYTHING = object()
"""A value that the evidence does not tell: the thumbnail that a render made."""

ENDED = ("posted", "failed")
SHOWN = (
    "contentType", "contentUrl", "thumbnailUrl", *TEXTS, "soundId", "timezone", "scheduledTime", "status",
)  # fmt: skip


@dataclass(slots=True)
class Replay:
    """A post on its way through its edits. `faults`: where the record and the rules of docs/lifecycle.md differ."""

    fields: dict[str, Any]
    revision: int
    render_as_video: bool
    faults: list[tuple[str, str]] = field(default_factory=list)
    states: dict[str, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    retries: int = 0

    @classmethod
    def of(cls, first: PostRow) -> "Replay":
        return cls(dict(first.fields), first.revision, first.render_as_video)

    def run(self, edits: list[EditRow]) -> None:
        """Replay the applied ones. `states` holds the revision and fields that each of them left behind."""
        applied = [(edit.revision, edit) for edit in edits if edit.status == "applied" and edit.revision is not None]
        for revision, edit in sorted(applied, key=lambda one: (one[0], not one[1].changing)):
            self._advance(revision - edit.changing, edit.id)
            self._check(edit)
            self.revision = max(self.revision, revision)
            self.states[edit.id] = (revision, dict(self.fields))

    def _advance(self, revision: int, who: str) -> None:
        """Up to the revision that an edit found. Between two edits only a finished render counts a revision."""
        steps = revision - self.revision
        while steps >= 2 and self.retries:
            # It failed, and was put back: a revision each.
            steps, self.retries = steps - 2, self.retries - 1
        if steps < 0:
            self.faults.append(
                ("doubled", f"{who} counted from revision {revision}, which was gone: two changes took it")
            )
        elif steps == 1 and self.fields["status"] == "pending_render":
            self._rendered()
        elif steps:
            self.faults.append(("doubled", f"{steps} revisions before {who} have no audit record"))
        self.revision = max(self.revision, revision)

    def _rendered(self) -> None:
        self.fields |= {"status": "generated", "thumbnailUrl": ANYTHING}

    def _check(self, edit: EditRow) -> None:
        after = self._edited(edit)
        expected = {name: (self.fields[name], after[name]) for name in SHOWN if self.fields[name] != after[name]}
        was, now = edit.before or {}, edit.after or {}
        recorded = {name: (was.get(name), now.get(name)) for name in was.keys() | now.keys()}
        if self.fields["thumbnailUrl"] is ANYTHING:
            expected.pop("thumbnailUrl", None)
            recorded.pop("thumbnailUrl", None)
        if expected != recorded:
            self.faults.append(("history", f"{edit.id} must have changed {expected} and its record says {recorded}"))
        self.fields = after

    def _edited(self, edit: EditRow) -> dict[str, Any]:
        """The fields after one edit (docs/lifecycle.md)."""
        old, changes = self.fields, edit.changes
        new = dict(old)
        sets = (*TEXTS, "soundId", "contentType", "contentUrl")
        new |= {name: changes[name] for name in sets if name in changes}
        if "scheduledTime" in changes and "timezone" in changes:
            local = datetime.fromisoformat(changes["scheduledTime"]).replace(tzinfo=ZoneInfo(changes["timezone"]))
            new |= {"timezone": changes["timezone"], "scheduledTime": instant(local.astimezone(UTC))}
        elif not changes.keys() & set(SHOWN):
            # A bulk job's move: how it came to the time is the planner's, that it is once and in order is ours.
            moved = edit.after or {}
            new |= {name: moved[name] for name in ("timezone", "scheduledTime") if name in moved}
        if new["contentUrl"] != old["contentUrl"]:
            new["thumbnailUrl"] = None
        if any(new[name] != old[name] for name in ("contentType", "contentUrl", "soundId")):
            needed = self.render_as_video and new["contentType"] == "slides"
            new["status"] = "pending_render" if needed else "generated"
        return new

    def end(self, post: PostRow) -> Iterator[tuple[str, str]]:
        """What is wrong with the post as it stands, if this is all that was done to it."""
        steps = post.revision - self.revision - 2 * self.retries - post.late
        ended = post.fields["status"] in ENDED
        waits = self.fields["status"] == "pending_render"
        rendered = waits and (post.fields["status"] in ("generated", "posted") or (ended and steps == 2))
        if steps != ended + rendered:
            yield "doubled", f"stands at revision {post.revision}; its edits end at {self.revision}"
        if rendered:
            self._rendered()
        for name in SHOWN:
            expected, found = self.fields[name], post.fields[name]
            if expected != found and expected is not ANYTHING and not (name == "status" and ended):
                yield "state", f"{name} is {found!r}; the replay of its edits says {expected!r}"
