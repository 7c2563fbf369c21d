"""Lists of edits on the operators' pages, with their filter."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import urlencode

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from api.context import storable
from api.ops.frame import asked, html, number, page, read
from shared.domain.errors import printable
from shared.domain.lifecycle import EditStatus
from shared.domain.times import parse_instant
from shared.store import edit_lists, keys
from shared.store import posts as posts_store
from shared.store.edit_lists import EditFilter, EditPage, Place
from shared.store.keys import Account

PAGE: Final = 50
FIELDS: Final = ("status", "post", "workspace", "account", "key", "request", "error", "since", "until", "job")
"""The names of the filter's fields, in the form and in addresses."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A filter as an operator wrote it. `fields`: what was written, by its name; `faults`: what of it means nothing;
    `accounts`: those with the id or the name that was written.
    """

    wanted: EditFilter
    fields: dict[str, str]
    faults: tuple[str, ...]
    accounts: tuple[Account, ...]

    def query(self, **more: str) -> str:
        """The filter as the query of an address."""
        return urlencode(self.fields | more)


def instant(given: str) -> datetime | None:
    """A time in UTC, its Z given or not: `2026-03-01T12:00`; None for anything else."""
    return parse_instant(given) or parse_instant(f"{given}Z")


def read_filter(tx: Connection, fields: dict[str, str]) -> Asked:
    """What these fields of the form mean, by the workspaces and accounts that there are."""
    # A filter that cannot be searched for must not be left out: the list would hold all edits.
    faults = [f"No {name} is {printable(value, 80)}." for name, value in fields.items() if not storable(value)]
    if faults:
        return Asked(EditFilter(), fields, tuple(faults), ())
    status, home, accounts = fields.get("status"), fields.get("workspace"), list[Account]()
    if status and status not in set(EditStatus):
        faults.append(f"There is no status {printable(status)}.")
    if home and (found := keys.workspace_named(tx, home)):
        home = found.id
    elif home:
        faults.append(f"There is no workspace {printable(home)}.")
    if given := fields.get("account"):
        accounts = keys.accounts_named(tx, given)
        faults += [] if accounts else [f"There is no account {printable(given)}."]
        homes = {one.workspace_id for one in accounts}
        home = home or (homes.pop() if len(homes) == 1 else None)
    times: dict[str, datetime | None] = {}
    for name in ("since", "until"):
        if given := fields.get(name):
            times[name] = instant(given)
            faults += [] if times[name] else [f"{printable(given)} is no time in UTC, as 2026-03-01T12:00 is."]
    wanted = EditFilter(
        status=status,
        workspace_id=home,
        accounts=tuple(one.id for one in accounts) if fields.get("account") else None,
        post_id=fields.get("post"),
        key=fields.get("key"),
        request_id=fields.get("request"),
        error=fields.get("error"),
        job_id=fields.get("job"),
        since=times.get("since"),
        until=times.get("until"),
    )
    return Asked(wanted, fields, tuple(faults), tuple(accounts))


def fields_of(request: Request) -> dict[str, str]:
    """The fields of the filter in this address, those that are not empty."""
    given = ((name, request.query_params.get(name, "").strip()) for name in FIELDS)
    return {name: value for name, value in given if value}


def _list(tx: Connection, fields: dict[str, str], after: str | None) -> tuple[Asked, EditPage, datetime]:
    found = read_filter(tx, fields)
    if found.faults:
        return found, EditPage([]), posts_store.clock(tx)
    return found, edit_lists.page(tx, found.wanted, _place(after), PAGE), posts_store.clock(tx)


def _place(given: str | None) -> Place | None:
    """A number in the order, or any other text, which is an id."""
    place = number(given)
    return given if place is None else place


@page("/ops/edits")
async def list_edits(request: Request) -> Response:
    """Edits, by whatever the operator filters for."""
    fields, after = fields_of(request), asked(request, "after")
    found, edits, now = await read(request, _list, fields, after)
    more = found.query(after=str(edits.next_place)) if edits.next_place is not None else ""
    return html(
        request,
        "edits.html",
        now=now,
        notice=" ".join(found.faults) or None,
        notice_kind="warn",
        edits=edits.edits,
        fields=fields,
        query=found.query(),
        accounts=found.accounts,
        after=after,
        more=more,
        back_to=edits.back_to,
        looked_at=edits.looked_at,
    )
