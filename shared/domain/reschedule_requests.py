"""What a request for a bulk job may say, and every rule about it that needs no database (docs/bulk.md). Pure.

`parse_request` reads the body of POST /v1/reschedules; the command line reads CSV by the same `check_item`. Rules
that depend on the moment (a time that has passed, one that a clock change skips) are left to the worker.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from shared.domain import times
from shared.domain.errors import Faults, InvalidRequest
from shared.domain.fields import UNSET, Unset, check_known, check_text
from shared.domain.reschedules import ItemPlan, Plan, Shift, Spread

MOST_ITEMS: Final = 10_000
"""Items, or ids in a filter, in one request."""

MAX_ID: Final = 255
PLATFORMS: Final = ("tiktok", "instagram")

FIELDS: Final = ("filter", "shift", "spread", "items", "dryRun")
FILTER_FIELDS: Final = ("all", "accountIds", "platform", "scheduledFrom", "scheduledTo", "postIds")
SPREAD_FIELDS: Final = ("from", "to", "timezone")
ITEM_FIELDS: Final = ("postId", "scheduledTime", "timezone")


class Item(NamedTuple):
    """One post and its new local time, as the client wrote it."""

    post_id: str
    local: str
    timezone: str


@dataclass(frozen=True, slots=True)
class Filter:
    """Which posts a job means; all conditions at once, none at all for every waiting post. Times aware, UTC.

    Posts named by id are meant in whatever state they are, others only while they wait to go live.
    """

    account_ids: tuple[str, ...] | None = None
    platform: str | None = None
    scheduled_from: datetime | None = None
    scheduled_to: datetime | None = None
    post_ids: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A valid request. `filter` is None where `items` name the posts."""

    plan: Plan
    filter: Filter | None = None
    items: tuple[Item, ...] = ()
    dry_run: bool = False


def parse_request(body: object) -> Request:
    """The job that a parsed JSON body asks for. Raises InvalidRequest, and nothing else whatever JSON it is given."""
    if not isinstance(body, dict):
        raise InvalidRequest("The body must be a JSON object; send a filter with a shift or a spread, or items")
    faults = Faults()
    check_known(body, FIELDS, faults)
    dry_run = body.get("dryRun", False)
    if not isinstance(dry_run, bool):
        faults.add("invalid_request", "dryRun", "dryRun must be true or false")
    kinds = [name for name in ("shift", "spread", "items") if name in body]
    if len(kinds) != 1:
        given = f"holds {' and '.join(kinds)}" if kinds else "has none of the three"
        faults.add("invalid_request", "body", f"The body {given}; send exactly one of shift, spread and items")
        raise _error(faults)
    items: tuple[Item, ...] = ()
    plan: Plan | Unset = ItemPlan()
    if kinds == ["items"]:
        if "filter" in body:
            faults.add("invalid_request", "filter", "items name their posts themselves; leave filter out")
        items = _check_items(body["items"], faults)
    else:
        plan = check_shift(body["shift"], faults) if kinds == ["shift"] else _check_spread(body["spread"], faults)
    meant = None if kinds == ["items"] else _check_filter(body.get("filter", UNSET), faults)
    faults.raise_if_any()
    if plan is UNSET:  # pragma: no cover - a plan that is missing has left its fault behind
        raise InvalidRequest("The body is not understood")
    return Request(plan, meant, items, dry_run=bool(dry_run))


def _error(faults: Faults) -> InvalidRequest:
    return faults.error() or InvalidRequest("The body is not understood")


def check_shift(value: object, faults: Faults, *, name: str = "shift") -> Shift | Unset:
    """An ISO 8601 duration of weeks, or of days, hours and minutes."""
    text = check_text(value, name, faults)
    if text is UNSET:
        return UNSET
    by = times.parse_duration(text)
    if by is None:
        faults.add("invalid_request", name, f"{name} must be {times.DURATION_RULE}")
        return UNSET
    return Shift(by)


