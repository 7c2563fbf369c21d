"""What `redraft up --demo` puts into the database: a coffee roaster's workspace, a key, and 200 posts.

Its posts and tries are written past the store: nothing in the product may write a post that has gone out already.
The same at every start on every machine, but for the key's secret and for times, which count from now.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from random import Random
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, update

from shared.domain import times
from shared.domain.failure_classes import OUTCOME_UNKNOWN, PUBLISHER_UNAVAILABLE
from shared.domain.lifecycle import Status
from shared.domain.posts import Post
from shared.local.demo_tries import REFUSALS, ended_by, tries_of
from shared.settings import settings
from shared.store import counted, keys, tables
from shared.store import posts as posts_store
from shared.store.db import make_engine, transaction

WORKSPACE: Final = "ws_demo"
NAME: Final = "demo"
TIKTOK, INSTAGRAM = "acc_1a2b3c4d5e", "acc_2b3c4d5e6f"
PLATFORMS: Final = {TIKTOK: "tiktok", INSTAGRAM: "instagram"}
DOCUMENTED: Final = "post_abc123"
DAYS_AHEAD: Final = 3
POSTED, FAILED, PENDING, GENERATED = 60, 12, 24, 104
FAILED_TODAY: Final = 4  # those that `redraft doctor` finds: it looks at the last day
# Minutes from the start: a newcomer sees the first of them go out.
SOON: Final = (2, 4, 7, 11, 16, 45, 90, 150, 240, 360)
RENDERER_BACK: Final = timedelta(hours=1)

TOPICS: Final = (
    "pour-over at home",
    "our new Ethiopian beans",
    "latte art for beginners",
    "cold brew in a jar",
    "the perfect grind",
    "oat milk that does not split",
    "a six-minute espresso clean",
    "roasting day",
    "the corner shop's first year",
    "decaf that tastes of something",
    "water for coffee",
    "the moka pot",
    "a café playlist",
    "iced coffee without watering it down",
    "tasting like a pro",
    "the AeroPress",
    "beans and how to store them",
    "our baristas' own breakfast",
    "the farm in Huila",
    "coffee for a crowd",
)
ANGLES: Final = (
    "Everything we know about {}, in 30 seconds ☕ #coffeetok",
    "Three mistakes people make with {}. Number two was ours.",
    "POV: you finally understand {} 🙌",
    "You asked, we answered: {} #coffee #behindthebar",
    "Save this for the weekend: {}",
    "What nobody tells you about {} 👀",
    "A quiet morning, {} and no talking. Sound on.",
    "Before and after: {} #barista",
    "We spent a week on {}. Here is what stayed.",
    "Tell us below: your best tip for {} 👇",
)


def seed(database_url: str, *, secret: str | None = None) -> str:
    """Put the demo into a migrated database, or what is missing of it; the secret of its key.

    `secret` is the one that the caller keeps from start to start; without it each start makes a new one, and the last
    start's works no more. A key that was revoked works again: a start of the demo asks for one that does.
    If `post_abc123` can be edited no more, or went overdue while nothing ran, it waits again, some days ahead.
    """
    engine = make_engine(database_url, settings(), pool_size=1, name="redraft-demo")
    try:
        with transaction(engine) as tx:
            return _fill(tx, secret)
    finally:
        engine.dispose()


def _fill(tx: Connection, secret: str | None) -> str:
    if WORKSPACE not in {one.id for one in keys.workspaces(tx)}:
        _make_workspace(tx)
    secret = _key(tx, secret)
    now = posts_store.clock(tx)
    found, _ = posts_store.read_posts(tx, [DOCUMENTED])
    if not found:
        _make_posts(tx, now)
    # "skip": a post that is locked at this moment is in use, and must not be moved.
    for post in posts_store.lock_posts(tx, [DOCUMENTED], "skip").values():
        _put_back(tx, post, now)
    return secret


def _make_workspace(tx: Connection) -> None:
    try:
        keys.create_workspace(tx, NAME, workspace_id=WORKSPACE)
    except keys.NameTakenError:
        keys.create_workspace(tx, WORKSPACE, workspace_id=WORKSPACE)  # no other can have this one for its name
    for account_id, platform in PLATFORMS.items():
        keys.add_account(tx, WORKSPACE, platform, "harborcoffee", account_id=account_id)


def _key(tx: Connection, secret: str | None) -> str:
    """The key named demo, made or given this secret; a new one for None."""
    for entry in keys.keys_of(tx, WORKSPACE):
        if entry.key.name == NAME:
            secret = secret or keys.new_secret()
            if keys.hash_of(secret) not in keys.find_keys(tx, [keys.hash_of(secret)]):
                keys.renew_key(tx, entry.key.id, secret)
            return secret
    return keys.create_key(tx, WORKSPACE, NAME, keys.SCOPES, None, secret=secret)


def _put_back(tx: Connection, post: Post, now: datetime) -> None:
    """Let the documented request work again. A post that waits stays as its owner's edits left it."""
    facts = post.facts
    over = facts.status in {Status.POSTED, Status.FAILED} or facts.deleted
    # A claim may have been sent already: it runs to its end, and the next start puts the post back.
    missed = facts.claim is None and facts.status is Status.GENERATED and facts.scheduled_time <= now
    if not (over or missed):
        return
    # The publisher is to be asked anew, under a new key, which follows from the time of creation.
    tx.execute(delete(tables.publish_attempts).where(tables.publish_attempts.c.post_id == facts.id))
    written = tx.execute(
        update(tables.posts)
        .where(
            tables.posts.c.id == facts.id,
            tables.posts.c.status == facts.status.value,
            tables.posts.c.revision == facts.revision,
        )
        .values(
            status=Status.GENERATED.value,
            created_at=now,
            scheduled_time=_ahead(now, facts.timezone),
            revision=facts.revision + 1,
            schedule_revision=facts.schedule_revision + 1,
            posted_at=None,
            platform_post_id=None,
            failure_reason=None,
            failure_class=None,
            failure_message=None,
            failed_at=None,
            deleted_at=None,
            enqueued_revision=None,
            enqueued_at=None,
            retry_at=None,
        )
    )
    counted(written.rowcount, 1, "put back")


