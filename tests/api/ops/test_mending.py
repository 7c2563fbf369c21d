"""Failed edits on the operators' pages: by error with counts, and requeue and discard of many at once."""

import re
from collections.abc import Iterator
from html import unescape
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from api.ops import mending as page
from shared.local.postgres import PostgreSQL
from shared.local.valkey import Valkey
from shared.store import mending
from tests import factories
from tests.conftest import TEMPLATE, empty_database
from tests.factories import FAILED
from tests.loopback import LOOPBACK
from tests.stack import Running, running

PASSWORD = "correct horse"
OURS = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture(scope="module")
def stack(postgres: PostgreSQL, valkey: Valkey) -> Iterator[Running]:
    """Without any worker, so that rows stay as they are put."""
    url = postgres.create_database("api_ops_mending", template=TEMPLATE)
    environment = {"REDRAFT_OPS_PASSWORD": PASSWORD, "REDRAFT_OPS_USER": "kim"}
    with running(url, empty_database(valkey), **environment) as stack:
        yield stack


@pytest.fixture
def ops(stack: Running) -> Iterator[httpx.Client]:
    assert stack.api is not None
    with stack.engine.begin() as tx:
        tx.execute(text("TRUNCATE posts, edits, acts, webhook_events, webhook_tries"))
    with httpx.Client(base_url=stack.api.url, auth=("kim", PASSWORD), **LOOPBACK, timeout=30) as client:
        yield client


def edit(stack: Running, post_id: str, caption: str, state: str = FAILED) -> str:
    with stack.engine.begin() as tx:
        edit_id = factories.edit(tx, post_id, {"caption": caption})
        if state:
            tx.execute(text(f"UPDATE edits SET {state} WHERE id = :id"), {"id": edit_id})
    return edit_id


def read(ops: httpx.Client, path: str, status: int = 200) -> str:
    answer = ops.get(path)
    assert answer.status_code == status, answer.text
    return " ".join(unescape(answer.text).split())


def fields(ops: httpx.Client, path: str, act: str) -> dict[str, str]:
    """The fields of the form for that act on that page."""
    found = re.search(rf'action="/ops/failed-edits/{act}">(.*?)</form>', ops.get(path).text, re.DOTALL)
    assert found, act
    return {name: unescape(value) for name, value in re.findall(r'name="(\w+)" value="([^"]*)"', found[1])}


def press(ops: httpx.Client, act: str, form: dict[str, str]) -> httpx.Response:
    return ops.post(f"/ops/failed-edits/{act}", data=form, headers=OURS)


def statuses(stack: Running, ids: list[str]) -> list[str]:
    return [stack.row("edits", one).status for one in ids]


def acts(stack: Running) -> list[Any]:
    with stack.engine.connect() as tx:
        return list(tx.execute(text("SELECT actor, action, subject_id, from_state FROM acts ORDER BY id")).all())


def test_failed_edits_are_shown_by_error_and_a_group_is_requeued_at_once(stack: Running, ops: httpx.Client) -> None:
    homes = [stack.post() for _ in range(3)]
    ids = [edit(stack, home, "mine") for home in homes]
    odd = edit(stack, homes[0], "odd", FAILED.replace("'x'", "'odd & <b>bold</b>'"))
    later = edit(stack, homes[1], "later", "")
    raw = ops.get("/ops/failed-edits").text
    assert "odd &amp; &lt;b&gt;bold" in raw
    groups = re.findall(r'data-label="edits" class="number"><span>(\d+)</span>.*?href="([^"]+)"', raw, re.DOTALL)
    assert [count for count, _ in groups] == ["3", "1"]
    assert "4 failed edits in all." in read(ops, "/ops/failed-edits")
    address = unescape(groups[0][1])
    shown = read(ops, address)
    for words in (
        "3 edits of 3 posts",
        "1 edit would overwrite later changes of 1 post.",
        f'Posts edited since: <a class="id" href="/ops/posts/{homes[1]}">',
        "Requeue 3 edits, overwriting later changes of 1 post",
    ):
        assert words in shown
    answer = press(ops, "requeue", fields(ops, address, "requeue"))
    assert answer.headers["location"] == "/ops/failed-edits?act=requeued&done=3&left=0"
    assert "3 edits are queued again." in read(ops, answer.headers["location"])
    assert statuses(stack, [*ids, odd, later]) == ["queued"] * 3 + ["failed", "queued"]
    assert sorted(acts(stack)) == sorted(("kim", "requeue", one, "failed") for one in ids)
    assert "requeued by kim; before: failed, internal (x)" in read(ops, f"/ops/edits/{ids[0]}")