def _check_spread(value: object, faults: Faults) -> Spread | Unset:
    if not isinstance(value, dict):
        faults.add("invalid_request", "spread", "spread must be an object with from, to and timezone")
        return UNSET
    check_known(value, SPREAD_FIELDS, faults, prefix="spread.")
    for name in SPREAD_FIELDS:
        if name not in value:
            faults.add("missing_required_fields", f"spread.{name}", f"spread.{name} is missing; send all three")
    zone = _check_zone(value.get("timezone", UNSET), "spread.timezone", faults)
    instants: list[datetime] = []
    for name in ("from", "to"):
        local = _check_local(value.get(name, UNSET), f"spread.{name}", faults)
        if local is UNSET or zone is UNSET:
            continue
        try:
            instants.append(times.to_instant(datetime.fromisoformat(local), zone))
        except times.SkippedByDst as skipped:
            faults.add("invalid_scheduled_time", f"spread.{name}", f"spread.{name} {skipped}")
    if len(instants) < 2 or zone is UNSET:
        return UNSET
    if instants[1] < instants[0]:
        faults.add("invalid_scheduled_time", "spread.to", "spread.to must not be before spread.from; swap them")
        return UNSET
    return Spread(instants[0], instants[1], zone)


def _check_filter(value: object, faults: Faults) -> Filter | None:
    if value is UNSET:
        faults.add("missing_required_fields", "filter", 'filter is missing; {"all": true} means every waiting post')
        return None
    if not isinstance(value, dict) or not value:
        faults.add(
            "invalid_request", "filter", f'filter must say which posts by any of {", ".join(FILTER_FIELDS[1:])}; '
            '{"all": true} means every waiting post',
        )  # fmt: skip
        return None
    check_known(value, FILTER_FIELDS, faults, prefix="filter.")
    if "all" in value:
        if value["all"] is not True:
            faults.add("invalid_request", "filter.all", "filter.all must be true; leave it out to choose posts")
        elif len(value) > 1:
            faults.add("invalid_request", "filter.all", "filter.all means every waiting post; send nothing beside it")
    platform = check_text(value.get("platform", UNSET), "filter.platform", faults)
    if platform is not UNSET and platform not in PLATFORMS:
        faults.add("invalid_request", "filter.platform", f"filter.platform must be {' or '.join(PLATFORMS)}")
    begin = _check_instant(value.get("scheduledFrom", UNSET), "filter.scheduledFrom", faults)
    end = _check_instant(value.get("scheduledTo", UNSET), "filter.scheduledTo", faults)
    if begin is not None and end is not None and end <= begin:
        faults.add("invalid_request", "filter.scheduledTo", "filter.scheduledTo must be after filter.scheduledFrom")
    return Filter(
        _check_ids(value.get("accountIds", UNSET), "filter.accountIds", faults),
        None if platform is UNSET else platform,
        begin,
        end,
        _check_ids(value.get("postIds", UNSET), "filter.postIds", faults),
    )


def _check_ids(value: object, name: str, faults: Faults) -> tuple[str, ...] | None:
    """An array of 1 to 10,000 different ids. None where it was left out or is at fault."""
    if value is UNSET:
        return None
    if not isinstance(value, list) or not 1 <= len(value) <= MOST_ITEMS:
        faults.add("invalid_request", name, f"{name} must be an array of 1 to {MOST_ITEMS:,} ids")
        return None
    once = _Once(name, faults)
    for place, given in enumerate(value):
        once.check(_check_id(given, f"{name}[{place}]", faults), place, f"{name}[{place}]")
    return tuple(once.known)


class _Once:
    """Ids that a list may name once. `known`: each with the first place that names it."""

    def __init__(self, where: str, faults: Faults) -> None:
        self.known: dict[str, int] = {}
        self._where, self._faults = where, faults

    def check(self, found: str | Unset, place: int, field: str) -> bool:
        if found is UNSET:
            return False
        first = self.known.setdefault(found, place)
        if first != place:
            message = f"{field} names the same as {self._where}[{first}]; name each once"
            self._faults.add("invalid_request", field, message)
        return first == place


