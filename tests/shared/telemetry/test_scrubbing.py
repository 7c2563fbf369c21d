"""What lines hold of other people's text: no secrets, no control characters, and a bounded amount of it."""

from datetime import UTC, datetime
from typing import Any

import pytest

from shared.domain import fields
from shared.domain.edits import PLAIN, PlainField
from shared.telemetry import scrubbing
from shared.telemetry.scrubbing import FIELD_MAX, ITEMS_MAX


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("https://cdn.example.com/a.mp4?token=secret", "https://cdn.example.com/…"),
        ("to https://user:secret@cdn.example.com:8443/a b", "to https://cdn.example.com:8443/… b"),
        (
            "postgresql+psycopg://redraft:secret@127.0.0.1:5432/db failed",
            "postgresql+psycopg://127.0.0.1:5432/… failed",
        ),
        ("http://a.example/", "http://a.example/"),
        ("http://u:p@a.example", "http://a.example"),
        ("x://u:secret@h/secret y://u:secret@h?secret", "x://h/… y://h/…"),
        ("'https://a.example/secret', 'no'", "'https://a.example/…', 'no'"),
        ("no scheme ://u:p@h/x", "no scheme ://u:p@h/x"),
        ("a key sk_secret-1 and Bearer  sk_secret", "a key [key] and [key]"),
        ("nothing of the kind: a://", "nothing of the kind: a://"),
    ],
)
def test_secrets_of_urls_and_keys_are_gone(text: str, left: str) -> None:
    assert scrubbing.scrubbed(text) == left


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain, grüße 東京", "plain, grüße 東京"),
        ("\x1b[2J\x07\0", r"\x1b[2J\x07\x00"),
        ("a\nb\rc\td\x7f", r"a\nb\rc\td\x7f"),
        ("\x85\x9b31m", r"\x85\x9b31m"),
        ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
        ("\u202efdp.exe\u2066\u200f", r"\u202efdp.exe\u2066\u200f"),
        ("\ufeff\u200b\udcff", r"\ufeff\u200b\udcff"),
    ],
)
def test_nothing_unprintable_is_shown(text: str, line: str) -> None:
    assert scrubbing.shown(text) == line


@pytest.mark.parametrize("text", ["a" * 70_000, "\x1b" * 70_000, "\U0010ffff" * 70_000])
def test_a_text_is_cut_whatever_its_escapes_take(text: str) -> None:
    assert len(scrubbing.shown(text)) == FIELD_MAX
    assert scrubbing.shown(text).endswith("…")


def test_a_text_is_scrubbed_before_it_is_cut() -> None:
    """Half a password is one, and so is a password whose @ lay behind the cut."""
    assert "secret" not in scrubbing.clean("x " * 200 + "https://user:" + "secret" * 1000 + "@host/")


class Odd:
    def __str__(self) -> str:
        return "odd \x1b sk_secret"


@pytest.mark.parametrize(
    ("value", "left"),
    [
        (None, None),
        (True, True),
        (7, 7),
        (1.5, 1.5),
        (1 << 200, "a number of 201 bits"),
        (datetime(2030, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)),
        (["sk_secret", "\x1b"], ["[key]", r"\x1b"]),
        ({"caption": "secret", "a\n": "b\n"}, {r"a\n": r"b\n"}),
        (list(range(ITEMS_MAX + 2)), [*range(ITEMS_MAX), "+2"]),
        ({str(n): n for n in range(ITEMS_MAX + 2)}, {str(n): n for n in range(ITEMS_MAX)} | {"…": "+2"}),
        (ValueError("a caption"), "ValueError"),
        (Odd(), r"odd \x1b [key]"),
        (b"\x1b", r"b'\x1b'"),
    ],
)
def test_values_of_any_kind_are_cleaned(value: Any, left: Any) -> None:
    assert scrubbing.clean(value) == left


FIRST_COMMENT = PlainField("firstComment", "first_comment", fields.SoundId, nullable=True)


@pytest.mark.parametrize("name", ["caption", "captions", "Caption", "firstComment", "first_comment", "FIRSTCOMMENT"])
def test_a_field_that_is_added_to_the_plain_ones_is_blocked_by_both_its_names(name: str) -> None:
    assert scrubbing.blocked_names((*PLAIN, FIRST_COMMENT)).fullmatch(name)


def test_only_whole_names_are_blocked() -> None:
    blocked = scrubbing.blocked_names((*PLAIN, FIRST_COMMENT))
    assert not any(blocked.fullmatch(name) for name in ("comment", "firstComments", "caption_length", "post_id"))


@pytest.mark.parametrize("name", [name for plain in PLAIN for name in (plain.name, plain.attribute)])
def test_no_line_carries_a_plain_field(name: str) -> None:
    assert scrubbing.block(None, "", {name: "secret", "kept": {name: "secret"}}) == {"kept": {}, "blocked": [name]}