def test_what_a_filter_means_is_discarded_and_nothing_else(stack: Running, ops: httpx.Client) -> None:
    mine = edit(stack, stack.post(), "mine")
    other = edit(stack, stack.post(account_id=factories.INSTAGRAM, platform="instagram"), "other")
    listed = read(ops, f"/ops/edits?status=failed&account={factories.TIKTOK}")
    [address] = re.findall(r'href="(/ops/failed-edits/mend[^"]*)"', listed)
    assert '1 <code>internal</code> <span class="value">x</span>' in read(ops, address)
    assert f'account <span class="id">{factories.TIKTOK}</span>' in read(ops, address)
    answer = press(ops, "discard", fields(ops, address, "discard"))
    assert "1 edit is discarded, for good." in read(ops, answer.headers["location"])
    assert statuses(stack, [mine, other]) == ["rejected", "failed"]
    assert acts(stack) == [("kim", "discard", mine, "failed")]


@pytest.mark.parametrize("change", ["a later edit", "one more fails", "one is requeued"])
def test_what_the_operator_did_not_see_is_not_done(stack: Running, ops: httpx.Client, change: str) -> None:
    home = stack.post()
    ids = [edit(stack, home, "mine"), edit(stack, stack.post(), "other")]
    agreed = fields(ops, "/ops/failed-edits/mend", "requeue")
    if change == "a later edit":
        edit(stack, home, "came in between", "")
    elif change == "one more fails":
        ids.append(edit(stack, home, "newest"))
    else:
        single = ops.get(f"/ops/edits/{ids[0]}").text
        form = dict(re.findall(r'name="(\w+)" value="([^"]*)"', single.split("/requeue")[1].split("</form>")[0]))
        assert ops.post(f"/ops/edits/{ids[0]}/requeue", data=form, headers=OURS).status_code == 303
    answer = press(ops, "requeue", agreed)
    if change == "one more fails":
        # It has its place behind what was seen: it is left, and the others are requeued.
        assert (answer.status_code, statuses(stack, ids)) == (303, ["queued", "queued", "failed"])
    else:
        assert answer.status_code == 409
        assert "have changed since you looked" in answer.text
        assert statuses(stack, ids)[1] == "failed"
        press(ops, "requeue", fields(ops, "/ops/failed-edits/mend", "requeue"))
        assert statuses(stack, ids) == ["queued", "queued"]


def test_a_post_that_is_locked_elsewhere_is_left_and_told(stack: Running, ops: httpx.Client) -> None:
    free, contended = stack.post(), stack.post()
    ids = [edit(stack, free, "a"), edit(stack, contended, "b")]
    agreed = fields(ops, "/ops/failed-edits/mend", "requeue")
    with stack.engine.begin() as other:
        other.execute(text("SELECT FROM posts WHERE id = :id FOR UPDATE"), {"id": contended})
        answer = press(ops, "requeue", agreed)
    assert answer.headers["location"].endswith("done=1&left=1")
    assert "1 had changed or were locked elsewhere" in read(ops, answer.headers["location"])
    assert statuses(stack, ids) == ["queued", "failed"]


