"""What a request for a bulk job may say. Refusals one by one stand in tests/api/test_reschedules.py."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json, to_json

from shared.domain.errors import InvalidRequest
from shared.domain.reschedule_requests import (
    Item,
    Request,
    parse_request,
)
from shared.domain.reschedules import ItemPlan, Shift, Spread
from shared.domain.times import Duration

ITEM = {"postId": "post_1", "scheduledTime": "2030-01-01T12:00", "timezone": "Asia/Tokyo"}
NAMES = (
    "filter", "shift", "spread", "items", "dryRun", "all", "accountIds", "platform", "scheduledFrom", "scheduledTo",
    "postIds", "from", "to", "timezone", "postId", "scheduledTime",
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["P1D", "2030-01-01T12:00", "Asia/Tokyo"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(), inner, max_size=5),
    max_leaves=12,
)


@given(JSON)
def test_whatever_json_comes_it_is_a_request_or_an_invalid_one(body: Any) -> None:
    try:
        assert isinstance(parse_request(body), Request)
    except InvalidRequest as refused:
        json.dumps([refused.message, [detail.field for detail in refused.details]])


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"filter": {"all": True}, "shift": "P1D"}, Request(Shift(Duration(1, 0)), {"all": True})),
        (
            {"filter": {"accountIds": ["a", "b"], "platform": "tiktok"}, "shift": "-PT90M", "dryRun": True},
            Request(Shift(Duration(0, -5400)), {"accountIds": ["a", "b"], "platform": "tiktok"}, dry_run=True),
        ),
        (
            {
                "filter": {
                    "postIds": ["p"],
                    "scheduledFrom": "2030-01-01T00:00Z",
                    "scheduledTo": "2030-02-01T00:00:00Z",
                },
                "spread": {"from": "2030-06-01T09:00", "to": "2030-06-01T09:00", "timezone": "Europe/Paris"},
            },
            Request(
                Spread(datetime(2030, 6, 1, 7, tzinfo=UTC), datetime(2030, 6, 1, 7, tzinfo=UTC), "Europe/Paris"),
                {"scheduledFrom": "2030-01-01T00:00:00Z", "scheduledTo": "2030-02-01T00:00:00Z", "postIds": ["p"]},
            ),
        ),
        # What only the moment decides is no fault of the request: a time gone by, and one in a gap.
        (
            {"items": [ITEM, {"postId": "b", "scheduledTime": "2020-03-29T02:30", "timezone": "Europe/Paris"}]},
            Request(
                ItemPlan(),
                items=(
                    Item("post_1", ITEM["scheduledTime"], "Asia/Tokyo"),
                    Item("b", "2020-03-29T02:30", "Europe/Paris"),
                ),
            ),
        ),
    ],
)  # fmt: skip
def test_a_request_is_read(body: Any, expected: Request) -> None:
    assert parse_request(body) == expected


def test_a_filter_is_stored_as_a_client_would_send_it() -> None:
    meant = {"accountIds": ["a"], "platform": "tiktok", "scheduledFrom": "2030-01-01T00:00:00Z", "postIds": ["p"]}
    assert parse_request({"filter": meant, "shift": "P1D"}).filter == meant


def test_items_are_stored_as_lists() -> None:
    assert from_json(to_json(parse_request({"items": [ITEM]}).items)) == [list(ITEM.values())]


def test_a_near_miss_is_answered_with_the_name_that_was_meant() -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_request({"filter": {"account_ids": ["a"]}, "shift": "P1D"})
    assert "did you mean accountIds?" in refused.value.message


def test_all_faults_of_one_item_are_named_at_once() -> None:
    items = [ITEM | {"postId": str(number)} for number in range(7)]
    with pytest.raises(InvalidRequest) as refused:
        parse_request({"items": [*items, {"postId": 5, "scheduledTime": "noon"}]})
    assert {detail.field for detail in refused.value.details} == {
        "items[7].postId", "items[7].scheduledTime", "items[7].timezone",
    }  # fmt: skip
