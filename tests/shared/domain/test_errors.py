"""Every error has its code and its words, and keeps them on its way through a broker and the edit's row."""

import pickle

import pytest

from shared.domain import errors
from shared.domain.errors import Detail, InvalidRequest

EVERY_ERROR = [
    (InvalidRequest("Send it", code="invalid_content", details=[Detail("a", "b")]), "invalid_content"),
    (errors.NotFound.post("post_abc123"), "not_found"),
    (errors.NotFound.edit("edit_1"), "not_found"),
    (errors.NotFound.account("acc_1"), "not_found"),
    (errors.NotFound.reschedule("job_1"), "not_found"),
    (errors.CannotEdit("being published"), "cannot_edit"),
    (errors.Conflict("The job is done"), "conflict"),
    (errors.Discarded(), "discarded"),
    (errors.PreconditionFailed(7), "precondition_failed"),
    (errors.IdempotencyKeyReused(), "idempotency_key_reused"),
    (errors.RateLimited(12), "rate_limited"),
    (errors.TooManyJobs(20), "rate_limited"),
    (errors.Unavailable(1), "unavailable"),
    (errors.Unavailable(1, edit_id="edit_1"), "unavailable"),
    (errors.Internal(edit_id="edit_1"), "internal"),
]


@pytest.mark.parametrize(("error", "code"), EVERY_ERROR, ids=lambda value: type(value).__name__)
def test_every_error_has_its_code_and_survives_pickling_and_the_edits_row(error, code):
    assert error.code == code
    assert str(error) == error.message
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(again) is type(error)
    assert (again.__dict__, again.args) == (error.__dict__, error.args)
    stored = errors.restored(error.code, error.message, error.details, edit_id="edit_1")
    assert (stored.code, stored.message, stored.details) == (error.code, error.message, error.details)
    assert stored.edit_id == "edit_1"


def test_the_messages_that_the_spec_quotes_are_its_words():
    assert errors.NotFound.post("post_abc123").message == "Post post_abc123 not found"
    assert errors.Internal().message == "An unexpected error occurred"
    refused = errors.CannotEdit("posted")
    assert refused.message == "Only posts with status 'generated' or 'pending_render' can be edited"
    assert refused.details == (Detail("status", "posted"),)
    restored = errors.restored(refused.code, refused.message, refused.details)
    assert isinstance(restored, errors.CannotEdit)
    assert restored.label == "posted"
    assert "may have been accepted; ask GET /v1/edits/edit_1" in errors.Unavailable(edit_id="edit_1").message


def test_an_error_of_another_version_keeps_its_words():
    error = errors.restored("post_on_the_moon", "Come back", [Detail("a", "b")])
    assert (type(error), error.code, error.message) == (errors.Restored, "post_on_the_moon", "Come back")
    failed = errors.restored("precondition_failed", "Read it again")
    assert isinstance(failed, errors.PreconditionFailed)
    assert failed.revision is None


def test_a_name_is_quoted_short_and_printable():
    assert errors.printable("post_abc123") == "post_abc123"
    assert errors.printable("a\0\ud800\u202e") == "a\\x00\\ud800\\u202e"
    assert len(errors.printable("x" * 1_000)) == 64
