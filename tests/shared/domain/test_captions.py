"""Captions are counted as each platform counts, and each limit holds at its very end."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain import captions
from shared.domain.errors import Faults

EMOJI, FAMILY = "\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467"
TIKTOK, SLIDES = ("tiktok", "video", False), ("tiktok", "slides", False)
RENDERED, INSTAGRAM = ("tiktok", "slides", True), ("instagram", "video", False)


def said(caption: str, subject: tuple[str, str, bool], *, unchanged: bool = False) -> list[str]:
    platform, kind, rendered = subject
    faults = Faults()
    captions.check(caption, captions.limits_of(platform, kind, render_as_video=rendered), faults, unchanged=unchanged)
    error = faults.error()
    if error is None:
        return []
    assert error.code == "invalid_caption"
    assert {detail.field for detail in error.details} == {"caption"}
    return [detail.message for detail in error.details]


@pytest.mark.parametrize(
    ("subject", "good", "bad", "words"),
    [
        (TIKTOK, "x" * 2_200, "x" * 2_201, "at most 2,200 UTF-16 code units"),
        (TIKTOK, "\u00e9" * 2_200, "\u00e9" * 2_345, "as a TikTok video and has 2,345"),
        (TIKTOK, EMOJI * 1_100, EMOJI * 1_100 + "x", "and has 2,201"),
        (TIKTOK, FAMILY * 275, FAMILY * 276, "and has 2,208"),
        (TIKTOK, "#a " * 733, "#a " * 734, "and has 2,202"),
        (SLIDES, "x" * 4_000, "x" * 4_001, "at most 4,000 UTF-16 code units"),
        (SLIDES, EMOJI * 2_000, EMOJI * 2_001, "as TikTok slides and has 4,002"),
        (RENDERED, "x" * 2_200, "x" * 2_201, "as a TikTok video and has 2,201"),
        (INSTAGRAM, "x" * 2_200, "x" * 2_201, "at most 2,200 characters on Instagram and has 2,201"),
        (INSTAGRAM, EMOJI * 2_200, EMOJI * 2_201, "on Instagram and has 2,201"),
        (INSTAGRAM, "#a " * 30, "#a " * 31, "at most 30 hashtags on Instagram and has 31"),
        (INSTAGRAM, "#a" * 30, "#a" * 31, "30 hashtags"),
        (INSTAGRAM, f"#{EMOJI}" * 30, f"#{EMOJI}" * 31, "30 hashtags"),
        (INSTAGRAM, "#\u65e5\u672c " * 30, "#\u65e5\u672c " * 31, "30 hashtags"),
        (INSTAGRAM, "@a " * 20, "@a " * 21, "at most 20 mentions on Instagram and has 21"),
        (("instagram", "slides", False), "@a " * 20, "@a " * 21, "20 mentions"),
    ],
)
def test_a_limit_holds_at_its_end(subject: Any, good: str, bad: str, words: str) -> None:
    assert said(good, subject) == []
    (message,) = said(bad, subject)
    assert words in message


@pytest.mark.parametrize(
    ("caption", "hashtags", "mentions"),
    [
        ("", 0, 0),
        ("# ## #. #- #", 0, 0),
        ("#1 #_ #a#b ##c", 5, 0),
        ("me@example.com, a.@b", 0, 0),
        ("@a, @b.c (@_d) @@e", 0, 4),
        ("@ @. @! x@y", 0, 0),
    ],
)
def test_what_is_a_hashtag_and_what_a_mention(caption: str, hashtags: int, mentions: int) -> None:
    _, of_hashtags, of_mentions = captions.LIMITS["instagram", "video"]
    assert (of_hashtags.count(caption), of_mentions.count(caption)) == (hashtags, mentions)


def test_all_that_is_wrong_is_said() -> None:
    assert len(said("#a @a " * 600, INSTAGRAM)) == 3


def test_a_caption_that_stands_is_said_to_stand() -> None:
    (message,) = said("x" * 2_201, TIKTOK, unchanged=True)
    assert "stands as it is" in message
    assert "send a shorter one with the new content" in message


@given(st.text(st.characters(codec="utf-8")))
def test_units_are_those_of_javascript(text: str) -> None:
    assert captions.utf16_units(text) == sum(1 + (ord(character) > 0xFFFF) for character in text)


@given(st.text(st.characters(codec="utf-8"), max_size=30).map(lambda text: text * 400))
def test_no_caption_that_any_post_takes_is_longer_than_the_document_says(text: str) -> None:
    if len(text) > captions.MOST:
        assert all(said(text, subject) for subject in (TIKTOK, SLIDES, RENDERED, INSTAGRAM))


@pytest.mark.parametrize("piece", ["#", "@", "#a", "@a", ".@", "a@", EMOJI, "# ", "_@_", "\u3000#"])
def test_the_longest_body_costs_work_in_proportion(piece: str) -> None:
    text = (piece * 131_072)[:131_072]
    began = time.process_time()
    for subject in (TIKTOK, SLIDES, INSTAGRAM):
        said(text, subject)
    assert time.process_time() - began < 2
