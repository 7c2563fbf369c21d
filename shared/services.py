"""Calling the publisher, the renderer and the receiver of webhooks: signed, bounded, once (SPEC 6).

With no URL configured for publisher or renderer a sandbox serves that only logs.
"""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any, Literal

import structlog
from pydantic_core import from_json

from shared import connections
from shared.settings import settings

Kind = Literal["publish", "render", "webhook"]

MESSAGE_LIMIT = 500
ID_LIMIT = 255
URL_LIMIT = 2048

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reply:
    """How a call ended. `data` is what may be used of an answer where `kind` is done; `message` says why it is not.

    `never_started` only where nothing can have been sent (connection refused, name unknown).
    """

    kind: Literal["done", "refused", "never_started", "server_error", "unknown"]
    data: dict[str, Any] = field(default_factory=dict)
    message: str | None = None


def url_of(kind: Kind) -> str:
    """Where calls of that kind go; empty where nobody configured it."""
    config = settings()
    return {"publish": config.publisher_url, "render": config.renderer_url, "webhook": config.webhook_url}[kind]


def call(kind: Kind, body: str, key: str, attempt: int, at: datetime) -> Reply:
    """POST a body under an idempotency key. `attempt` counts the tries of that key; `at` is the database's clock.

    Never raises for what a service does or fails to do. All of it takes `service_timeout` at most.
    """
    url = url_of(kind)
    if not url:
        return _sandbox(kind, body, key, attempt)
    headers = {
        "Idempotency-Key": key,
        "Redraft-Attempt": str(attempt),
        "Redraft-Signature": signature(settings().service_secret, body, int(at.timestamp())),
    }
    try:
        answer = connections.post(url, headers, body.encode(), settings().service_timeout)
    except (connections.NotSentError, ValueError) as error:
        return Reply("never_started", message=readable(str(error)))
    except connections.CutOffError as error:
        return Reply("unknown", message=readable(str(error)))
    return _reply(kind, answer)


def signature(secret: str, body: str, at: int) -> str:
    """The header Redraft-Signature: `t=<unix seconds>,v1=<hex HMAC-SHA256 of "<t>.<body>">`."""
    signed = hmac.new(secret.encode(), f"{at}.{body}".encode(), sha256).hexdigest()
    return f"t={at},v1={signed}"


def _sandbox(kind: Kind, body: str, key: str, attempt: int) -> Reply:
    log.info("sandbox", call=kind, key=key, attempt=attempt, bytes=len(body))
    made = sha256(key.encode()).hexdigest()[:12]
    if kind == "publish":
        return Reply("done", {"platformPostId": f"sandbox_{made}"})
    return Reply("done", {"renderedUrl": f"https://sandbox.invalid/{made}.mp4", "thumbnailUrl": None})


def _reply(kind: Kind, answer: connections.Answer) -> Reply:
    """What an answer means. A redirect is an address that somebody has to correct: it is not followed, but retried."""
    said = _object(answer.body)
    if 200 <= answer.status < 300:
        return {"publish": _published, "render": _rendered, "webhook": _taken}[kind](said)
    words = said.get("error")
    message = readable(words.get("message")) if isinstance(words, dict) else ""
    message = message or f"the service answered {answer.status}"
    return Reply("refused" if 400 <= answer.status < 500 else "server_error", message=message)


def _object(body: bytes | None) -> dict[str, Any]:
    try:
        said = from_json(body or b"")
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _published(said: dict[str, Any]) -> Reply:
    made = said.get("platformPostId")
    if isinstance(made, int) and not isinstance(made, bool):
        made = str(made)
    usable = isinstance(made, str) and 0 < len(made) <= ID_LIMIT and made.isprintable()
    if made is not None and not usable:
        log.warning("platform_post_id_ignored", reason="not a printable string of 1 to 255 characters")
    return Reply("done", {"platformPostId": made if usable else None})


def _rendered(said: dict[str, Any]) -> Reply:
    made, thumbnail = said.get("renderedUrl"), said.get("thumbnailUrl")
    if not _is_url(made):
        return Reply("server_error", message="the renderer answered without a renderedUrl that is an http(s) URL")
    if thumbnail is not None and not _is_url(thumbnail):
        log.warning("thumbnail_ignored", reason="not an http(s) URL")
        thumbnail = None
    return Reply("done", {"renderedUrl": made, "thumbnailUrl": thumbnail})


def _taken(_: dict[str, Any]) -> Reply:
    return Reply("done")


def _is_url(value: object) -> bool:
    if not isinstance(value, str) or len(value) > URL_LIMIT or not value.isprintable() or " " in value:
        return False
    try:
        connections.target_of(value)
    except ValueError:
        return False
    return True


def readable(said: object) -> str:
    """Somebody else's words as they may stand in a row, a log and an answer: one line, bounded, nothing unprintable."""
    if not isinstance(said, str):
        return ""
    words = " ".join("".join(letter if letter.isprintable() else " " for letter in said[: 4 * MESSAGE_LIMIT]).split())
    return words if len(words) <= MESSAGE_LIMIT else f"{words[: MESSAGE_LIMIT - 1]}…"


_QUEUES: dict[str, Kind] = {"publish": "publish", "render": "render", "webhooks": "webhook"}
_VARIABLES = {"publish": "REDRAFT_PUBLISHER_URL", "render": "REDRAFT_RENDERER_URL", "webhook": "REDRAFT_WEBHOOK_URL"}


def announce(queues: Iterable[str]) -> None:
    """Say where a worker of these queues calls: a sandbox that nobody knows of loses posts (SPEC 6)."""
    for kind in [_QUEUES[queue] for queue in queues if queue in _QUEUES]:
        url, variable = url_of(kind), _VARIABLES[kind]
        if not url:
            if kind != "webhook":
                log.warning("sandbox_serves", call=kind, meaning="nothing leaves this machine", cure=f"set {variable}")
            continue
        try:
            target = connections.target_of(url)
        except ValueError as error:
            log.warning("service_url_unusable", call=kind, reason=str(error), cure=f"correct {variable}")
            continue
        log.info("service", call=kind, host=target.host, port=target.port, tls=target.tls)
        if not settings().service_secret:
            log.warning("unsigned", call=kind, meaning="anybody can sign as we do", cure="set REDRAFT_SERVICE_SECRET")
