"""The three services in one ASGI application: signed calls in, effects by key, a journal of all of it."""

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.reference_services import moves
from tests.reference_services.moves import Move
from tests.reference_services.signatures import genuine

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

KINDS = {"/publish": "publish", "/render": "render", "/webhooks": "webhook"}
FOR_EVER = 3600.0


@dataclass
class Behaviour:
    """How the next `times` calls that it speaks of go wrong; `times` of -1 means all of them.

    `mode`: `status` answers with `status`, with `said` as its body where that is set, and with `retryAfter`; `hang`
    never answers; `late` answers after `seconds`; `drip` sends its answer a byte every `seconds`; `die` ends the
    process. `effect`: whether the effect takes place before that; a `late` one without has it before its answer.
    `kind` and `postId` narrow it to calls of that kind, of that post.
    """

    mode: str
    kind: str | None = None
    postId: str | None = None  # noqa: N815  -- as it comes in JSON
    times: int = -1
    seconds: float = 1.0
    status: int = 503
    message: str | None = None
    said: str | None = None
    retryAfter: str | None = None  # noqa: N815  -- as above
    effect: bool = True

    def meant(self, kind: str, post_id: str | None) -> bool:
        return self.times != 0 and self.kind in {None, kind} and self.postId in {None, post_id}


@dataclass
class Entry:
    """One call that came. `status`: what it was answered, None if it was not (yet)."""

    at: float
    kind: str
    key: str
    attempt: int
    post_id: str | None
    body: str
    genuine: bool
    status: int | None = None