def _ahead(now: datetime, zone: str | None, days: int = DAYS_AHEAD, hour: int = 15, minute: int = 0) -> datetime:
    """That wall clock in a zone (UTC for None), `days` from today there. No clock changes at such hours."""
    local = times.to_local(now, zone).replace(hour=hour, minute=minute, second=0, microsecond=0) + timedelta(days=days)
    return times.to_instant(local, zone) if zone else local.replace(tzinfo=now.tzinfo)


def _make_posts(tx: Connection, now: datetime) -> None:
    rows = list(_rows(now))
    tx.execute(insert(tables.posts), rows)
    final = [row["id"] for row in rows if row["status"] in {Status.POSTED, Status.FAILED}]
    made, _ = posts_store.read_posts(tx, final)
    tries = [one for post_id in final for one in tries_of(made[post_id])]
    tx.execute(insert(tables.publish_attempts), tries)


def _rows(now: datetime) -> Iterator[dict[str, Any]]:
    """200 posts in all statuses. Whatever waits lies ahead: what is overdue would go out at once."""
    rng = Random(1971)  # noqa: S311 - believable, and the same everywhere
    captions = [angle.format(topic) for topic in TOPICS for angle in ANGLES]
    rng.shuffle(captions)
    kinds = [Status.POSTED] * POSTED + [Status.FAILED] * FAILED + [Status.PENDING_RENDER] * PENDING
    kinds += [Status.GENERATED] * (GENERATED - 1)
    soon = iter(SOON)
    yield _documented(now)
    for number, (status, caption) in enumerate(zip(kinds, captions[1:], strict=True), start=1):
        row = _content(rng, number, status) | {"caption": caption, "status": status.value}
        past = status in {Status.POSTED, Status.FAILED}
        days = rng.randint(-6, -1) if past else rng.randint(1, 29)
        zone = None if past and number % 12 == 0 else rng.choice(times.ZONES)
        at = _ahead(now, zone, days, rng.randint(8, 21), rng.choice((0, 0, 15, 30, 45)))
        if status is Status.FAILED and (recent := number - (POSTED + FAILED - FAILED_TODAY)) > 0:
            at = now.replace(second=0, microsecond=0) - timedelta(hours=3 * recent)
        if status is Status.GENERATED and (minutes := next(soon, None)) is not None:
            at = now.replace(second=0, microsecond=0) + timedelta(minutes=minutes + 1)
        # Made some days before its time, and before this start.
        made = min(at, now) - timedelta(minutes=rng.randint(120, 8_000), seconds=rng.randint(0, 59))
        row |= {"timezone": zone, "scheduled_time": at, "created_at": made.replace(microsecond=0)}
        if status is Status.PENDING_RENDER and number % 2:
            # The sandbox renders within seconds: these stay for a newcomer to look at, as after a renderer's outage.
            row["retry_at"] = now + RENDERER_BACK
        yield row | _end(rng, row, number)


