"""Pages are read by people who have never seen this code: their sentences are short."""

import pytest

from tests.docs.pages import PAGES, sentences, text_of, words

MEAN = 20
"""Words of a sentence, in the mean of a page."""


@pytest.mark.parametrize("page", PAGES)
def test_the_mean_sentence_of_a_page_is_short(page: str) -> None:
    found = sorted(sentences(text_of(page)), key=words, reverse=True)
    mean = sum(map(words, found)) / len(found)
    assert mean <= MEAN, f"{mean:.1f} words; the longest: {found[:5]}"


def test_what_counts_as_a_sentence() -> None:
    page = (
        "# Not this one\n\nOne two. Three\nfour five!\n\n| not | this |\n|---|---|\n\n- Six `seven eight. nine` ten\n"
    )
    page += "- [Eleven](twelve.md) thirteen\n  fourteen.\n\n```sh\nnot this\n```\n"
    assert sentences(page) == ["One two.", "Three four five!", "Six code ten", "Eleven thirteen fourteen."]
