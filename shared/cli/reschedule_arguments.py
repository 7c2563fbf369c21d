"""The arguments of `redraft reschedule`, and what they ask for together."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from shared.cli.api_client import ArgumentsError
from shared.domain.errors import InvalidRequest
from shared.domain.reschedule_requests import parse_request

DATA_DIR: Final = Path(".redraft")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The command's arguments, as they came. `job`: what to do with a job or a run that is there already, by its id."""

    filter: Mapping[str, Any]
    shift: str
    spread: Mapping[str, str]
    min_gap: str
    csv: Path | None
    skip_bad_lines: bool
    first_line: int
    job: Mapping[str, str]
    results: Path | None
    dry_run: bool
    yes: bool
    as_json: bool
    data_dir: Path

    @property
    def gap(self) -> dict[str, str]:
        """What keeps the posts of an account apart, as a part of a job's body."""
        return {"minGap": self.min_gap} if self.min_gap else {}

    def advised(self, command: str) -> str:
        """How a command begins that goes on with this one's jobs."""
        return advised(command, self.data_dir)


def advised(command: str, data_dir: Path) -> str:
    """The command with what makes it find the same API."""
    return command if data_dir == DATA_DIR else f"{command} --data-dir {shlex.quote(str(data_dir))}"


def understood(asked: Asked) -> dict[str, Any] | None:
    """The body of the one job that is asked for; None where a CSV, or a job's or a run's id, says what to do."""
    spread = {name: value for name, value in asked.spread.items() if value}
    ways = {"--shift": asked.shift, "--spread-from": spread, "--csv": asked.csv} | {
        f"--{name}": job_id for name, job_id in asked.job.items()
    }
    chosen = [name for name, value in ways.items() if value]
    if len(chosen) != 1:
        what = f"not {' and '.join(chosen)} together" if chosen else "none was given"
        raise ArgumentsError(f"give one of {', '.join(ways)}; {what}")
    if asked.gap:
        if chosen[0].removeprefix("--") in asked.job:
            raise ArgumentsError(f"{chosen[0]} takes no --min-gap; give it where the posts are moved")
        _check({"filter": {"all": True}, "shift": "P1D"} | asked.gap)
    meant = {name: value for name, value in asked.filter.items() if value}
    if not (asked.shift or spread):
        if meant:
            raise ArgumentsError(f"{chosen[0]} names the posts itself; leave out the options that choose posts")
        return None
    if not meant:
        raise ArgumentsError("say which posts: any of --account, --platform, --from, --to, --post, or --all")
    body = {"filter": meant, **({"shift": asked.shift} if asked.shift else {"spread": spread}), **asked.gap}
    _check(body)
    return body


def _check(body: dict[str, Any]) -> None:
    try:
        parse_request(body)
    except InvalidRequest as invalid:
        raise ArgumentsError("\n  ".join(dict.fromkeys(detail.message for detail in invalid.details))) from None