@dataclass
class Services:
    """The application. `delay`: seconds that each call of a publisher takes. `file`: a journal that outlives it.
    `tame`: the seed of a publisher that has its bad moments, but loses nothing.
    """

    secret: str
    delay: float = 0.0
    file: Path | None = None
    tame: int | None = None
    behaviours: list[Behaviour] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    effects: dict[str, dict[str, Any]] = field(default_factory=dict)
    bodies: dict[str, str] = field(default_factory=dict)
    working: set[str] = field(default_factory=set)
    publishes: Counter[str | None] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        if self.file is not None and self.file.exists():
            for line in self.file.read_text().splitlines():
                what, value = json.loads(line)
                if what == "entry":
                    self.entries.append(Entry(**value))
                else:
                    self.effects[value["key"]], self.bodies[value["key"]] = value["answer"], value["body"]

    def _keep(self, what: str, value: Any) -> None:
        if self.file is not None:
            with self.file.open("a") as file:
                file.write(json.dumps([what, value]) + "\n")

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while (message := await receive())["type"] != "lifespan.shutdown":
                await send({"type": f"{message['type']}.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        path, headers = scope["path"], dict(scope["headers"])
        if path in KINDS and scope["method"] == "POST":
            await self._call(KINDS[path], headers, body, send)
        elif path == "/journal":
            await answer(send, 200, {"calls": [asdict(entry) for entry in self.entries], "effects": len(self.effects)})
        elif path == "/effects":
            published = [{"key": key} | made for key, made in self.effects.items() if "platformPostId" in made]
            await answer(send, 200, published)
        elif path == "/behave" and scope["method"] == "POST":
            asked = json.loads(body)
            self.behaviours = [Behaviour(**one) for one in asked]
            await answer(send, 200, {"behaviours": len(asked)})
        else:
            await answer(send, 404 if path not in KINDS else 405, {"error": {"message": f"nothing at {path}"}})

    async def _call(self, kind: str, headers: dict[bytes, bytes], raw: bytes, send: Send) -> None:
        said = json.loads(raw)
        subject = said["data"] if kind == "webhook" else said["post"]
        # The end of a bulk job has no post.
        post_id = subject["postId"] if "postId" in subject else subject["rescheduleId"]
        signed = headers.get(b"redraft-signature", b"").decode()
        ours = any(genuine(secret, signed, raw) for secret in self.secret.split(","))
        key, attempt = headers.get(b"idempotency-key", b"").decode(), int(headers.get(b"redraft-attempt", b"0"))
        entry = Entry(time.time(), kind, key, attempt, post_id, raw.decode(), ours)
        self.entries.append(entry)
        if not ours:
            await self._end(entry, send, 401, "the signature is not that of this body")
            return
        if key in self.working and key not in self.effects:
            await self._end(entry, send, 409, "the first request of this key is still under way", retry_after="1")
            return
        behaviour = next((one for one in self.behaviours if one.meant(kind, post_id)), None)
        if behaviour is not None:
            behaviour.times -= 1
        if self.bodies.get(key, entry.body) != entry.body:
            await self._end(entry, send, 422, "this Idempotency-Key came with another body before")
            return
        if behaviour is not None and await self._misbehave(behaviour, entry, send):
            return
        if kind == "publish" and self.delay:
            await self._work(entry, self.delay)
        if kind == "publish" and (move := self._bad_moment(post_id)) is not None:
            await self._play(move, entry, send)
            return
        await self._end(entry, send, 200, effect=self._effect(entry))

    def _bad_moment(self, post_id: str) -> Move | None:
        self.publishes[post_id] += 1
        if self.tame is None:
            return None
        return moves.tame(random.Random(f"{self.tame}/{post_id}/{self.publishes[post_id]}"))

    async def _play(self, move: Move, entry: Entry, send: Send) -> None:
        if move.waits:
            await self._work(entry, move.waits)
        made = self._effect(entry) if move.effect == "before" else None
        if move.status is None:
            await self._end(entry, send, 200, effect=made)
        else:
            await self._end(entry, send, move.status, said=move.said, retry_after=move.retry_after)

    async def _work(self, entry: Entry, seconds: float) -> None:
        """Be at work on a key, which is then answered 409 to whoever asks for it meanwhile."""
        self.working.add(entry.key)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.working.discard(entry.key)

    def _effect(self, entry: Entry) -> dict[str, Any]:
        """What the call is for: done once for each key, and told again to whoever asks again."""
        if entry.key not in self.effects:
            made = sha256(entry.key.encode()).hexdigest()[:12]
            self.effects[entry.key] = {
                "publish": {"platformPostId": f"ref_{made}"},
                "render": {
                    "renderedUrl": f"https://rendered.invalid/{made}.mp4",
                    "thumbnailUrl": f"https://rendered.invalid/{made}.jpg",
                },
                "webhook": {},
            }[entry.kind]
            self.bodies[entry.key] = entry.body
            self._keep("effect", {"key": entry.key, "answer": self.effects[entry.key], "body": entry.body})
        return self.effects[entry.key]

    async def _misbehave(self, behaviour: Behaviour, entry: Entry, send: Send) -> bool:
        """True where the call has been dealt with."""
        if behaviour.effect:
            self._effect(entry)
        if behaviour.mode == "die":
            self._keep("entry", asdict(entry))
            os._exit(1)
        elif behaviour.mode == "hang":
            await asyncio.sleep(FOR_EVER)
        elif behaviour.mode == "late":
            await self._work(entry, behaviour.seconds)
            return False
        elif behaviour.mode == "drip":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for byte in json.dumps(self._effect(entry)).ljust(4096).encode():
                await send({"type": "http.response.body", "body": bytes([byte]), "more_body": True})
                await asyncio.sleep(behaviour.seconds)
        else:
            message = behaviour.message or f"told to answer {behaviour.status}"
            await self._end(
                entry, send, behaviour.status, message, said=behaviour.said, retry_after=behaviour.retryAfter
            )
        return True

    async def _end(
        self,
        entry: Entry,
        send: Send,
        status: int,
        message: str = "",
        effect: dict[str, Any] | None = None,
        *,
        said: str | None = None,
        retry_after: str | None = None,
    ) -> None:
        entry.status = status
        self._keep("entry", asdict(entry))
        body = json.dumps({"error": {"message": message}} if effect is None else effect) if said is None else said
        await answer(send, status, body, retry_after)


async def answer(send: Send, status: int, body: Any, retry_after: str | None = None) -> None:
    """`body`: as text, or what JSON is made of."""
    said = (body if isinstance(body, str) else json.dumps(body)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(said)).encode())]
    if retry_after is not None:
        headers.append((b"retry-after", retry_after.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": said})
