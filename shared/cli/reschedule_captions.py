"""The column `caption` of `redraft reschedule --csv`: which captions differ from the posts', and the edits for them.

Each edit names the revision that was exported. So no caption is overwritten that the planner has not seen.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import Any, Final, NamedTuple

from shared.cli.api_client import SOME_FAILED, SOME_SKIPPED, Api, RefusedError
from shared.cli.reschedule_screen import Screen
from shared.cli.waiting_posts import THREADS, Post, Posts
from shared.domain import captions
from shared.domain.csv_lines import SAVE_AS_UTF8, lost_letters, may_have_lost_letters, same_caption
from shared.domain.errors import Faults, printable
from shared.domain.ids import new_id
from shared.domain.plurals import counted

FEW: Final = 200
"""Up to so many posts are read one by one; of more, the list of all that wait is read, and the others one by one."""
SHOWN: Final = 5
BATCH: Final = 150
"""Edits in one request: the longest captions of so many stay below the 2 MiB that the API takes."""
TRIES: Final = 3
EDITS: Final = "/v1/edits"
QUEUED: Final = "its edit {} is still queued"
WORDS: Final = 32
BEFORE: Final = 10
"""Characters that are shown before the first that differs."""
CONFLICT: Final = "the post has changed since the export; export again, then change its caption"

LOST: Final = "letters of it became ? when the file was saved"


class CaptionEdit(NamedTuple):
    """One caption that the file changes. `before`: the post's own."""

    post_id: str
    revision: int
    caption: str
    before: str


@dataclass(slots=True)
class CaptionPlan:
    """`conflicts`: posts that changed since the export; `refused`: why a caption cannot be changed, by its post."""

    edits: list[CaptionEdit] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def anything(self) -> bool:
        return bool(self.edits or self.conflicts or self.refused)

    @property
    def exit_code(self) -> int:
        return SOME_FAILED if self.refused else SOME_SKIPPED if self.conflicts else 0

    def outcomes(self) -> Iterator[tuple[str, str, str]]:
        """The post, the outcome and the reason of each caption."""
        yield from ((edit.post_id, "applied", "") for edit in self.edits)
        yield from ((post_id, "skipped", "changed_since") for post_id in self.conflicts)
        yield from ((post_id, "failed", why) for post_id, why in self.refused.items())


def plan(wanted: Mapping[str, tuple[int, str]], posts: Posts) -> CaptionPlan:
    """What the file changes. `wanted`: the exported revision and the caption, by the posts' ids. Changes nothing."""
    found = CaptionPlan()
    same: set[str] = set()
    now: dict[str, Post | None] = {}
    if len(wanted) > FEW:
        for listed in posts.waiting((), "", ""):
            post_id = listed["postId"]
            if post_id in wanted and same_caption(listed["caption"], wanted[post_id][1]):
                same.add(post_id)
            elif post_id in wanted:
                now[post_id] = listed
    now |= posts.each(post_id for post_id in wanted if post_id not in same and post_id not in now)
    for post_id, (revision, caption) in wanted.items():
        post = now.get(post_id)
        if post is not None:
            _judge(found, post, revision, caption, of_file=True)
        elif post_id not in same:
            found.refused[post_id] = "there is no such post"
    if LOST in found.refused.values():
        # The others went through the same program.
        kept = [edit for edit in found.edits if not may_have_lost_letters(edit.before, edit.caption)]
        found.refused |= dict.fromkeys({edit.post_id for edit in found.edits} - {edit.post_id for edit in kept}, LOST)
        found.edits = kept
    return found


def _judge(found: CaptionPlan, post: Post, revision: int, caption: str, *, of_file: bool) -> None:
    """`of_file`: a spreadsheet saved this caption, and may have lost letters of it."""
    if same_caption(post["caption"], caption):
        return
    # Lists hold posts that wait, and do not say why one takes no edit.
    if reason := post.get("notEditableReason"):
        found.refused[post["postId"]] = f"the post is {reason}"
        return
    if post["revision"] != revision:
        found.conflicts.append(post["postId"])
        return
    if of_file and lost_letters(post["caption"], caption):
        found.refused[post["postId"]] = LOST
        return
    faults = Faults()
    captions.check(caption, captions.limits_of(post["platform"], post["contentType"], render_as_video=False), faults)
    error = faults.error()
    if error is not None:
        found.refused[post["postId"]] = error.message
    else:
        found.edits.append(CaptionEdit(post["postId"], revision, caption, post["caption"]))


def preview(screen: Screen, found: CaptionPlan) -> None:
    """Show which captions would change, and which cannot."""
    for edit in found.edits[:SHOWN]:
        screen.say(f"{edit.post_id}  caption")
        before, after = differing(edit.before, edit.caption)
        screen.say(f'    "{before}" -> "{after}"')
    if len(found.edits) > SHOWN:
        screen.say(f"… and {len(found.edits) - SHOWN:,} more …")
    screen.say(f"{counted(len(found.edits), 'caption')} would be changed.")
    say_left(screen, found)


def say_left(screen: Screen, found: CaptionPlan) -> None:
    """Say which captions stay as they are, and why."""
    if found.conflicts:
        some = ", ".join(found.conflicts[:SHOWN]) + (", …" if len(found.conflicts) > SHOWN else "")
        screen.say(f"{counted(len(found.conflicts), 'caption')} skipped: {CONFLICT} ({some})")
    for post_id, why in islice(found.refused.items(), SHOWN):
        screen.say(f"1 caption failed: {why} ({post_id})")
    if len(found.refused) > SHOWN:
        screen.say(f"… and {len(found.refused) - SHOWN:,} more failed …")
    if LOST in found.refused.values():
        screen.say(SAVE_AS_UTF8)


