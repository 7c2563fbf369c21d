"""What all operators' pages share: their password, the templates, and reads that leave connections to requests."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import cache, partial, wraps
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, TypeVar

import jinja2
import structlog
from fastapi import APIRouter
from markupsafe import Markup, escape
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from api.context import context_of, storable
from api.http.problems import STATUS
from api.ops import access
from shared.domain import edit_histories, histories
from shared.domain.edits import PUBLISH_NOW
from shared.domain.errors import RedraftError, Unavailable, printable
from shared.domain.guessing import MOST, PASS_LIVES, Guesses, Passes, Verdict, basic
from shared.domain.plurals import capped
from shared.store import failed_posts, overview

T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]

READS_AT_ONCE = 2
PAGES: Final = Path(__file__).parent / "templates"
ICON: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3" fill="#0b57d0"/>'
    '<path d="M4 12V4h4.5a2.5 2.5 0 0 1 0 5H4m4 0 3.5 3" fill="none" stroke="#fff" stroke-width="2"/></svg>'
)
STATIC: Final = {
    "style.css": ("text/css", (PAGES / "style.css").read_text(encoding="utf-8")),
    "live.js": ("text/javascript", (PAGES / "live.js").read_text(encoding="utf-8")),
    "icon.svg": ("image/svg+xml", ICON),
}
VERSION: Final = sha256("".join(text for _, text in STATIC.values()).encode()).hexdigest()[:12]

router = APIRouter()
log = structlog.get_logger(__name__)
_guesses = Guesses()
# The pages must not take all of the connections that requests read with.
_reading = asyncio.Semaphore(READS_AT_ONCE)


# -- Rendering


def _looked_at(number: int) -> str:
    """A count among the newest LOOKED_AT failed posts."""
    return f"{number:,} or more" if number >= failed_posts.LOOKED_AT else f"{number:,}"


def _clock(instant: datetime) -> str:
    """`24 Nov 22:41:07`, with the year where it is another one. Milliseconds stand in the `datetime` attribute."""
    utc = instant.astimezone(UTC)
    year = "" if utc.year == datetime.now(UTC).year else f" {utc.year}"
    return f"{utc.day} {utc:%b}{year} {utc:%H:%M:%S}"


def asked_for(changes: dict[str, Any]) -> str:
    """The names of the changed fields, for lists: only an edit's own page shows a caption."""
    named = {"move": "time, by a bulk job", PUBLISH_NOW: "publish now"}
    return ", ".join(named.get(name, name) for name in changes)


def cell(
    label: str, content: object = "", kind: str | None = None, *, number: bool = False, caller: Any = None
) -> Markup:
    """A cell of a table: `content`, or what the template calls it around. `kind`: the class of what is in it.

    Not a macro: a list has hundreds of cells, and a macro takes several times as long.
    """
    of_number, of_kind = ' class="number"' if number else "", f' class="{kind}"' if kind else ""
    within = escape(content if caller is None else caller())
    html = f'<td role="cell" data-label="{label}"{of_number}><span{of_kind}>{within}</span></td>'
    return Markup(html)  # noqa: S704  -- the content is escaped; the rest are words of our templates


_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(PAGES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
)
_templates.globals["cell"] = cell
_templates.filters |= {
    "moment": edit_histories.moment,
    "clock": _clock,
    "away": histories.away,
    "in_zone": histories.in_zone,
    "length_of_time": edit_histories.duration,
    "counted": "{:,}".format,
    "looked_at": _looked_at,
    "capped": capped,
    "asked_for": asked_for,
    "unsigned": edit_histories.without_secrets,
}


@cache
def _compile_pages() -> None:
    """Read and compile all templates. Two first looks at once may both do it."""
    for name in _templates.list_templates(extensions=["html"]):
        _templates.get_template(name)


def html(request: Request, name: str, code: int = 200, /, **given: Any) -> Response:
    """A page. `here`: the address among the links at its top."""
    config, here = context_of(request).config, "/".join(request.scope["path"].split("/")[:3])
    usual = {"notice": None, "notice_kind": "good", "q": None, "now": None, "here": here, "version": VERSION}
    usual |= {"flower_url": config.flower_url, "may_act": request.state.login.acts}
    rendered = _templates.get_template(name).render(usual, token=partial(access.token, config), **given)
    return Response(rendered, code, media_type="text/html")


def message(request: Request, status: int, heading: str, message: str) -> Response:
    return html(request, "message.html", status, here="", heading=heading, message=message)


# -- Coming in


class OnlyLooksError(RedraftError):
    """403: the login may not change anything."""

    code = "forbidden"


class NoSuchError(RedraftError):
    """404: the address names something that is not there."""

    code = "not_found"

    def __init__(self, what: str, name: str) -> None:
        super().__init__(f"There is no {what} {printable(name)}.")
        self.heading = f"No such {what}"


