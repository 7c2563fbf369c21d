"""Bulk jobs over HTTP, with a key like any client: started once whatever happens on the way, watched, read."""

import csv
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from shared.domain.ids import new_id

PATH: Final = "/v1/reschedules"
PATIENCE: Final = 60.0
REPEATABLE: Final = frozenset({429, 502, 503, 504})
LIVE: Final = frozenset({"queued", "running"})
MOST_EXAMPLES: Final = 5

Job = dict[str, Any]


class RefusedError(Exception):
    """The API refused the request; the message is its own. `status`: HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class UnreachableError(Exception):
    """The API did not answer for a minute."""


class Client:
    """One API, one key. Requests are repeated while the API is away; new jobs carry an Idempotency-Key."""

    def __init__(self, url: str, key: str) -> None:
        # The environment's proxy is no way to this machine's own API.
        local = urlsplit(url).hostname in {"127.0.0.1", "localhost", "::1"}
        self._url = url
        self._http = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30, trust_env=not local
        )

    def start(self, body: dict[str, Any]) -> Job:
        """A new job, once, however often the request has to be sent."""
        return self._job("POST", "", json=body, headers={"Idempotency-Key": new_id("cli")})

    def get(self, job_id: str) -> Job:
        return self._job("GET", f"/{job_id}")

    def cancel(self, job_id: str) -> Job:
        return self._job("POST", f"/{job_id}/cancel")

    def revert(self, job_id: str) -> Job:
        return self._job("POST", f"/{job_id}/revert", headers={"Idempotency-Key": new_id("cli")})

    def watch(self, job: Job) -> Iterator[Job]:
        """The job as it goes on, up to its end, which comes last."""
        pause = 0.05
        while job["status"] in LIVE:
            yield job
            time.sleep(pause)
            pause = min(0.5, pause * 1.3)
            job = self.get(job["id"])
        yield job

    def moves(self, job_id: str, limit: int) -> list[dict[str, Any]]:
        """The first posts that the job moves."""
        page = self._json("GET", f"{PATH}/{job_id}/results", params={"outcome": "applied", "limit": str(limit)})
        found: list[dict[str, Any]] = page["data"]
        return found

    def reasons(self, job_id: str, outcome: str) -> tuple[Counter[str], dict[str, list[str]]]:
        """Why posts were not moved: how many for each reason, and some of them."""
        counts: Counter[str] = Counter()
        examples: dict[str, list[str]] = {}
        path = f"{PATH}/{job_id}/results"
        with self._http.stream("GET", path, params={"outcome": outcome}, headers={"Accept": "text/csv"}) as answer:
            if answer.status_code != 200:
                answer.read()
                raise _refusal(answer)
            for row in csv.DictReader(answer.iter_lines()):
                counts[row["reason"]] += 1
                some = examples.setdefault(row["reason"], [])
                if len(some) < MOST_EXAMPLES:
                    some.append(row["postId"])
        return counts, examples

    def close(self) -> None:
        self._http.close()

    def _job(self, method: str, path: str, **given: Any) -> Job:
        job: Job = self._json(method, PATH + path, **given)
        return job

    def _json(self, method: str, path: str, **given: Any) -> Any:
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
                    raise _refusal(answer)
            if time.monotonic() + wait > deadline:
                raise UnreachableError(f"The API at {self._url} cannot be reached ({failure}). Is it running?")
            time.sleep(wait)
        if answer.status_code >= 400:
            raise _refusal(answer)
        return answer.json()


def _refusal(answer: httpx.Response) -> RefusedError:
    try:
        error = answer.json()["error"]
        details = [f"\n  {one['message']}" for one in error.get("details", ()) if one["message"] != error["message"]]
        return RefusedError(answer.status_code, error["message"] + "".join(details))
    except (ValueError, KeyError, TypeError):
        return RefusedError(answer.status_code, f"the API answered {answer.status_code}; is it Redraft's?")
