"""What became of each post of a run, as one CSV file (`redraft reschedule --results FILE`)."""

import csv
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from shared.cli.api_client import ArgumentsError
from shared.cli.reschedule_captions import CaptionPlan
from shared.cli.reschedule_client import Job, Jobs
from shared.domain.csv_lines import safe_cell

FIELDS: Final = ("postId", "outcome", "before", "after", "reason", "warning", "what")


def check(path: Path) -> None:
    """Raises ArgumentsError where the file cannot be written, before anything is sent."""
    folder = path.parent
    if path.is_dir() or not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise ArgumentsError(f"--results {path} cannot be written")


def write(path: Path, jobs: Jobs, found: Iterable[Job], captions: CaptionPlan) -> None:
    """The results of these jobs and captions. The file is there when it is whole, and not before. Times are UTC.

    `what` says what was to change: `time` or `caption`.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("w", newline="", encoding="utf-8") as file:
            lines = csv.writer(file)
            lines.writerow(FIELDS)
            for job in found:
                for row in jobs.results(job["id"]):
                    lines.writerow([safe_cell(row.get(name) or "") for name in FIELDS[:-1]] + ["time"])
            for post_id, outcome, reason in captions.outcomes():
                lines.writerow([safe_cell(post_id), outcome, "", "", safe_cell(reason), "", "caption"])
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
