"""Refuses heads that the parser accepts: a server must refuse them, or might read them in another way than a proxy."""

import re
from collections.abc import Iterable, Sequence

from pydantic_core import to_json

from api.http.request_id import ANSWERS_CARRY

NO_HOST = "HTTP/1.1 needs one Host header with a host name and, if need be, a port (RFC 9112, 3.2); send it"
NO_VERSION = "This server speaks HTTP/1.1 and HTTP/1.0; send one of them"
NO_TUNNEL = "This server opens no tunnels; send the request itself, not CONNECT"
NO_CODING = "The only transfer coding that is read here is chunked, in HTTP/1.1; send the body as it is"
NO_TRAILER = "Connection is no trailer (RFC 9110, 6.5.1); send it in the head of the request, or not at all"

_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")


class Refused(Exception):  # noqa: N818  -- not an error of ours
    """A head that the parser accepts and we do not. Its text is for the client."""


def fault(version: str, headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """What is wrong with a head, as a message; None if nothing is. `headers`: with names in lower case."""
    if version not in ("1.1", "1.0"):
        return NO_VERSION
    hosts: list[bytes] = []
    codings: list[bytes] = []
    for name, value in headers:
        if name == b"host":
            hosts.append(value.strip())
        elif name == b"transfer-encoding":
            codings.append(value.strip().lower())
    if len(hosts) > 1 or (not hosts and version == "1.1") or (hosts and not _HOST.fullmatch(hosts[0])):
        return NO_HOST
    # Any other coding would be parsed as the JSON itself. In HTTP/1.0, chunks are a sign of a proxy that read the body
    # in another way (RFC 9112, 6.1).
    if codings and (codings != [b"chunked"] or version == "1.0"):
        return NO_CODING
    return None


CODE = "invalid_request"
"""The error code of every refusal here."""


def refusal(message: str, request_id: str, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The whole answer 400 to input that is no request, with the API's JSON error. `headers`: those of every answer."""
    body = to_json({"error": {"code": CODE, "message": message, "requestId": request_id}})
    lines = [
        *headers,
        *ANSWERS_CARRY,
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", request_id.encode()),
        (b"connection", b"close"),
    ]
    head = b"".join(b"%s: %s\r\n" % line for line in lines)
    return b"HTTP/1.1 400 Bad Request\r\n" + head + b"\r\n" + body