def _check_id(given: object, field: str, faults: Faults) -> str | Unset:
    found = check_text(given, field, faults)
    if found is not UNSET and not 1 <= len(found) <= MAX_ID:
        faults.add("invalid_request", field, f"{field} must have 1 to {MAX_ID} characters")
        return UNSET
    return found


def _check_items(value: object, faults: Faults) -> tuple[Item, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MOST_ITEMS:
        message = f"items must be an array of 1 to {MOST_ITEMS:,} objects; send the rest as another job"
        faults.add("invalid_request", "items", message)
        return ()
    once = _Once("items", faults)
    items: list[Item] = []
    for place, given in enumerate(value):
        item = check_item(given, f"items[{place}]", faults)
        if item is not UNSET and once.check(item.post_id, place, f"items[{place}].postId"):
            items.append(item)
    return tuple(items)


def check_item(value: object, name: str, faults: Faults) -> Item | Unset:
    """One item of a request or one line of a CSV file: a post's id, a local time, a zone; all three, nothing else."""
    if not isinstance(value, Mapping):
        faults.add("invalid_request", name, f"{name} must be an object with postId, scheduledTime and timezone")
        return UNSET
    if value.keys() != _ITEM_KEYS:
        check_known(value, ITEM_FIELDS, faults, prefix=f"{name}.")
    for field in ITEM_FIELDS:
        if field not in value:
            faults.add("missing_required_fields", f"{name}.{field}", f"{name}.{field} is missing; each item needs it")
    post_id = _check_id(value.get("postId", UNSET), f"{name}.postId", faults)
    local = _check_local(value.get("scheduledTime", UNSET), f"{name}.scheduledTime", faults)
    zone = _check_zone(value.get("timezone", UNSET), f"{name}.timezone", faults)
    if post_id is UNSET or local is UNSET or zone is UNSET:
        return UNSET
    return Item(post_id, local, zone)


_ITEM_KEYS: Final = set(ITEM_FIELDS)


def _check_local(value: object, name: str, faults: Faults) -> str | Unset:
    text = check_text(value, name, faults)
    if text is not UNSET and times.parse_local(text) is None:
        faults.add("invalid_scheduled_time", name, f"{name} must be {times.LOCAL_RULE}, on a day that exists")
        return UNSET
    return text


def _check_zone(value: object, name: str, faults: Faults) -> str | Unset:
    zone = check_text(value, name, faults)
    if zone is not UNSET and zone not in times.ZONES:
        faults.add("invalid_timezone", name, f"{name} must be one of {', '.join(times.ZONES)}")
        return UNSET
    return zone


def _check_instant(value: object, name: str, faults: Faults) -> datetime | None:
    text = check_text(value, name, faults)
    if text is UNSET:
        return None
    instant = times.parse_instant(text)
    if instant is None:
        faults.add("invalid_request", name, f"{name} must be {times.INSTANT_RULE}")
    return instant


def stored_items(items: Sequence[Item]) -> list[list[str]] | None:
    """How the job's row keeps them until its posts are frozen."""
    return [list(item) for item in items] or None


def stored_filter(meant: Filter | None) -> dict[str, Any] | None:
    """The filter in the form in which a client sends it, for the job's row."""
    if meant is None:
        return None
    given = {
        "accountIds": list(meant.account_ids) if meant.account_ids else None,
        "platform": meant.platform,
        "scheduledFrom": times.format_exactly(meant.scheduled_from) if meant.scheduled_from else None,
        "scheduledTo": times.format_exactly(meant.scheduled_to) if meant.scheduled_to else None,
        "postIds": list(meant.post_ids) if meant.post_ids else None,
    }
    return {name: value for name, value in given.items() if value is not None} or {"all": True}
