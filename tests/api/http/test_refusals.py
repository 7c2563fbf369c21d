"""The errors of the HTTP edge have their codes and words, and keep them when they are pickled."""

import pytest

from api.http import refusals
from api.http.problems import STATUS
from shared.domain.errors import RedraftError
from tests.shared.domain.test_errors import (
    test_every_error_has_its_code_and_survives_pickling_and_the_edits_row as kept,
)

EVERY_REFUSAL = [
    (refusals.Unauthenticated(), "unauthenticated"),
    (refusals.Forbidden("bulk"), "forbidden"),
    (refusals.MethodNotAllowed(["GET", "PATCH"]), "method_not_allowed"),
    (refusals.PayloadTooLarge(131_072), "payload_too_large"),
    (refusals.UnsupportedMediaType(["application/json"]), "unsupported_media_type"),
    (refusals.UnsupportedEncoding(), "unsupported_media_type"),
]


@pytest.mark.parametrize(("error", "code"), EVERY_REFUSAL, ids=lambda value: type(value).__name__)
def test_every_refusal_has_its_code_and_status(error: RedraftError, code: str) -> None:
    kept(error, code)
    assert code in STATUS


def test_a_refusal_without_a_key_has_the_words_of_the_contract() -> None:
    assert refusals.Unauthenticated().message == "Invalid or missing API key"
