"""The CSV of `redraft reschedule --csv` before anything is sent: the bad lines by name, and what the others ask for."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Final

from shared.cli import reschedule_csv
from shared.cli.reschedule_csv import Line
from shared.cli.reschedule_screen import Screen
from shared.cli.waiting_posts import Posts
from shared.domain.csv_lines import NOT_UTF8, SAVE_AS_UTF8, PlannedPost, fault_of_zone, occurs_twice
from shared.domain.plurals import counted

MOST_NAMED: Final = 50
"""Bad lines of a CSV that are named one by one."""


@dataclass(slots=True)
class Checked:
    """What a file holds. `zones`: the zone of each post that is to move, by its id; `captions`: the exported revision
    and the caption of each post that has them; `bad`: how many of the `lines` are; `not_utf8`: some for their bytes.
    """

    zones: dict[str, str] = field(default_factory=dict)
    captions: dict[str, tuple[int, str]] = field(default_factory=dict)
    lines: int = 0
    bad: int = 0
    not_utf8: bool = False
    twice: int = 0
    zoneless: list[tuple[Line, PlannedPost]] = field(default_factory=list)


def check(file: IO[bytes], first_line: int, posts: Posts, screen: Screen) -> Checked:
    """Read the file from this line on, and name its bad lines. Raises BadFileError, RefusedError, UnreachableError."""
    found = Checked()
    for line in reschedule_csv.judged(file):
        if line.number < first_line:
            continue
        found.lines += 1
        if line.post is None:
            _complain(found, line, line.fault, screen)
            continue
        if line.post.caption is not None and line.post.revision is not None:
            found.captions[line.post.post_id] = line.post.revision, line.post.caption
        if line.post.timezone:
            found.zones[line.post.post_id] = line.post.timezone
            found.twice += occurs_twice(line.post.local, line.post.timezone)
        else:
            found.zoneless.append((line, line.post))
    if found.zoneless:
        _check_zoneless(found, posts, screen)
    if found.bad > MOST_NAMED:
        screen.complain(f"… and {found.bad - MOST_NAMED:,} more bad lines")
    if found.not_utf8:
        screen.complain(SAVE_AS_UTF8)
    if found.twice:
        screen.complain(f"The clocks go back over {counted(found.twice, 'time')}; of the two, the first is meant.")
    return found


def bodies(file: IO[bytes], first_line: int) -> Iterator[dict[str, Any]]:
    """The requests that move the posts of the good lines. A post without a zone keeps its time."""
    lines = (line for line in reschedule_csv.judged(file) if line.number >= first_line)
    for part in reschedule_csv.parts(line.post for line in lines if line.post and line.post.timezone):
        yield {"items": part}


def _check_zoneless(found: Checked, posts: Posts, screen: Screen) -> None:
    """A post without a zone keeps its time, or needs a zone for another one."""
    now = dict(posts.each(post.post_id for _, post in found.zoneless))
    kept = 0
    for line, said in found.zoneless:
        post = now[said.post_id]
        if post is not None and post["timezone"] is None and post["scheduledTime"][:16] == said.local:
            kept += 1
        else:
            _complain(found, line, f"timezone {fault_of_zone('')}", screen)
    if kept:
        screen.complain(f"Without a time zone: {counted(kept, 'post')}; the time stays.")


def _complain(found: Checked, line: Line, fault: str, screen: Screen) -> None:
    found.bad += 1
    found.not_utf8 |= NOT_UTF8 in fault
    if found.bad <= MOST_NAMED:
        screen.complain(f"{line.place}: {fault}")