Sending = Callable[[], AbstractContextManager[None]]


def send(api: Api, edits: list[CaptionEdit], key: str, sending: Sending = nullcontext) -> CaptionPlan:
    """Edit the captions. The outcome: `edits` that were applied, and the others. `key`: what the Idempotency-Keys of
    these edits begin with: sent again, nothing is edited twice. `sending`: entered for each batch; it may raise.
    """
    done = CaptionPlan()
    for edit, error in _sent(api, edits, key, sending):
        if error is None:
            done.edits.append(edit)
        elif error.code == "precondition_failed":
            done.conflicts.append(edit.post_id)
        else:
            done.refused[edit.post_id] = str(error)
    return done


def _sent(
    api: Api, edits: list[CaptionEdit], key: str, sending: Sending
) -> Iterator[tuple[CaptionEdit, RefusedError | None]]:
    """Each edit with its error. One place knows how many edits reach the API at once."""
    for name, batch in _batches(edits, key):
        with sending():
            fates = _fates(api, batch, name, key)
        yield from zip(batch, fates, strict=True)


def _fates(api: Api, batch: list[CaptionEdit], name: str, key: str) -> list[RefusedError | None]:
    try:
        return _together(api, batch, name)
    except RefusedError as refused:
        if refused.status not in (404, 405):
            raise
        # An API of the version before takes one edit in a request.
        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(lambda edit: _alone(api, edit, f"{key}-{edit.post_id}"), batch))


def _batches(edits: list[CaptionEdit], key: str) -> Iterator[tuple[str, list[CaptionEdit]]]:
    """What goes in one request, with its Idempotency-Key."""
    for first in range(0, len(edits), BATCH):
        yield f"{key}-{first}", edits[first : first + BATCH]


def _together(api: Api, batch: list[CaptionEdit], key: str) -> list[RefusedError | None]:
    items = [{"postId": one.post_id, "ifMatch": f'"{one.revision}"', "caption": one.caption} for one in batch]
    fates: list[dict[str, Any]] = []
    for _ in range(TRIES):
        # The same key again: a repeat edits nothing, and waits for the edits that are still queued.
        headers = {"Idempotency-Key": key, "Prefer": "wait=30"}
        fates = api.json("POST", EDITS, json={"edits": items}, headers=headers)["data"]
        if all(fate["status"] != "queued" for fate in fates):
            break
    return [_error(fate) for fate in fates]


def _error(fate: Mapping[str, Any]) -> RefusedError | None:
    if fate["error"] is not None:
        return RefusedError(409, fate["error"]["message"], fate["error"]["code"])
    return None if fate["status"] == "applied" else RefusedError(409, QUEUED.format(fate["editId"]), "queued")


def _alone(api: Api, edit: CaptionEdit, key: str) -> RefusedError | None:
    headers = {"If-Match": f'"{edit.revision}"', "Idempotency-Key": key[-255:], "Prefer": "wait=30"}
    try:
        for _ in range(TRIES):
            answer = api.answer("PATCH", f"/v1/posts/{edit.post_id}", json={"caption": edit.caption}, headers=headers)
            if answer.status_code == 200:
                return None
    except RefusedError as refused:
        if refused.status in (401, 403, 405) or refused.status >= 500:
            raise
        return refused
    return RefusedError(202, QUEUED.format(answer.headers.get("edit-id", "")), "queued")


def queued(api: Api, edits: list[CaptionEdit], key: str) -> dict[str, str]:
    """Those of the edits that were sent under this key and do not come to their end while this waits; why, by post."""
    left: dict[str, str] = {}
    for name, batch in _batches(edits, key):
        try:
            known = api.knows(EDITS, name)
        except RefusedError as refused:
            if refused.status not in (404, 405):
                raise
            return left  # an API of the version before, which was sent single edits
        if known:
            fates = zip(batch, _together(api, batch, name), strict=True)
            left |= {edit.post_id: str(error) for edit, error in fates if error and error.code == "queued"}
    return left


def undo(api: Api, edits: list[CaptionEdit]) -> CaptionPlan:
    """Give these posts their old captions back, where they still have the ones that were set."""
    by_id = {edit.post_id: edit for edit in edits}
    back = CaptionPlan()
    for post_id, post in Posts(api).each(by_id):
        edit = by_id[post_id]
        if post is not None and same_caption(post["caption"], edit.caption):
            _judge(back, post, post["revision"], edit.before, of_file=False)
    done = send(api, back.edits, new_id("cli"))
    done.refused |= back.refused
    return done


def as_json(found: CaptionPlan) -> dict[str, Any]:
    """The counters, as those of a job."""
    counts = {"applied": len(found.edits), "skipped": len(found.conflicts), "failed": len(found.refused)}
    return {"captions": {"total": sum(counts.values())} | counts}


def differing(before: str, after: str) -> tuple[str, str]:
    """Some words of two captions, from where they begin to differ."""
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False)))
    begin = max(0, same - BEFORE) if same > WORDS // 2 else 0
    shown = (" ".join(one[begin : begin + 4 * WORDS].split()) for one in (before, after))
    one, other = (printable(f"{'…' * (begin > 0)}{words}", WORDS) for words in shown)
    return one, other
