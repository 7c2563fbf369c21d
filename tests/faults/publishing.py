"""Posts that are due, the services that they go to, and what must be true once they went out."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from tests import factories
from tests.faults.evidence import Call
from tests.faults.harness import Harness
from tests.reference_services.client import Reference
from tests.waiting import eventually

# A try's wait may be a quarter of an hour: it is cut short, as if that time had passed. A wait that is over stays so:
# a message that was lost is missed two seconds after it.
WAITS_END = text("""
    UPDATE posts p SET retry_at = CASE WHEN retry_at IS NOT NULL THEN least(retry_at, now()) END,
        claim_expires_at = CASE WHEN claim_kind IS NOT NULL THEN least(claim_expires_at, now()) END
    WHERE id = ANY(:ids) AND (retry_at > now() OR claim_kind = 'publish' AND (:all OR NOT EXISTS (
        SELECT FROM publish_attempts a WHERE a.claim_token = p.claim_token AND a.outcome IS NULL)))""")


@pytest.fixture
def reference(harness: Harness, tmp_path: Path) -> Reference:
    """Services that keep their journal over a restart; the harness's workers call them, and give up on them soon."""
    reference = Reference(harness.processes, journal=tmp_path / "journal")
    harness.environment |= reference.environment | {
        "REDRAFT_SERVICE_TIMEOUT": "1",
        "REDRAFT_CLAIM_EXPIRY": "4",
        "REDRAFT_RESCUE_PERIOD": "1",
    }
    return reference


def due(harness: Harness, count: int = 1, **columns: Any) -> list[str]:
    """Their ids follow from the test alone: a publisher that plays against us draws its game from them."""
    first = len(harness.first)
    with harness.engine.begin() as tx:
        ids = [
            factories.post(tx, f"due_{number:04}", **({"scheduled_time": factories.soon(-5)} | columns))
            for number in range(first, first + count)
        ]
    harness.remember(ids)
    return ids


def attempts(engine: Engine, post: str) -> list[str | None]:
    with engine.connect() as tx:
        found = tx.execute(text("SELECT outcome FROM publish_attempts WHERE post_id = :id ORDER BY id"), {"id": post})
        return list(found.scalars())


def posted(harness: Harness, *posts: str, within: float = 30) -> None:
    def all_posted() -> bool:
        left = {post: harness.row("posts", post).status for post in posts}
        assert set(left.values()) == {"posted"}, {post: status for post, status in left.items() if status != "posted"}
        return True

    eventually(all_posted, within=within, every=0.1)


def judged(harness: Harness, reference: Reference) -> list[dict[str, Any]]:
    """The oracle over rows and journal; the publishes that came, each with one body under its one key."""
    calls = reference.calls("publish")
    assert all(call["genuine"] for call in calls)
    assert not [call for call in calls if call["status"] == 422], "a key came with two bodies"
    harness.judge([Call(call["at"], call["key"], call["body"], call["status"]) for call in calls])
    return calls


def refused_as_being_published(harness: Harness, post: str, name: str) -> None:
    answer = harness.send(post, {"caption": name}, name, Prefer="wait=10")
    assert (answer.status, answer.answer["error"]["details"][0]["message"]) == (409, "being published"), answer


def waits_end(harness: Harness, posts: list[str], *, claims: bool = False) -> None:
    with harness.engine.begin() as tx:
        tx.execute(WAITS_END, {"ids": posts, "all": claims})


def all_end(harness: Harness, posts: list[str]) -> bool:
    """With a publisher that is calm, whatever is retried goes out."""
    left = []
    for post in posts:
        row = harness.row("posts", post)
        if row.status == "failed":
            assert harness.http.post(f"/v1/posts/{post}/retry").status_code in {200, 409}
        if row.status != "posted" and row.deleted_at is None:
            left.append(f"{post} {row.status} {row.claim_kind} {row.failure_reason}")
    waits_end(harness, posts)
    assert not left, left
    return True
