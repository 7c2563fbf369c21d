"""Calling the publisher, the renderer and the receiver of webhooks: signed, bounded, once (docs/services.md).

Where no URL is configured for publisher or renderer, a sandbox answers in its place, and only logs.
"""

import hmac
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import structlog

from shared.domain import service_answers
from shared.domain.service_answers import Outcome, Reply, Service, readable
from shared.settings import settings
from shared.telemetry import metrics
from worker.outbound import connections

ID_LIMIT = 255
URL_LIMIT = 2048

log = structlog.get_logger(__name__)


def url_of(kind: Service) -> str:
    """Where calls of that kind go; empty where it is not configured."""
    config = settings()
    return {"publish": config.publisher_url, "render": config.renderer_url, "webhook": config.webhook_url}[kind]


def call(kind: Service, body: str, key: str, attempt: int, at: datetime) -> Reply:
    """POST a body under an idempotency key. `attempt` counts the tries of that key; `at` is the database's clock.

    Never raises for what a service does or fails to do: the outcome is in the reply. Takes `service_timeout` at most.
    """
    if not url_of(kind):
        return _sandbox(kind, body, key, attempt)
    began = time.monotonic()
    reply = _called(kind, body, key, attempt, at)
    reply = replace(reply, took=time.monotonic() - began)
    metrics.service_answered(kind, reply.outcome)
    if reply.outcome is Outcome.MISCONFIGURED:
        _report_misconfigured(kind, reply.message or "")
    return reply


def _called(kind: Service, body: str, key: str, attempt: int, at: datetime) -> Reply:
    headers = {
        "Idempotency-Key": key,
        "Redraft-Attempt": str(attempt),
        "Redraft-Signature": signature(settings().service_secret, body, int(at.timestamp())),
    }
    began = time.monotonic()
    try:
        answer = connections.post(url_of(kind), headers, body.encode(), settings().service_timeout)
    except (connections.NotSentError, ValueError) as error:
        return Reply(Outcome.NEVER_STARTED, message=readable(str(error)))
    except connections.CutOffError as error:
        return Reply(Outcome.UNKNOWN, message=readable(str(error)))
    now = at + timedelta(seconds=time.monotonic() - began)
    asked = service_answers.retry_after(answer.retry_after, answer.date, now)
    reply = service_answers.read(kind, answer.status, answer.body, asked, ended=answer.ended)
    reply = replace(reply, status=answer.status)
    if reply.outcome is Outcome.DONE and kind != "webhook":
        return _published(reply.data) if kind == "publish" else _rendered(reply.data)
    return reply


_reported: dict[str, float] = {}
REPORT_EVERY = 60.0


def _report_misconfigured(kind: Service, message: str) -> None:
    """Log, once a minute, an answer that does not depend on the post: every call will get the same."""
    now = time.monotonic()
    if now - _reported.get(kind, -REPORT_EVERY) < REPORT_EVERY:
        return
    _reported[kind] = now
    cure = f"check {_VARIABLES[kind]}, REDRAFT_SERVICE_SECRET and what the service itself needs to log in"
    # The status alone: the rest of the answer may quote a client's text. `redraft doctor` shows it.
    log.error("service_set_up_wrongly", call=kind, found=message.partition(":")[0], cure=cure)


def signature(secret: str, body: str, at: int) -> str:
    """The header Redraft-Signature: `t=<unix seconds>,v1=<hex HMAC-SHA256 of "<t>.<body>">`.

    `secret`: one, or two with a comma between. With two, the header has a `v1` for each, in their order.
    """
    said = f"{at}.{body}".encode()
    signed = [hmac.new(one.encode(), said, sha256).hexdigest() for one in secret.split(",")]
    return ",".join([f"t={at}", *(f"v1={one}" for one in signed)])


def _sandbox(kind: Service, body: str, key: str, attempt: int) -> Reply:
    log.info("sandbox", call=kind, key=key, attempt=attempt, bytes=len(body))
    made = sha256(key.encode()).hexdigest()[:12]
    if kind == "publish":
        return Reply(Outcome.DONE, {"platformPostId": f"sandbox_{made}"})
    return Reply(Outcome.DONE, {"renderedUrl": f"https://sandbox.invalid/{made}.mp4", "thumbnailUrl": None})


def _published(said: dict[str, Any]) -> Reply:
    made = said.get("platformPostId")
    if isinstance(made, int) and not isinstance(made, bool):
        made = str(made)
    usable = isinstance(made, str) and 0 < len(made) <= ID_LIMIT and made.isprintable()
    if made is not None and not usable:
        log.warning("platform_post_id_ignored", reason="not a printable string of 1 to 255 characters")
    return Reply(Outcome.DONE, {"platformPostId": made if usable else None})


def _rendered(said: dict[str, Any]) -> Reply:
    made, thumbnail = said.get("renderedUrl"), said.get("thumbnailUrl")
    if not _is_url(made):
        return Reply(Outcome.SERVER_ERROR, message="the renderer answered without a renderedUrl that is an http(s) URL")
    if thumbnail is not None and not _is_url(thumbnail):
        log.warning("thumbnail_ignored", reason="not an http(s) URL")
        thumbnail = None
    return Reply(Outcome.DONE, {"renderedUrl": made, "thumbnailUrl": thumbnail})


def _is_url(value: object) -> bool:
    if not isinstance(value, str) or len(value) > URL_LIMIT or not value.isprintable() or " " in value:
        return False
    try:
        connections.target_of(value)
    except ValueError:
        return False
    return True


_QUEUES: dict[str, Service] = {"publish": "publish", "render": "render", "webhooks": "webhook"}
_VARIABLES = {"publish": "REDRAFT_PUBLISHER_URL", "render": "REDRAFT_RENDERER_URL", "webhook": "REDRAFT_WEBHOOK_URL"}


def announce(queues: Iterable[str]) -> None:
    """Log where a worker of these queues calls. A sandbox must not go unnoticed: it publishes nothing."""
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
            log.warning(
                "unsigned", call=kind, meaning="anyone can forge our signature", cure="set REDRAFT_SERVICE_SECRET"
            )
