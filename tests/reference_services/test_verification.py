"""The sample of docs/services.md passes the verification, and what could not be checked is said. Real servers all.

Its broken twins stand in test_twins.py; which requests surely met, in test_meetings.py.
"""

import io
import re
import sys
from pathlib import Path

import pytest

from tests.docs.pages import blocks
from tests.ports import free_port
from tests.processes import ROOT, Processes
from tests.reference_services import client, verification
from tests.reference_services.client import Reference
from tests.reference_services.sample import AFTER, HOLD, ID_OF_THE_KEY, NO_DEDUP, PAGE, WORK, Sample, publisher, sample
from tests.reference_services.under_test import Publisher

__all__ = ["sample"]

RAISES_ONCE = "    flag = pathlib.Path('once')\n    if not flag.exists(): flag.touch(); raise "


def test_the_sample_passes_whole_and_dies_between_effect_and_answer(
    sample: Sample, capsys: pytest.CaptureFixture[str]
) -> None:
    sample.write((AFTER, HOLD))
    sample.start()
    assert verification.verified(publisher(sample, effects=True, restart=True))
    said = capsys.readouterr().out
    assert f"{len(verification.CHECKS)} passed, 0 failed, 0 not checked" in said
    assert "warning" not in said
    assert len(sample.effects) == len({one["key"] for one in sample.effects}) == 7


def test_the_page_is_right_as_typed(processes: Processes, tmp_path: Path) -> None:
    code = [block for block in blocks(PAGE) if block.info == "python"]
    assert len([line for line in code[2].text.splitlines() if line.strip()]) <= 40
    Sample(tmp_path, processes).write()
    for name in ("tests", "shared", "worker"):
        (tmp_path / name).symlink_to(ROOT / name)
    (typed,) = [block for block in blocks(PAGE) if "tests/reference_services/test_verification.py" in block.info]
    (printed,) = [block for block in blocks(PAGE) if "not checked" in block.text]
    port = str(free_port())
    script = f"cd '{tmp_path}'\nPATH='{Path(sys.executable).parent}':$PATH\n{typed.text.replace('9000', port)}"
    shell = processes.start(["sh", "-c", script], PORT=port, NO_PROXY="127.0.0.1")
    assert shell.wait(within=120) == 0, shell.output()
    assert shell.output() == printed.text
    assert int(re.findall(r"They\s+publish (\d+) posts", (ROOT / PAGE).read_text())[0]) == len(
        (tmp_path / "platform.jsonl").read_text().splitlines()
    )


def test_without_a_list_and_a_restart_the_report_says_what_was_not_checked(
    sample: Sample, capsys: pytest.CaptureFixture[str]
) -> None:
    sample.write(*NO_DEDUP, ID_OF_THE_KEY, ('"publisher.db"', '":memory:"'))
    sample.start()
    checks = [verification.it_publishes, verification.a_key_survives_a_restart, verification.each_key_has_one_effect]
    assert verification.verified(publisher(sample), checks)
    said = capsys.readouterr().out
    assert "not checked A key, its body and its answer" in said
    assert "give --restart COMMAND or --restart-by-hand" in said
    assert "not checked By the publisher's own list" in said
    assert "two effects under one platformPostId" in said
    assert "1 passed, 0 failed, 2 not checked" in said


def test_what_is_doubtful_is_warned_of(sample: Sample, capsys: pytest.CaptureFixture[str]) -> None:
    sample.write(
        ('"Retry-After", "1"', '"Retry-After", "0"'), ('{"platformPostId": f', '{"error": "none", "platformPostId": f')
    )
    sample.start()
    assert verification.verified(publisher(sample), [verification.once_for_two_at_a_time])
    said = capsys.readouterr().out
    assert "warning     Retry-After: 0 asks for the next request at once" in said
    assert "warning     A 2xx says that the post is out, and its body tells of an error" in said


