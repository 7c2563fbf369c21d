"""Broken twins of the sample in docs/services.md: each fails the verification for what it lacks."""

import pytest

from tests.reference_services import verification
from tests.reference_services.sample import (
    AFTER,
    GUARD,
    HOLD,
    ID_OF_THE_KEY,
    LOOK_UP,
    NO_DEDUP,
    WORK,
    Sample,
    publisher,
    sample,
)

__all__ = ["sample"]

UNSIGNED = " if ours else (401, {})"

LONG_WORK = (WORK, WORK.replace("0.25", "1.5"))

# What is broken, how, which check finds it, whether it needs the list of effects, and what the report says.
TWINS = {
    "no guard": ([(GUARD, "if status")], verification.once_for_two_at_a_time, False, "No guard while a request"),
    "no guard, id of the key": (
        [(GUARD, "if status"), ID_OF_THE_KEY], verification.once_for_two_at_a_time, True, "No guard while a request"
    ),
    "no guard after a caller left": (
        [(GUARD, "if status"), ID_OF_THE_KEY, LONG_WORK], verification.once_though_the_caller_left, True,
        "No guard while a request",
    ),
    "guarded with a refusal": (
        [("(409, {", "(400, {")], verification.once_for_two_at_a_time, False, "Expected: 409 or 202 with Retry-After"
    ),
    "no Retry-After": (
        [('self.send_header("Retry-After", "1")', "pass")], verification.once_for_two_at_a_time, False, "No Retry-After"
    ),
    "no dedup": (NO_DEDUP, verification.it_publishes, False, "No memory of keys"),
    "no dedup, id of the key": ([*NO_DEDUP, ID_OF_THE_KEY], verification.it_publishes, True, "No memory of keys"),
    "no signature": ([(UNSIGNED, "")], verification.only_what_we_signed, True, "401 to a request without a signature"),
    "no age of the signature": (
        [("abs((now or time.time()) - int(sent)) > 300", "False")], verification.only_what_we_signed, False,
        "401 to a request signed ten minutes ago",
    ),
    "any body": (
        [("if known != digest", "if False")], verification.another_body_under_a_key, False, "No check of the body"
    ),
    "never publishes": ([("file.write(", "str(")], verification.it_publishes, True, "No post went out"),
    "always at work": ([(f"{GUARD}:", "if True:")], verification.it_publishes, False, "No post went out"),
    "platform down": ([(WORK, f"raise OSError('down')\n    {WORK}")], verification.it_publishes, False, "Seen: 503"),
    "a login page": (
        [("json.dumps(answer).encode()", 'b"<html>"')], verification.it_publishes, False, "Seen: 200 <html>"
    ),
    "no id": (
        [('f"demo_{uuid.uuid4().hex[:12]}"}', '""}\n    made = {}')], verification.it_publishes, False,
        "No platformPostId",
    ),
    "memory only": ([('"publisher.db"', '":memory:"')], verification.a_key_survives_a_restart, False, "Keys are lost"),
    "memory only, id of the key": (
        [('"publisher.db"', '":memory:"'), ID_OF_THE_KEY], verification.a_key_survives_a_restart, True, "Keys are lost"
    ),
    "no look at the platform after a crash": (
        [(LOOK_UP, "publish")], verification.a_key_survives_a_restart, True,
        "No look at the platform for a key without an answer. Expected: 1 effect",
    ),
    "at work for ever after a crash": (
        [(GUARD, "if status or not new")], verification.a_key_survives_a_restart, False,
        "a post that was under way at a restart",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TWINS)
def test_a_broken_twin_of_the_sample_fails_for_what_it_lacks(
    sample: Sample, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    changes, check, effects, says = TWINS[name]
    restart = check is verification.a_key_survives_a_restart
    sample.write(*changes, *([(AFTER, HOLD)] if restart else []))
    sample.start()
    under_test = publisher(sample, effects=effects, restart=restart, patience=5.0)
    assert not verification.verified(under_test, [check, verification.each_key_has_one_effect])
    said = capsys.readouterr().out
    assert says in said
    failed = [line for line in said.splitlines() if "Expected:" in line]
    assert failed
    assert all("Seen: " in line and "Seen: []" not in line for line in failed)