def _documented(now: datetime) -> dict[str, Any]:
    """The post of the published page: the newest, so that lists begin with it."""
    zone = "America/New_York"
    video = {
        "content_type": "video",
        "content_url": "https://media.example.com/harbor/0000.mp4",
        "thumbnail_url": "https://media.example.com/harbor/0000.jpg",
        "sound_id": "7016547803243022337",
    }
    row = _row(DOCUMENTED, TIKTOK) | video
    return row | {
        "caption": "First pour of the day ☕",
        "status": Status.GENERATED.value,
        "timezone": zone,
        "scheduled_time": _ahead(now, zone),
        "created_at": now.replace(microsecond=0) - timedelta(minutes=5),
    }


def _row(post_id: str, account_id: str) -> dict[str, Any]:
    """Every column that any of the posts fills: one INSERT takes them all."""
    empty = (
        "sound_id",
        "slide_duration",
        "rendered_url",
        "posted_at",
        "platform_post_id",
        "failure_reason",
        "failure_class",
        "failure_message",
        "failed_at",
        "retry_at",
    )
    named = {"id": post_id, "workspace_id": WORKSPACE, "account_id": account_id, "platform": PLATFORMS[account_id]}
    return named | dict.fromkeys(empty) | {"render_as_video": False, "revision": 1}


def _content(rng: Random, number: int, status: Status) -> dict[str, Any]:
    """A video or slides; what waits for its render is slides to be rendered as video, as some others were."""
    account_id = rng.choice((TIKTOK, TIKTOK, INSTAGRAM))
    row = _row(f"post_{rng.getrandbits(40):010x}", account_id)
    media = f"https://media.example.com/harbor/{number:04}"
    if account_id == TIKTOK and rng.random() < 0.4:
        row["sound_id"] = str(rng.randrange(10**18, 9 * 10**18))
    rendered = status is Status.PENDING_RENDER or rng.random() < 0.15
    if not rendered and rng.random() < 0.65:
        return row | {"content_type": "video", "content_url": f"{media}.mp4", "thumbnail_url": f"{media}.jpg"}
    slides = [f"{media}-{place}.jpg" for place in range(1, rng.randint(3, 8) + 1)]
    row |= {"content_type": "slides", "content_url": slides, "thumbnail_url": None if rendered else slides[0]}
    if rendered:
        row |= {"render_as_video": True, "slide_duration": rng.choice((4, 6, 8))}
    if rendered and status is not Status.PENDING_RENDER:
        row |= {"rendered_url": f"{media}-rendered.mp4", "thumbnail_url": f"{media}-rendered.jpg", "revision": 2}
    return row


def _end(rng: Random, row: dict[str, Any], number: int) -> dict[str, Any]:
    """How a post of the past ended: gone out within seconds, or failed, each way of failing among them."""
    if row["status"] == Status.POSTED:
        long = 19 if row["platform"] == "tiktok" else 17
        return {
            "posted_at": row["scheduled_time"] + timedelta(milliseconds=rng.randint(300, 9_000)),
            "platform_post_id": str(rng.randrange(10 ** (long - 1), 10**long)),
            "revision": row["revision"] + 1,
        }
    if row["status"] == Status.FAILED:
        reasons = (*REFUSALS, PUBLISHER_UNAVAILABLE, OUTCOME_UNKNOWN)
        reason = reasons[number % len(reasons)]
        ended = ended_by(reason)
        *_, (_, failed_at) = ended.tries(row["scheduled_time"])
        return {
            "failure_reason": reason,
            "failure_class": ended.failure.value,
            "failure_message": ended.words,
            "failed_at": failed_at,
            "revision": row["revision"] + 1,
        }
    return {}