def test_of_more_than_one_press_mends_the_page_says_so(stack: Running, ops: httpx.Client) -> None:
    with stack.engine.begin() as tx:
        tx.execute(
            text("""
                INSERT INTO posts (id, workspace_id, account_id, platform, content_type, content_url, caption,
                    scheduled_time, status)
                SELECT 'post_many_' || g, 'ws_test', 'acc_tiktok', 'tiktok', 'video', '"https://e.com/a.mp4"', '',
                    now() + interval '1 day', 'generated' FROM generate_series(1, 700) g""")
        )
        tx.execute(
            text("""
                INSERT INTO edits (id, post_id, workspace_id, changes, requested_by, status, finalized_at, error_code,
                    error_message)
                SELECT 'edit_many_' || g, 'post_many_' || 1 + g % 700, 'ws_test', '{"caption": "x"}', 'tests', 'failed',
                    now(), 'internal', 'x' FROM generate_series(1, :count) g"""),
            {"count": page.AT_ONCE + 5},
        )
    shown = read(ops, "/ops/failed-edits/mend")
    assert "1,000 edits of 700 posts" in shown
    assert "These are the oldest; there are more." in shown
    answer = press(ops, "requeue", fields(ops, "/ops/failed-edits/mend", "requeue"))
    assert answer.headers["location"].endswith("done=1000&left=0")
    assert "5 edits of 5 posts" in read(ops, "/ops/failed-edits/mend")
    assert "there are more" not in read(ops, "/ops/failed-edits/mend")


def test_a_press_that_postgresql_ends_half_way_says_how_far_it_came(stack: Running, ops: httpx.Client) -> None:
    """The row of an edit of the second part is locked for longer than a statement waits."""
    many = mending.TOGETHER + 10
    ids = [edit(stack, stack.post(), "mine") for _ in range(many)]
    agreed = fields(ops, "/ops/failed-edits/mend", "requeue")
    with stack.engine.begin() as other:
        other.execute(text("SELECT FROM edits WHERE id = :id FOR UPDATE"), {"id": ids[-1]})
        answer = press(ops, "requeue", agreed)
    assert answer.headers["location"].endswith(f"done={mending.TOGETHER}&left=0&rest=10")
    assert "10 may not have been done. Do it again for the rest." in read(ops, answer.headers["location"])
    press(ops, "requeue", fields(ops, "/ops/failed-edits/mend", "requeue"))
    assert set(statuses(stack, ids)) == {"queued"}
    assert len(acts(stack)) == many


@pytest.mark.parametrize("act", ["requeue", "discard"])
def test_a_form_from_another_site_or_without_its_token_does_nothing(
    stack: Running, ops: httpx.Client, act: str
) -> None:
    failed = edit(stack, stack.post(), "mine")
    form = fields(ops, "/ops/failed-edits/mend", act)
    for given, headers in (
        (form, {"Sec-Fetch-Site": "cross-site"}),
        (form | {"token": ""}, OURS),
        (
            form
            | {"token": fields(ops, "/ops/failed-edits/mend", {"requeue": "discard"}.get(act, "requeue"))["token"]},
            OURS,
        ),
    ):
        answer = ops.post(f"/ops/failed-edits/{act}", data=given, headers=headers)
        assert answer.status_code == 403
    for broken in ({"up_to": ""}, {"up_to": "x"}, {"filter": "post=%00"}):
        assert press(ops, act, form | broken).status_code == 400
    assert press(ops, act, form | {"seen": "other"}).status_code == 409
    assert statuses(stack, [failed]) == ["failed"]


@pytest.mark.parametrize("query", ["error=%00", f"error={'x' * 256}", "group=other", "account=nobody"])
def test_a_filter_that_means_nothing_does_not_mean_all(stack: Running, ops: httpx.Client, query: str) -> None:
    failed = edit(stack, stack.post(), "mine")
    shown = ops.get(f"/ops/failed-edits/mend?{query}")
    assert (shown.status_code, failed in shown.text, "<form method" in shown.text) == (200, False, False)
    form = fields(ops, "/ops/failed-edits/mend", "requeue")
    assert press(ops, "requeue", form | {"filter": query}).status_code in {400, 409}
    assert statuses(stack, [failed]) == ["failed"]


def test_without_failed_edits_the_pages_say_so(ops: httpx.Client) -> None:
    assert '<p class="muted">None.</p>' in read(ops, "/ops/failed-edits")
    assert "No failed edit matches." in read(ops, "/ops/failed-edits/mend?error=nothing")
    assert "There is no workspace nobody." in read(ops, "/ops/failed-edits/mend?workspace=nobody")
