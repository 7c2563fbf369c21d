"""What a request for a bulk job may say, and every rule about it that needs no database (docs/bulk.md). Pure.

The models stand here and not in api/models, since the command line reads its own requests and CSV by them. Rules that
depend on the moment (a time that has passed, one that a clock change skips) are left to the worker.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final, NamedTuple, cast

from pydantic import ConfigDict, Field

from shared.domain import times
from shared.domain.bodies import Body, Several, Wrong, absent, names
from shared.domain.body_reading import check_known, read
from shared.domain.errors import Faults, InvalidRequest
from shared.domain.fields import (
    AccountId,
    Flag,
    Instant,
    IsoDuration,
    LocalTime,
    Platform,
    PostId,
    Ruled,
    Zone,
    fault,
)  # fmt: skip
from shared.domain.reschedule_gaps import MinGap
from shared.domain.reschedules import ItemPlan, Plan, Shift, Spread
from shared.domain.times import Duration

MOST_ITEMS: Final = 10_000
"""Items, or ids in a filter, in one request."""


class Item(NamedTuple):
    """One post and its new local time, as the client wrote it."""

    post_id: str
    local: str
    timezone: str


@dataclass(frozen=True, slots=True)
class Request:
    """A valid request. `filter`: which posts it means, as a client says it; None where `items` name the posts."""

    plan: Plan
    filter: dict[str, Any] | None = None
    items: tuple[Item, ...] = ()
    dry_run: bool = False
    min_gap: Duration | None = None


# -- The bodies


def _all(value: object) -> bool:
    if value is not True:
        raise fault("invalid_request", "must be true; leave it out to choose posts")
    return True


_IDS: Final = Several(1, MOST_ITEMS, f"must be an array of 1 to {MOST_ITEMS:,} ids", once=True)
_EVERY: Final = '{"all": true} means every waiting post'


class PostFilter(Body):
    """Which posts: all that fulfil every condition."""

    # Posts named by id are meant in whatever state they are, others only while they wait to go live.
    model_config = ConfigDict(
        json_schema_extra={"minProperties": 1, "if": {"required": ["all"]}, "then": {"maxProperties": 1}}
    )
    shape: ClassVar[str] = (
        "say which posts by any of accountIds, platform, scheduledFrom, scheduledTo, postIds; " + _EVERY
    )

    all: Annotated[bool, Ruled(_all, "boolean", const=True, description="every waiting post; alone")] = absent
    account_ids: Annotated[list[AccountId], _IDS] = absent
    platform: Platform = absent
    scheduled_from: Instant = Field(default=absent, description="UTC, inclusive")
    scheduled_to: Instant = Field(default=absent, description="UTC, exclusive")
    post_ids: Annotated[list[PostId], _IDS] = absent

    @classmethod
    def together(cls, given: Mapping[str, Any]) -> Sequence[Wrong]:
        found: list[Wrong] = []
        if not given:
            found.append(("invalid_request", "filter", f"filter must {cls.shape}"))
        if given.get("all") is True and len(given) > 1:
            message = "filter.all means every waiting post; send nothing beside it"
            found.append(("invalid_request", "filter.all", message))
        begin, end = (_instant(given.get(name)) for name in ("scheduledFrom", "scheduledTo"))
        if begin is not None and end is not None and end <= begin:
            message = "filter.scheduledTo must be after filter.scheduledFrom"
            found.append(("invalid_request", "filter.scheduledTo", message))
        return found

    def meant(self) -> dict[str, Any]:
        """The conditions as a client sends them, for the job's row."""
        given = self.model_dump(by_alias=True, exclude_unset=True)
        return {
            name: times.format_exactly(value) if isinstance(value, datetime) else value for name, value in given.items()
        }


class SpreadBetween(Body):
    """Evenly from one local time to another, both in this zone."""

    shape: ClassVar[str] = "be an object with from, to and timezone"
    missing: ClassVar[str] = "send all three"

    from_: LocalTime = Field(alias="from")
    to: LocalTime
    timezone: Zone

    @classmethod
    def together(cls, given: Mapping[str, Any]) -> Sequence[Wrong]:
        found: list[Wrong] = []
        instants = []
        for name in ("from", "to"):
            try:
                instants.append(_meant(given.get(name), given.get("timezone")))
            except times.SkippedByDst as skipped:
                found.append(("invalid_scheduled_time", f"spread.{name}", f"spread.{name} {skipped}"))
        if len(instants) == 2 and instants[0] and instants[1] and instants[1] < instants[0]:
            message = "spread.to must not be before spread.from; swap them"
            found.append(("invalid_scheduled_time", "spread.to", message))
        return found

    def meant(self) -> Spread:
        """The domain's value."""
        first, last = (times.to_instant(local, self.timezone) for local in (self.from_, self.to))
        return Spread(first, last, self.timezone)


