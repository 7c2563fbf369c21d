"""A real request to each part that speaks HTTP: with a TLS handshake, and with the authorities that workers trust."""

import time
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

import httpx

PATIENCE: Final = 2.0
_NO_BACKEND: Final = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})


class UntrustedError(Exception):
    """The server's certificate is not trusted, or is another server's. Its text says why."""


def answers_ok(url: str) -> float | None:
    """Whether an API of ours answers 200 there; a frozen one still accepts connections. Raises as `answers`.

    Returned: its clock minus ours in seconds, exact to a second; None where it does not tell.
    """
    status, date = _asked("GET", url)
    if status != HTTPStatus.OK:
        raise OSError(0, f"it answers {status}")
    try:
        # A date has whole seconds: on average, half a second is cut off.
        return parsedate_to_datetime(date).timestamp() + 0.5 - time.time()
    except ValueError:
        return None


def answers(url: str, method: str = "HEAD") -> None:
    """Whether a server answers there at all, to a request without a body and without a signature. Its status says
    nothing, for a service is made for its own work only. A proxy says by three of them that nothing stands behind it.

    Raises UntrustedError; OSError where there is no answer.
    """
    status, _ = _asked(method, url)
    if status in _NO_BACKEND:
        raise OSError(0, f"it answers {status}")


def _asked(method: str, url: str) -> tuple[int, str]:
    """The status of the answer, and its Date."""
    # As the workers' own connections: SSL_CERT_FILE counts, proxies of the environment do not.
    tls = httpx.create_ssl_context() if url.startswith("https:") else False
    try:
        with (
            httpx.Client(timeout=PATIENCE, trust_env=False, verify=tls) as client,
            client.stream(method, url) as answer,
        ):
            return answer.status_code, answer.headers.get("date", "")
    except httpx.TimeoutException as error:
        raise OSError(0, "no answer in time") from error
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise OSError(0, "its URL is none of http or https") from error
    except httpx.TransportError as error:
        raise (_untrusted(error) or OSError(0, _words(error))) from error


def _untrusted(error: BaseException) -> UntrustedError | None:
    """Of an SSLCertVerificationError below this error, which alone has a `verify_message`."""
    below: BaseException | None = error
    while below is not None:
        if said := getattr(below, "verify_message", None):
            return UntrustedError(str(said).rstrip(". "))
        below = below.__cause__ or below.__context__
    return None


def _words(error: BaseException) -> str:
    """What went wrong without the text of the error, which may hold a URL: what the system called it at its root."""
    below: BaseException | None = error
    said = "it speaks no HTTP"
    while below is not None:
        if isinstance(below, OSError) and below.strerror:
            said = below.strerror.lower()
        below = below.__cause__ or below.__context__
    return said