def test_the_sample_gives_a_refusal_again_after_a_restart_too(sample: Sample) -> None:
    sample.write((WORK, f'{RAISES_ONCE.lstrip()}Refused("never")\n    {WORK}'))
    sample.start()
    under_test = publisher(sample)
    body = under_test.body()
    first, again = under_test.call(body, "pub_1"), under_test.call(body, "pub_1", 2)
    sample.kill()
    sample.start()
    assert first.status == 422
    assert first.text == again.text == under_test.call(body, "pub_1", 3).text == '{"error": {"message": "never"}}'
    assert sample.effects == []


def test_the_sample_looks_a_post_up_after_an_error_of_the_platform(sample: Sample) -> None:
    sample.write((AFTER, f'{RAISES_ONCE}ValueError("half an answer")\n    return made'))
    sample.start()
    under_test = publisher(sample)
    body = under_test.body()
    assert [under_test.call(body, "pub_1", attempt).status for attempt in (1, 2, 3)] == [503, 200, 200]
    assert [one["key"] for one in sample.effects] == ["pub_1"]


def test_the_reference_publisher_passes_the_verification_as_typed(processes: Processes, tmp_path: Path) -> None:
    reference = Reference(processes, delay=0.3, journal=tmp_path / "journal")
    command = [sys.executable, "-m", "tests.reference_services.verification", f"{reference.url}/publish"]
    options = ["--rounds=2", f"--effects={reference.url}/effects"]
    checking = processes.start(command, *options, REDRAFT_SERVICE_SECRET=client.SECRET)
    assert checking.wait(within=60) == 0, checking.output()
    assert "6 passed, 0 failed, 1 not checked" in checking.output()
    assert reference.journal()["effects"] == 5


@pytest.mark.parametrize(
    ("listed", "found"),
    [
        ("", {}),
        ("[]", {}),
        ('{"key": "pub_1"}\n', {"pub_1": 1}),
        ('{"key": "pub_1"}\n{"key": "pub_2"}\n{"key": "pub_1"}\n', {"pub_1": 2, "pub_2": 1}),
        ('[{"key": "pub_1", "platformPostId": 7}]', {"pub_1": 1}),
        ("<html>", None),
        ('["pub_1"]', None),
        ('{"effects": []}', None),
    ],
)
def test_which_lists_of_effects_are_read(tmp_path: Path, listed: str, found: dict[str, int] | None) -> None:
    file = tmp_path / "effects"
    file.write_text(listed)
    result = verification.run(verification.each_key_has_one_effect, Publisher("", "", effects_at=str(file), settle=0.0))
    if found is None:
        assert "This check is set up wrongly. Expected: JSON objects with `key`" in result.failures[0]
    else:
        assert result.failures == []
        assert Publisher("", "", effects_at=str(file)).effects() == found


def test_a_list_that_is_not_there_fails_the_check(tmp_path: Path) -> None:
    result = verification.run(verification.each_key_has_one_effect, Publisher("", "", effects_at=str(tmp_path / "no")))
    assert "No such file" in result.failures[0]


@pytest.mark.parametrize(
    ("command", "says"),
    [("exit 3", "ends with 0. Seen: 3"), ("exec cat /dev/zero > /dev/null", "it still ran after 0.2 s")],
)
def test_a_restart_that_did_not_work_fails_the_check(sample: Sample, command: str, says: str) -> None:
    sample.write()
    sample.start()
    under_test = publisher(sample)
    under_test.restart = verification.by_command(command, 0.2)
    result = verification.run(verification.a_key_survives_a_restart, under_test)
    assert says in result.failures[0]


def test_a_restart_by_hand_waits_for_enter(
    sample: Sample, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    verification.by_hand()
    assert "Restart your publisher now, then press Enter" in capsys.readouterr().out
    sample.write()
    sample.start()
    under_test = publisher(sample)
    under_test.restart = verification.by_hand
    result = verification.run(verification.a_key_survives_a_restart, under_test)
    assert "Seen: the end of the input" in result.failures[0]
