"""The API over HTTP, for commands that have a key like any client: where it is, and requests that outlast an outage."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import typer

from shared.cli.places import stack_of
from shared.cli.workspaces import echo, refuse

PATIENCE: Final = 60.0
REPEATABLE: Final = frozenset({429, 502, 503, 504})
SOME_FAILED, BAD_ARGUMENTS, SOME_SKIPPED, INTERRUPTED = 1, 2, 3, 130


class ArgumentsError(Exception):
    """The message says what to give instead."""


class RefusedError(Exception):
    """The API refused the request; the message is its own. `status`: HTTP's; `code`: as docs/api.md has it."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class UnreachableError(Exception):
    """The API did not answer for a minute."""


class Api:
    """One API, one key. Requests are repeated while the API is away or over its limit. Threads may share it."""

    def __init__(self, url: str, key: str) -> None:
        # The environment's proxy is no way to this machine's own API.
        local = urlsplit(url).hostname in {"127.0.0.1", "localhost", "::1"}
        self.url = url
        self._http = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30, trust_env=not local
        )

    def json(self, method: str, path: str, **given: Any) -> Any:
        """The body of the answer. Raises RefusedError, UnreachableError."""
        return self.answer(method, path, **given).json()

    def answer(self, method: str, path: str, **given: Any) -> httpx.Response:
        """The whole answer, read; 2xx. Raises RefusedError, UnreachableError."""
        deadline = time.monotonic() + PATIENCE
        while True:
            wait = 0.5
            try:
                answer = self._http.request(method, path, **given)
            except httpx.TransportError as error:
                failure = f"{type(error).__name__}: {error}"
            else:
                if answer.status_code not in REPEATABLE:
                    break
                failure = f"it answers {answer.status_code}"
                wait = min(60.0, float(answer.headers.get("retry-after", "1")))
                if answer.status_code == 429 and time.monotonic() + wait > deadline:
                    # Its words say what to do; it can be reached.
                    raise refusal(answer)
            if time.monotonic() + wait > deadline:
                raise UnreachableError(f"The API at {self.url} cannot be reached ({failure}). Is it running?")
            time.sleep(wait)
        if answer.status_code >= 400:
            raise refusal(answer)
        return answer

    def knows(self, path: str, key: str) -> bool:
        """Whether a POST with this Idempotency-Key has reached the API. Nothing is done: an empty body asks for
        nothing, and the API looks at the key first. Raises RefusedError, UnreachableError.
        """
        try:
            self.answer("POST", path, json={}, headers={"Idempotency-Key": key})
        except RefusedError as refused:
            if refused.status in (400, 422):
                return refused.status == 422
            raise
        raise AssertionError("the API did something for an empty body")

    @contextmanager
    def lines(self, path: str, **given: Any) -> Iterator[Iterator[str]]:
        """The lines of a long answer as they come. Raises RefusedError, UnreachableError."""
        try:
            with self._http.stream("GET", path, **given) as answer:
                if answer.status_code != 200:
                    answer.read()
                    raise refusal(answer)
                yield answer.iter_lines()
        except httpx.TransportError as error:
            raise UnreachableError(
                f"The API at {self.url} broke off ({type(error).__name__}). Is it running?"
            ) from None

    def close(self) -> None:
        self._http.close()


def refusal(answer: httpx.Response) -> RefusedError:
    """The API's own words."""
    try:
        error = answer.json()["error"]
        details = [f"\n  {one['message']}" for one in error.get("details", ()) if one["message"] != error["message"]]
        return RefusedError(answer.status_code, error["message"] + "".join(details), error["code"])
    except (ValueError, KeyError, TypeError):
        return RefusedError(answer.status_code, f"the API answered {answer.status_code}; is it Redraft's?")


def place(data_dir: Path) -> tuple[str, str]:
    """Where the API is, and a key for it: the environment, else a local stack's own file. Raises ArgumentsError."""
    url, key = os.environ.get("REDRAFT_API_URL", ""), os.environ.get("REDRAFT_API_KEY", "")
    if not (url and key):
        with suppress(OSError, ValueError, TypeError, AttributeError):
            stack = stack_of(data_dir)
            url, key = url or stack.get("apiUrl") or "", key or stack.get("apiKey") or ""
    if not url:
        raise ArgumentsError("set REDRAFT_API_URL and REDRAFT_API_KEY, or start a stack here with: redraft up --demo")
    if not key:
        raise ArgumentsError("set REDRAFT_API_KEY; make a key with: redraft keys create")
    return url, key


@contextmanager
def session(data_dir: Path, command: str) -> Iterator[Api]:
    """The API, for a command that only reads or acts once. An error ends the command with its message and exit code."""
    try:
        api = Api(*place(data_dir))
        try:
            yield api
        finally:
            api.close()
    except ArgumentsError as bad:
        refuse(f"{command}: {bad}")
    except RefusedError as refused:
        refuse(f"{command}: {refused}", code=SOME_FAILED if refused.status >= 500 else BAD_ARGUMENTS)
    except UnreachableError as away:
        refuse(f"{command}: {away}", code=SOME_FAILED)
    except (KeyboardInterrupt, typer.Abort):
        echo("\nInterrupted.", err=True)
        raise typer.Exit(INTERRUPTED) from None
