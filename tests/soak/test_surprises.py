"""What a soak's report says of the logs: a traceback by its error, and not by its first line."""

import json

from tests.soak.stack import surprises_in

WHOLE = 'Traceback (most recent call last):\n  File "a.py", line 1, in a\nValueError: no'


def test_a_traceback_counts_by_its_error_and_role() -> None:
    lines = [
        "api     | Traceback (most recent call last):",
        '{"event": "of nobody"}',
        'api     |   File "a.py", line 1, in a',
        "edits   | all is well",
        "api     | ",
        "api     | ValueError: no",
        f"beat    | {json.dumps({'event': 'died', 'exception': WHOLE})}",
        "ops     | it raised unexpected: x",
        "flower  | Traceback (most recent call last):",
    ]
    assert surprises_in(lines) == {
        "api: ValueError: no": 1,
        "beat: ValueError: no": 1,
        "raised unexpected": 1,
        "flower: Traceback (most recent call last)": 1,
    }
