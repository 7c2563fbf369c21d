"""The posts of a soak: a few hot ones, many cold ones, some to be rendered, some for bulk jobs, and ever new due."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from tests import factories
from tests.faults.evidence import PostRow, snapshot

HOT, COLD, SLIDES, BULK = 20, 20_000, 400, 2_000
DUE_EVERY, DUE_AT_ONCE, DUE_IN = 5.0, 20, 15
BULK_ACCOUNT = "acc_bulk"

_INSERT = text("""
    INSERT INTO posts (id, workspace_id, account_id, platform, content_type, content_url, caption, timezone,
        scheduled_time, status, render_as_video, slide_duration, created_at)
    SELECT :prefix || lpad(n::text, 6, '0'), :workspace, :account, 'tiktok',
        CASE WHEN :slides THEN 'slides' ELSE 'video' END,
        CASE WHEN :slides THEN '["https://cdn.example.com/1.jpg", "https://cdn.example.com/2.jpg"]'::jsonb
             ELSE '"https://cdn.example.com/a.mp4"'::jsonb END,
        'caption ' || n, 'Europe/Paris',
        date_trunc('second', now()) + make_interval(secs => :first + n * :step),
        CASE WHEN :slides THEN 'pending_render' ELSE 'generated' END,
        :slides, CASE WHEN :slides THEN 4 END, now() - interval '1 minute'
    FROM generate_series(1, :count) n""")
DAYS = 24 * 3600


@dataclass
class Posts:
    """What is edited, and how each post stood before anybody did."""

    engine: Engine
    first: dict[str, PostRow] = field(default_factory=dict)
    hot: Sequence[str] = ()
    cold: Sequence[str] = ()
    bulk: Sequence[str] = ()
    due: list[str] = field(default_factory=list)
    _batches: int = 0

    def make(self) -> None:
        """All but the due ones."""
        with self.engine.begin() as tx:
            factories.workspace(tx)
            factories.account(tx, BULK_ACCOUNT)
        self.hot = self._add("post_hot_", HOT, first=3 * DAYS)
        self.cold = [
            *self._add("post_cold_", COLD, first=3 * DAYS, step=60),
            *self._add("post_slides_", SLIDES, first=3 * DAYS, step=60, slides=True),
        ]
        self.bulk = self._add("post_bulk_", BULK, first=10 * DAYS, step=60, account=BULK_ACCOUNT)
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE posts"))

    def make_due(self) -> None:
        """Some more that go out in 15 to 35 seconds. With PostgreSQL away there are none this time."""
        self._batches += 1
        try:
            made = self._add(f"post_due_{self._batches:05}_", DUE_AT_ONCE, first=DUE_IN, step=1)
        except OperationalError:
            return
        self.due += made

    def any(self, rng: random.Random) -> str:
        """One to edit: nearly half of all edits meet a few posts, some meet a post about to go out."""
        chance = rng.random()
        if chance < 0.45:
            return rng.choice(self.hot)
        if chance < 0.85 or not self.due:
            return rng.choice(self.cold)
        return rng.choice(self.due[-6 * DUE_AT_ONCE :]) if chance < 0.95 else rng.choice(self.bulk)

    def _add(
        self,
        prefix: str,
        count: int,
        *,
        first: int,
        step: int = 0,
        slides: bool = False,
        account: str = factories.TIKTOK,
    ) -> list[str]:
        given = {"prefix": prefix, "count": count, "first": first, "step": step, "slides": slides, "account": account}
        ids = [f"{prefix}{number:06}" for number in range(1, count + 1)]
        try:
            with self.engine.begin() as tx:
                tx.execute(_INSERT, given | {"workspace": factories.WORKSPACE})
        finally:
            # Also where the commit's answer was lost: what is there is judged.
            self.first |= self._stand(ids)
        return ids

    def _stand(self, ids: Sequence[str]) -> dict[str, PostRow]:
        deadline = time.monotonic() + 60
        while True:
            try:
                return snapshot(self.engine, ids)
            except OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)  # PostgreSQL is starting again; asked until it answers
