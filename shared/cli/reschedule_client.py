"""Bulk jobs over HTTP, with a key like any client: started once whatever happens on the way, watched, read."""

import csv
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from shared.cli.api_client import Api, RefusedError
from shared.domain.csv_lines import plain_text
from shared.domain.ids import new_id

PATH: Final = "/v1/reschedules"
LIVE: Final = frozenset({"queued", "running"})
MOST_EXAMPLES: Final = 5

Job = dict[str, Any]


class Jobs:
    """The bulk jobs of one key's workspace. New jobs carry an Idempotency-Key."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def start(self, body: dict[str, Any], key: str = "") -> Job:
        """A new job, once, however often the request has to be sent. `key`: its Idempotency-Key."""
        return self._job("POST", "", json=body, headers={"Idempotency-Key": key or new_id("cli")})

    def get(self, job_id: str) -> Job:
        return self._job("GET", f"/{job_id}")

    def find(self, job_id: str) -> Job | None:
        """None: the API has it no more."""
        try:
            return self.get(job_id)
        except RefusedError as refused:
            if refused.status != 404:
                raise
            return None

    def newest(self) -> Iterator[Job]:
        """All jobs of the workspace, the newest first."""
        cursor: dict[str, str] = {}
        while True:
            page = self.api.json("GET", PATH, params={"limit": "100"} | cursor)
            yield from page["data"]
            if not page["hasMore"]:
                return
            cursor = {"cursor": page["nextCursor"]}

    def cancel(self, job_id: str) -> Job:
        return self._job("POST", f"/{job_id}/cancel")

    def revert(self, job_id: str) -> Job:
        """The inverse job. A job has one inverse, so that the key follows from the job's id."""
        return self._job("POST", f"/{job_id}/revert", headers={"Idempotency-Key": f"cli-revert-{job_id}"})

    def watch(self, job: Job) -> Iterator[Job]:
        """The job as it goes on, up to its end, which comes last."""
        pause = 0.05
        while job["status"] in LIVE:
            yield job
            time.sleep(pause)
            pause = min(0.5, pause * 1.3)
            job = self.get(job["id"])
        yield job

    def results(self, job_id: str, outcome: str = "") -> Iterator[dict[str, str]]:
        """The result of each post, or of those with one outcome; an empty text where there is no value."""
        asked = {"outcome": outcome} if outcome else {}
        with self.api.lines(f"{PATH}/{job_id}/results", params=asked, headers={"Accept": "text/csv"}) as lines:
            for row in csv.DictReader(lines):
                # An id that a client sent may look like a formula.
                yield row | {"postId": plain_text(row["postId"])}

    def reasons(self, job_id: str, outcome: str) -> tuple[Counter[str], dict[str, list[str]]]:
        """Why posts were not moved: how many for each reason, and some of them."""
        counts: Counter[str] = Counter()
        examples: dict[str, list[str]] = {}
        for row in self.results(job_id, outcome):
            counts[row["reason"]] += 1
            some = examples.setdefault(row["reason"], [])
            if len(some) < MOST_EXAMPLES:
                some.append(row["postId"])
        return counts, examples

    def _job(self, method: str, path: str, **given: Any) -> Job:
        job: Job = self.api.json(method, PATH + path, **given)
        return job
