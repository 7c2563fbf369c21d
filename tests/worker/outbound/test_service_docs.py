"""What docs/services.md tells those who write a service is what Redraft does."""

import re
from pathlib import Path
from typing import Any

import pytest

from shared.domain import events, service_answers
from shared.domain.start_rules import StartError
from shared.settings import Settings, settings
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
        ("whsec_1", f"t={'9' * 5000},v1=1", body, 1_764_025_300.0),
        ("whsec_1", header.partition(",")[0], body, 1_764_025_300.0),
        ("whsec_1", header.replace("v1=", "v2="), body, 1_764_025_300.0),
    ):
        assert not genuine(secret, told, given.encode(), now)


def test_a_secret_is_changed_by_the_documented_steps_and_no_request_is_refused() -> None:
    """Each step holds with workers that are restarted already and with those that are not, and with each service."""
    genuine = documented()["genuine"]
    section = PAGE.partition("## Changing the secret")[2].partition("\n## ")[0]
    set_to = [found[1] for found in re.finditer(r"`REDRAFT_SERVICE_SECRET=([\w,]+)`", section)]
    assert set_to == ["OLD,NEW", "NEW"]
    both, new = set_to
    steps = [({"OLD", both}, {"OLD"}), ({both}, {"OLD", "NEW"}), ({both, new}, {"NEW"})]
    for workers, receivers in steps:
        for ours in workers:
            for theirs in receivers:
                header = services.signature(Settings(service_secret=ours).service_secret, "{}", 1_764_025_200)
                assert genuine(theirs, header, b"{}", 1_764_025_300.0), (ours, theirs)
    assert not genuine("OLD", services.signature(new, "{}", 1_764_025_200), b"{}", 1_764_025_300.0)
    assert re.fullmatch(r"t=1764025200,v1=[0-9a-f]{64},v1=[0-9a-f]{64}", services.signature(both, "{}", 1_764_025_200))


@pytest.mark.parametrize("given", ["", "whsec_1", " with blanks ", "a,b"])
def test_a_secret_and_two_secrets_are_taken(given: str) -> None:
    assert Settings(service_secret=given).service_secret == given


@pytest.mark.parametrize(
    "given", ["hunter2,b,c", "hunter2,", ",hunter2", ",", "hunter2, b", "hunter2 ,b", " hunter2,b"]
)
def test_what_is_neither_one_secret_nor_two_stops_the_start_and_is_not_repeated(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDRAFT_SERVICE_SECRET", given)
    settings.cache_clear()
    with pytest.raises(StartError, match=r"REDRAFT_SERVICE_SECRET: .*one secret, or two with a comma") as refused:
        settings()
    assert "hunter2" not in str(refused.value)


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
