"""What docs/services.md tells those who write a service is what Redraft does."""

import re
from pathlib import Path
from typing import Any

from shared.domain import events, service_answers
from shared.settings import Settings
from shared.store.tables import metadata
from tests.reference_services import signatures
from worker.outbound import services

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/services.md").read_text()


def code() -> str:
    """The page's verification of signatures. tests/reference_services/test_verification.py runs its publisher."""
    found = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def documented() -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(code(), "docs/services.md", "exec"), names)  # noqa: S102  -- the page's own code, which is what is tested
    return names


def test_the_documented_verification_accepts_what_we_sign_and_nothing_else() -> None:
    genuine = documented()["genuine"]
    body = '{"caption": "ünïcode ✨"}'
    header = services.signature("whsec_1", body, 1_764_025_200)
    assert genuine("whsec_1", header, body.encode(), 1_764_025_300.0)
    for secret, told, given, now in (
        ("whsec_2", header, body, 1_764_025_300.0),
        ("whsec_1", header, body + " ", 1_764_025_300.0),
        ("whsec_1", header, body, 1_764_025_501.0),
        ("whsec_1", header, body, 1_764_024_899.0),
        ("whsec_1", header.replace("t=1764025200", "t=1764025201"), body, 1_764_025_300.0),
        ("whsec_1", "", body, 1_764_025_300.0),
        ("whsec_1", "t=²,v1=ü", body, 1_764_025_300.0),
        ("whsec_1", "v1=" + header.partition("v1=")[2], body, 1_764_025_300.0),
    ):
        assert not genuine(secret, told, given.encode(), now)


def test_the_verification_is_ten_lines_and_the_reference_services_use_the_same() -> None:
    assert len([line for line in code().splitlines() if line.strip() and '"""' not in line]) == 10
    source = Path(signatures.__file__).read_text()
    assert source.partition('"""\n\n')[2] == code()


def test_every_outcome_of_an_answer_stands_in_the_pages_table() -> None:
    table = [line for line in PAGE.splitlines() if line.startswith("| ")]
    for statuses in (service_answers.NOT_NOW, service_answers.MISCONFIGURED):
        assert any(", ".join(map(str, sorted(statuses))) in line for line in table), statuses


def test_every_variable_that_the_page_names_is_a_setting() -> None:
    for name in set(re.findall(r"REDRAFT_(\w+)", PAGE)):
        assert name.lower() in Settings.model_fields, name


def test_every_number_that_the_page_names_is_the_default() -> None:
    config = Settings.model_fields
    for words, setting in (
        (r"Up to (\d+) publishes", "publish_calls"),
        (r"(\d+) renders \(", "render_concurrency"),
        (r"(\d+) webhooks\n", "webhook_calls"),
        (r"The (\d+) s \(`REDRAFT_SERVICE_TIMEOUT`\)", "service_timeout"),
        (r"at most (\d+) tries within an hour", "tries_never_started"),
        (r"under the same key, (\d+) tries in all", "tries_unknown"),
    ):
        (number,) = re.findall(words, PAGE)
        assert int(number) == config[setting].default, setting


def test_every_type_of_event_stands_on_the_page() -> None:
    source = Path(events.__file__).read_text()
    types = set(re.findall(r'"((?:edit|post)\.[a-z]+)"', source)) | {"edit.rejected", "edit.failed"}
    assert types == set(re.findall(r"`((?:edit|post)\.[a-z]+)`", PAGE))
    assert "webhook_events" in metadata.tables
