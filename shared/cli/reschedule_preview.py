"""The preview of `redraft reschedule`: what a planner can check before saying yes, made of a dry run's results."""

from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Final, NamedTuple

from shared.cli.api_client import RefusedError
from shared.cli.reschedule_client import Jobs
from shared.cli.reschedule_screen import Screen, Totals
from shared.cli.waiting_posts import Post, Posts
from shared.domain.errors import printable
from shared.domain.plurals import counted
from shared.domain.times import to_local

ENDS: Final = 5
"""Posts that are shown at the begin and at the end."""
MOST_DAYS: Final = 31
CAPTION: Final = 30
EXAMPLES: Final = 5
WARNINGS: Final = {"same_minute": "in the minute of another post of the account"}


class Move(NamedTuple):
    """One move, in the order of the new times. UTC, as results show it."""

    after: str
    post_id: str
    before: str


class Digest:
    """What the results of any number of posts come to, in little memory. Hours are UTC: every zone's days begin with
    one.
    """

    def __init__(self) -> None:
        self.first: list[Move] = []
        self.last: list[Move] = []
        self.before: Counter[str] = Counter()
        self.after: Counter[str] = Counter()
        self.moved = 0
        self.warnings: dict[str, tuple[int, list[str]]] = {}

    def add(self, row: Mapping[str, str]) -> None:
        if row["outcome"] != "applied":
            return
        move = Move(row["after"], row["postId"], row["before"])
        self.before[move.before[:13]] += 1
        self.after[move.after[:13]] += 1
        if move.before != move.after:
            self.moved += 1
            insort(self.first, move)
        if len(self.first) > ENDS:
            # What is no longer among the first may be among the last.
            insort(self.last, self.first.pop())
            del self.last[:-ENDS]
        if warning := row.get("warning"):
            count, some = self.warnings.get(warning, (0, []))
            self.warnings[warning] = count + 1, [*some, move.post_id][:EXAMPLES]


def preview(
    screen: Screen, jobs: Jobs, totals: Totals, names: Mapping[str, str], zone_of: Callable[[str], str | None]
) -> None:
    """Show what a dry run found. `names`: of accounts, by their ids; `zone_of`: the zone that a post is going to get,
    None for the one that it has.
    """
    digest = Digest()
    for job in totals.jobs:
        if job["applied"]:
            for row in jobs.results(job["id"], "applied"):
                digest.add(row)
    moves = [*digest.first, *digest.last]
    posts = _posts(jobs, [move.post_id for move in moves])
    zones = {
        move.post_id: zone_of(move.post_id) or (posts[move.post_id]["timezone"] if move.post_id in posts else None)
        for move in moves
    }
    between = digest.moved - len(moves)
    for place, move in enumerate(moves):
        if between > 0 and place == ENDS:
            screen.say(f"… {between:,} more …")
        _say_move(screen, move, zones[move.post_id], posts.get(move.post_id), names)
    if len(moves) > 1:
        screen.say()
        for line in _days(digest, Counter(zones.values()).most_common(1)[0][0]):
            screen.say(line)
        screen.say()
    screen.summary(jobs, totals)
    # An API of the version before does not say which of the others moved.
    counts = all(job.get("unchanged") is not None for job in totals.jobs)
    if counts and totals.moved > digest.moved:
        screen.say(f"{counted(totals.moved - digest.moved, 'post')} would get another zone at the same instant.")
    _say_warnings(screen, digest)


def _say_warnings(screen: Screen, digest: Digest) -> None:
    for warning, (count, some) in digest.warnings.items():
        words = WARNINGS.get(warning, warning.replace("_", " "))
        more = ", …" if count > len(some) else ""
        screen.say(f"Warning: {counted(count, 'post')} {words} ({', '.join(some)}{more})")


def _posts(jobs: Jobs, post_ids: list[str]) -> dict[str, Post]:
    """The posts that are shown. Their words are left out where the key may not read posts."""
    try:
        return {post_id: post for post_id, post in Posts(jobs.api).each(post_ids) if post is not None}
    except RefusedError as refused:
        if refused.status != 403:
            raise
        return {}


def _say_move(screen: Screen, move: Move, zone: str | None, post: Post | None, names: Mapping[str, str]) -> None:
    screen.say(f"{_clock(move.before, zone)} -> {_clock(move.after, zone)}  {zone or 'UTC'}")
    words = [move.post_id]
    if post is not None:
        words.append(printable(names.get(post["accountId"], post["accountId"]), 20))
        words.append(_first_words(post["caption"]))
    screen.say(f"    {'  '.join(words)}")


def _clock(instant: str, zone: str | None) -> str:
    """`Mon 2030-04-22 15:00`, in the post's zone."""
    return f"{to_local(datetime.fromisoformat(instant), zone):%a %Y-%m-%d %H:%M}"


def _first_words(caption: str) -> str:
    line = " ".join(caption[: 4 * CAPTION].split())
    return f'"{printable(line, CAPTION)}"'


def _days(digest: Digest, zone: str | None) -> Iterator[str]:
    """How many of these posts each day has, before and after."""
    before, after = _by_day(digest.before, zone), _by_day(digest.after, zone)
    days = sorted(before.keys() | after.keys())
    half = MOST_DAYS // 2
    left_out = len(days) - 2 * half if len(days) > MOST_DAYS else 0
    yield f"{'day in ' + (zone or 'UTC'):<32}{'before':>8}{'after':>8}"
    for place, day in enumerate(days):
        if left_out and half <= place < len(days) - half:
            if place == half:
                yield f"… {left_out:,} more days …"
            continue
        yield f"{datetime.fromisoformat(day):%a %Y-%m-%d}{'':<18}{before[day]:>8,}{after[day]:>8,}"


def _by_day(hours: Counter[str], zone: str | None) -> Counter[str]:
    days: Counter[str] = Counter()
    for hour, count in hours.items():
        days[to_local(datetime.fromisoformat(f"{hour}:00:00+00:00"), zone).date().isoformat()] += count
    return days
