"""The operators' plots, from rows to bars, and the colours that all of the page is painted in."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, pool, text

from api.ops import access
from api.ops import plots as ops_plots
from shared.domain.ids import new_id
from shared.store import overview
from tests import factories


def test_the_last_hour_counts_what_was_recorded_and_how_long_it_waited(database_url: str) -> None:
    with create_engine(database_url, poolclass=pool.NullPool).begin() as tx:
        now = tx.execute(text("SELECT clock_timestamp()")).scalar_one()
        for minutes, wait in ((30, 2), (30, 4), (10, 1)):
            at = now.replace(second=30) - timedelta(minutes=minutes)
            tx.execute(
                text("""INSERT INTO edits (id, post_id, workspace_id, changes, requested_by, created_at, status,
                            finalized_at, revision)
                        VALUES (:id, 'post_x', 'ws_x', '{}', 'tests', :at, 'applied', :end, 1)"""),
                {"id": new_id("edit", at.timestamp()), "at": at, "end": at + timedelta(seconds=wait)},
            )
        minutes_of = overview.last_hour(tx, now)
        assert len(minutes_of) == 60
        assert minutes_of[-31].recorded == 2
        assert minutes_of[-31].longest_wait == pytest.approx(4)
        assert minutes_of[-31].median_wait == pytest.approx(3)
        assert minutes_of[-11].longest_wait == pytest.approx(1)
        assert minutes_of[-20].longest_wait is None
        assert sum(minute.recorded for minute in minutes_of) == 3


def test_lateness_is_told_minute_by_minute_and_says_where_it_was_cut_off(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with create_engine(database_url, poolclass=pool.NullPool).begin() as tx:
        now = tx.execute(text("SELECT clock_timestamp()")).scalar_one()
        for minutes, late in ((30, 2), (30, 5), (10, 1), (90, 9)):
            due = now.replace(second=10) - timedelta(minutes=minutes)
            gone = due + timedelta(seconds=late)
            post = factories.post(tx, status="posted", scheduled_time=due, posted_at=gone)
            tx.execute(
                text("""INSERT INTO publish_attempts (post_id, schedule_revision, idempotency_key, body, try_number,
                            claim_token, started_at, finished_at, outcome)
                        VALUES (:post, 1, :post, '{}', 1, :post, :at, :at, 'done')"""),
                {"post": post, "at": gone},
            )
        lateness = overview.lateness(tx, now)
        assert {place: late for place, late in enumerate(lateness.worst) if late is not None} == {29: 5.0, 49: 1.0}
        assert not lateness.truncated
        tx.execute(text("DELETE FROM publish_attempts WHERE started_at < now() - interval '1 h'"))
        monkeypatch.setattr(overview, "TRIES_LOOKED_AT", 2)
        assert overview.lateness(tx, now).truncated
        assert "Of the newest" in ops_plots.of(None, overview.lateness(tx, now), now)[0].summary


def test_a_plot_ends_at_a_round_number_and_shows_every_minute_there_is() -> None:
    rounds = [(0, 1), (0.03, 0.05), (1, 1), (1.1, 2), (26, 50), (200, 200), (201, 500), (5e5, 5e5), (0.001, 0.001)]
    assert [ops_plots.ceiling(most) for most, _ in rounds] == pytest.approx([top for _, top in rounds])
    now = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
    [plot] = ops_plots.of(None, overview.Lateness([None] * 58 + [0.0, 3.0], truncated=False), now)
    assert [bar.label for bar in plot.bars] == ["11:59: 0 ms", "12:00: 3.0 s"]
    assert all(bar.height >= 1.5 for bar in plot.bars)
    assert plot.rows[0] == ("11:01", "none went out")
    assert plot.rows[-1] == ("11:56", "3.0 s")


def palette(css: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", css))


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, 'contrast ratio'."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_palettes_have_the_contrast_of_wcag_aa(scheme: str) -> None:
    css = (Path(access.__file__).parent / "templates" / "style.css").read_text()
    light, dark = css.split("@media (prefers-color-scheme: dark)")[:2]
    colours = palette(light) | (palette(dark.split("\n}\n")[0]) if scheme == "dark" else {})
    pairs = [
        (ink, ground) for ink in ("text", "muted", "accent", "good", "warn", "bad") for ground in ("ground", "card")
    ]
    pairs += [(kind, f"{kind}-ground") for kind in ("good", "warn", "bad")] + [("on-accent", "accent")]
    low = {pair: round(contrast(colours[pair[0]], colours[pair[1]]), 2) for pair in pairs}
    assert {pair: ratio for pair, ratio in low.items() if ratio < 4.5} == {}