class JobItem(Body):
    """One post, its new local time and its zone."""

    shape: ClassVar[str] = "be an object with postId, scheduledTime and timezone"
    missing: ClassVar[str] = "each item needs it"

    post_id: PostId
    scheduled_time: LocalTime
    timezone: Zone

    def meant(self) -> Item:
        """The domain's value."""
        return Item(self.post_id, times.format_local(self.scheduled_time), self.timezone)


class _Job(Body):
    dry_run: Flag = Field(
        default=False, description="the same job with the same results, and no post is changed", examples=[True]
    )
    min_gap: MinGap = absent


class _FilteredJob(_Job):
    missing: ClassVar[str] = _EVERY

    filter: PostFilter

    @classmethod
    def together(cls, given: Mapping[str, Any]) -> Sequence[Wrong]:
        found: list[Wrong] = []
        for name, model in (("filter", PostFilter), ("spread", SpreadBetween)):
            if isinstance(below := given.get(name), dict):
                found += model.together(below)
        return found


class ShiftJob(_FilteredJob):
    """Moves each post by the same duration."""

    shift: IsoDuration

    def meant(self) -> Request:
        """The domain's value."""
        return Request(Shift(self.shift), self.filter.meant(), dry_run=self.dry_run, min_gap=self.min_gap)


class SpreadJob(_FilteredJob):
    """Spreads the posts evenly, in their present order."""

    spread: SpreadBetween

    def meant(self) -> Request:
        """The domain's value."""
        return Request(self.spread.meant(), self.filter.meant(), dry_run=self.dry_run, min_gap=self.min_gap)


class ItemsJob(_Job):
    """Moves each post to a time of its own."""

    items: Annotated[
        list[JobItem],
        Several(
            1,
            MOST_ITEMS,
            f"must be an array of 1 to {MOST_ITEMS:,} objects; send the rest as another job",
            once=True,
            by="postId",
        ),
    ]

    def meant(self) -> Request:
        """The domain's value."""
        items = tuple(item.meant() for item in self.items)
        return Request(ItemPlan(), items=items, dry_run=self.dry_run, min_gap=self.min_gap)


KINDS: Final[Mapping[str, type[ShiftJob | SpreadJob | ItemsJob]]] = {
    "shift": ShiftJob, "spread": SpreadJob, "items": ItemsJob
}  # fmt: skip
"""The three forms of a job, by the field that only that form has."""
FIELDS: Final = ("filter", *KINDS, "dryRun", "minGap")
ITEM_FIELDS: Final = names(JobItem)


def parse_request(body: object) -> Request:
    """The job that a parsed JSON body asks for. Raises InvalidRequest, and nothing else whatever JSON it is given."""
    if not isinstance(body, dict):
        raise InvalidRequest("The body must be a JSON object; send a filter with a shift or a spread, or items")
    kinds = [name for name in KINDS if name in body]
    if len(kinds) == 1 and not (kinds == ["items"] and "filter" in body):
        return read(KINDS[kinds[0]], body).meant()
    faults = Faults()
    check_known(body, FIELDS, faults)
    if not isinstance(body.get("dryRun", False), bool):
        faults.add("invalid_request", "dryRun", "dryRun must be true or false")
    if kinds == ["items"]:
        faults.add("invalid_request", "filter", "items name their posts themselves; leave filter out")
    else:
        given = f"holds {' and '.join(kinds)}" if kinds else "has none of the three"
        faults.add("invalid_request", "body", f"The body {given}; send exactly one of shift, spread and items")
    raise cast("InvalidRequest", faults.error())


def _instant(value: object) -> datetime | None:
    return times.parse_instant(value) if isinstance(value, str) else None


def _meant(local: object, zone: object) -> datetime | None:
    """The instant of a local time; None where one of the two is no good. Raises SkippedByDst."""
    parsed = times.parse_local(local) if isinstance(local, str) else None
    return (
        None
        if parsed is None or not isinstance(zone, str) or zone not in times.ZONES
        else times.to_instant(parsed, zone)
    )