def _shut(status: int, heading: str, message: str, **headers: str) -> Response:
    shut_page = _templates.get_template("shut.html").render(heading=heading, message=message)
    return Response(shut_page, status, headers, media_type="text/html")


async def _turned_away(request: Request, gone: Callable[[], Awaitable[None]]) -> tuple[Response | None, str | None]:
    """The refusal of this request, or None for an operator's; and the new pass to set with its answer, if there is one.

    `gone`: returns when the client has hung up.
    """
    config = context_of(request).config
    if not (config.ops_password or config.ops_read_password):
        off = _shut(
            404,
            "The operators' page is off",
            "It has no password. Set REDRAFT_OPS_PASSWORD (and REDRAFT_OPS_USER, if it is to be another than ops) "
            "for the API, and restart it. REDRAFT_OPS_READ_PASSWORD is for those who only look.",
        )
        return off, None
    passes = Passes("ops", config.ops_user, config.ops_password, config.ops_read_password)
    address = request.client.host if request.client else ""
    given = basic(request.headers.get("authorization", ""))
    if given is not None:
        source, known = passes.source(request.cookies.get(access.COOKIE), address)
        login = access.login(config, given)
        verdict = await _guesses.judge(source, gone, right=login is not None)
        if verdict is Verdict.RIGHT:
            request.state.login = login
            return None, None if known else passes.new()
        if verdict is Verdict.CROWDED:
            wait = {"Retry-After": str(int(MOST))}
            return _shut(429, "Too many guesses at once", "Wait some seconds, then try again.", **wait), None
        if verdict is Verdict.WRONG and (number := _guesses.worth_a_line()):
            log.warning("ops_password_wrong", client=address, number=number)
    challenge = _shut(
        401,
        "User and password, please",
        "They are REDRAFT_OPS_USER and REDRAFT_OPS_PASSWORD of the API; redraft up writes them into stack.json.",
        **{"WWW-Authenticate": 'Basic realm="Redraft operators", charset="UTF-8"'},
    )
    return challenge, None


def page(path: str, method: str = "GET") -> Callable[[Handler], Handler]:
    """A route of the pages: behind the password, with the pages' headers, and with errors as pages."""

    def decorate(handler: Handler) -> Handler:
        @wraps(handler)
        async def guarded(request: Request) -> Response:
            line = access.Line(request.receive)
            answer, new_pass = await _turned_away(request, line.gone)
            if answer is None:
                if not _compile_pages.cache_info().currsize:
                    # A fifth of a second of CPU, in which this process would answer no edit.
                    await asyncio.to_thread(_compile_pages)
                try:
                    if method == "POST" and not request.state.login.acts:
                        raise OnlyLooksError(
                            "This login only looks, and nothing was done. Log in with REDRAFT_OPS_PASSWORD to act."
                        )
                    answer = await handler(Request(request.scope, line.receive))
                except RedraftError as error:
                    heading = error.heading if isinstance(error, NoSuchError) else "That did not work"
                    answer = message(request, STATUS.get(error.code, 500), heading, error.message)
            for name, value in access.HEADERS.items():
                answer.headers.setdefault(name, value)
            if new_pass:
                # Without `secure`: behind a proxy the page does not know its own scheme, and a pass opens nothing.
                answer.set_cookie(
                    access.COOKIE, new_pass, max_age=PASS_LIVES, path="/ops", httponly=True, samesite="strict"
                )
            return answer

        router.add_route(path, guarded, methods=[method], include_in_schema=False)
        return guarded

    return decorate


async def read(request: Request, query: Callable[..., T], *args: object) -> T:
    """A read in a transaction of its own, given up after a second. Raises Unavailable."""

    def with_time_limit(tx: Connection) -> T:
        overview.limit_statements(tx)
        return query(tx, *args)

    async with _reading:
        return await context_of(request).read(with_time_limit)


def named(request: Request, what: str) -> str:
    """The id in the address of something. Raises NoSuchError for an id that no row can have."""
    [name] = request.path_params.values()
    if not storable(name):
        raise NoSuchError(what, name)
    return str(name)


async def read_named(request: Request, what: str, query: Callable[..., T | None], *args: object) -> T:
    """A read of what the id in the address names. Raises NoSuchError, Unavailable."""
    name = named(request, what)
    found = await read(request, query, name, *args)
    if found is None:
        raise NoSuchError(what, name)
    return found


async def perhaps(request: Request, query: Callable[..., T], *args: object) -> T | None:
    """The same for an optional part of a page; None if PostgreSQL does not answer."""
    try:
        return await read(request, query, *args)
    except Unavailable:
        return None


def number(given: str | None) -> int | None:
    """A number of at most 18 digits that a browser sent, else None."""
    return int(given) if given and given.isascii() and given.isdecimal() and len(given) <= 18 else None


def asked(request: Request, name: str) -> str | None:
    """A query parameter that the database can search for, else None."""
    value = request.query_params.get(name, "").strip()
    return value if value and storable(value[:255]) and (name == "q" or len(value) <= 255) else None
