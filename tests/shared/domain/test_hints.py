"""What a client probably meant: names, zones, times with an offset."""

import pytest

from api.models.edits import parse_patch
from shared.domain import hints, times
from shared.domain.errors import InvalidRequest
from shared.domain.reschedule_requests import parse_request


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("US/Eastern", "America/New_York"),
        ("us/pacific", "America/Los_Angeles"),
        ("EST", "America/New_York"),
        ("PST8PDT", "America/Los_Angeles"),
        ("europe/paris", "Europe/Paris"),
        ("Europe/Pariss", "Europe/Paris"),
        ("America/New York", "America/New_York"),
        ("America/NewYork", "America/New_York"),
        (" Asia/Tokyo ", "Asia/Tokyo"),
        ("Japan", "Asia/Tokyo"),
        ("Mars", None),
        ("", None),
        ("UTC", None),
        ("Europe/Paris" * 10_000, None),
    ],
)
def test_a_zone_that_was_meant(given: str, meant: str | None) -> None:
    assert hints.zone(given) == (f"; did you mean {meant}?" if meant else "")


def test_other_names_mean_zones_that_there_are() -> None:
    assert set(hints._OTHER_NAMES.values()) <= set(times.ZONES)
    assert all(name == name.lower() for name in hints._OTHER_NAMES)


@pytest.mark.parametrize(
    ("given", "zone", "send"),
    [
        ("2030-04-22T19:00:00Z", "America/New_York", "2030-04-22T15:00"),
        ("2030-04-22T19:00Z", "Asia/Tokyo", "2030-04-23T04:00"),
        ("2030-04-22T19:00:30.5+02:00", "Europe/Paris", "2030-04-22T19:00"),
        ("2030-04-22T19:00:00", "America/New_York", None),
        ("tomorrow", "America/New_York", None),
        ("0001-01-01T00:00+14:00", "America/New_York", None),
        ("2030-04-22T19:00:00Z" * 10_000, "America/New_York", None),
    ],
)
def test_a_time_with_an_offset_is_told_the_local_time_to_send(given: str, zone: str, send: str | None) -> None:
    found = hints.time(given, zone)
    assert found.endswith(f"in {zone} that is {send}, so send {send}") if send else found == ""


@pytest.mark.parametrize("zone", [None, "Mars", 5])
def test_without_a_zone_it_is_told_to_leave_the_offset_out(zone: object) -> None:
    assert hints.time("2030-04-22T19:00:00Z", zone).endswith("leave out the offset")


def test_a_post_as_get_shows_it_is_refused_with_what_can_only_be_read_and_the_local_time() -> None:
    shown = {
        "postId": "post_abc123",
        "caption": "x",
        "timezone": "America/New_York",
        "scheduledTime": "2030-04-22T19:00:00Z",
        "status": "generated",
    }
    with pytest.raises(InvalidRequest) as refused:
        parse_patch(shown)
    said = {detail.field: detail.message for detail in refused.value.details}
    assert set(said) == {"postId", "status", "scheduledTime"}
    assert said["status"].startswith('"status" can only be read; send only caption, ')
    assert "answers show UTC, requests take local time" in said["scheduledTime"]
    assert said["scheduledTime"].endswith("so send 2030-04-22T15:00")


def test_an_item_and_a_spread_are_told_too() -> None:
    item = {"postId": "a", "scheduledTime": "2030-04-22T19:00:00Z", "timezone": "Asia/Tokyo"}
    with pytest.raises(InvalidRequest, match="so send 2030-04-23T04:00"):
        parse_request({"items": [item]})
    spread = {"from": "2030-04-22T19:00:00Z", "to": "2030-05-01T00:00", "timezone": "Asia/Tokyo"}
    with pytest.raises(InvalidRequest, match="so send 2030-04-23T04:00"):
        parse_request({"filter": {"all": True}, "spread": spread})
    with pytest.raises(InvalidRequest, match=r"did you mean America/New_York\?"):
        parse_request({"items": [item | {"scheduledTime": "2030-04-22T19:00", "timezone": "EST"}]})
