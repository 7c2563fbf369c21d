"""`redraft posts export`: what waits, in a form that a spreadsheet takes and `redraft reschedule --csv` reads back."""

import csv
import io
import json
from typing import Any

import httpx
import pytest

from shared.cli.api_client import Api
from shared.cli.reschedule_csv import judged
from shared.cli.waiting_posts import POSTS
from tests import factories
from tests.shared.cli.rescheduling import command, numbers, redraft
from tests.stack import Running


def exported(stack: Running, *arguments: str) -> list[dict[str, str]]:
    result = redraft(stack, "posts", "export", "--csv", *arguments)
    assert result.exit_code == 0, result.output
    return list(csv.DictReader(io.StringIO(result.stdout_bytes.decode("utf-8-sig"), newline="")))


def test_what_waits_stands_by_time_with_local_time_zone_account_and_revision(stack: Running, account: str) -> None:
    late = stack.post(account_id=account, scheduled_time="2031-07-02T10:00Z", timezone="America/New_York")
    early = stack.slides(account_id=account, scheduled_time="2031-01-02T10:00Z", timezone="Asia/Tokyo", caption="")
    zoneless = stack.post(account_id=account, scheduled_time="2031-01-02T10:00:17Z", revision=7)
    stack.post(account_id=account, status="posted", posted_at=factories.soon(-5))
    assert exported(stack, "--account", account) == [
        {
            "postId": early, "scheduledTime": "2031-01-02T19:00", "timezone": "Asia/Tokyo", "account": account,
            "status": "pending_render", "revision": "1", "caption": "",
        },
        {
            "postId": zoneless, "scheduledTime": "2031-01-02T10:00", "timezone": "", "account": account,
            "status": "generated", "revision": "7", "caption": "first",
        },
        {
            "postId": late, "scheduledTime": "2031-07-02T06:00", "timezone": "America/New_York", "account": account,
            "status": "generated", "revision": "1", "caption": "first",
        },
    ]  # fmt: skip
    found = exported(stack, "--account", account, "--from", "2031-01-02T10:00:01Z", "--to", "2031-07-02T10:00Z")
    assert [row["postId"] for row in found] == [zoneless]
    result = redraft(stack, "posts", "export", "--json", "--account", account)
    assert [row["postId"] for row in json.loads(result.stdout)] == [early, zoneless, late]


def test_captions_that_a_spreadsheet_would_run_come_back_as_they_were(stack: Running, account: str) -> None:
    captions = ["=1+1", "@kim", "-5", "'=1", "+", 'a "b", c; d', "two\nlines", "tab\there", "ünï 🎉", "'"]
    at = {"account_id": account, "timezone": "Asia/Tokyo"}
    ids = {stack.post(caption=caption, **at): caption for caption in captions}
    result = redraft(stack, "posts", "export", "--csv", "--account", account)
    cells = [row["caption"] for row in csv.DictReader(io.StringIO(result.stdout_bytes.decode("utf-8-sig"), newline=""))]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    read = {line.post.post_id: line.post.caption for line in judged(io.BytesIO(result.stdout_bytes)) if line.post}
    assert read == ids


def test_a_file_that_was_exported_goes_back_and_a_post_without_a_zone_keeps_its_time(
    stack: Running, account: str
) -> None:
    zoned = stack.post(account_id=account, timezone="Asia/Tokyo", scheduled_time="2031-01-02T10:00Z")
    zoneless = stack.post(account_id=account, scheduled_time="2031-01-02T10:00:17Z")
    text = redraft(stack, "posts", "export", "--csv", "--account", account).stdout
    moved = text.replace("2031-01-02T19:00,Asia/Tokyo", "2031-01-03 19:00,Asia/Tokyo")
    result = command(stack, "--csv", "-", "--yes", stdin=moved)
    assert result.exit_code == 0, result.output
    assert "Without a time zone: 1 post; the time stays." in result.stderr
    assert stack.row("posts", zoned).scheduled_time.isoformat() == "2031-01-03T10:00:00+00:00"
    assert stack.row("posts", zoneless).revision == 1
    result = command(stack, "--csv", "-", "--yes", stdin=text.replace("2031-01-02T10:00,,", "2031-01-03T10:00,,"))
    assert result.exit_code == 2, result.output
    assert "timezone is empty; wanted: one of America/New_York" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--csv", "--account", "acc_of_nobody"], "there is no account acc_of_nobody; there are: acc_"),
        (["--csv", "--from", "yesterday"], "--from must be an RFC 3339 time in UTC"),
        (["--csv", "--json"], "say --csv or --json"),
        ([], "say --csv or --json"),
    ],
)
def test_bad_arguments_end_with_2_and_write_nothing(stack: Running, arguments: list[str], words: str) -> None:
    result = redraft(stack, "posts", "export", *arguments)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert words in result.stderr


def test_more_posts_than_a_page_holds_are_all_there_and_are_read_page_by_page(
    stack: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stack.engine.begin() as tx:
        account = factories.account(tx, f"acc_{next(numbers):03}")
        ids = {factories.post(tx, account_id=account) for _ in range(230)}
    asked = []
    answer = Api.answer

    def counted(api: Api, method: str, path: str, **given: Any) -> httpx.Response:
        asked.append(path)
        return answer(api, method, path, **given)

    monkeypatch.setattr(Api, "answer", counted)
    assert {row["postId"] for row in exported(stack, "--account", account)} == ids
    # A page of those that wait for their render, three of the others, and the first one again.
    assert asked == ["/v1/accounts", *["/v1/posts"] * 5]


def test_an_api_whose_lists_show_no_revision_is_asked_for_each_post(
    stack: Running, account: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    post = stack.post(account_id=account, revision=7)
    stack.post(account_id=account, claim_kind="publish", claim_token="clm", claim_expires_at=factories.soon(500))
    read = Api.json

    def older(api: Api, method: str, path: str, **given: Any) -> Any:
        page = read(api, method, path, **given)
        if path == POSTS:
            for one in page["data"]:
                del one["revision"]
        return page

    monkeypatch.setattr(Api, "json", older)
    assert [(row["postId"], row["revision"]) for row in exported(stack, "--account", account)] == [(post, "7")]
