"""Known holes in what the lock files name: by a snapshot of advisories that is here, and by the live ones in reach.

    python -m tests.dependencies.audit [PATH OF pip-audit]

The snapshot needs no network and grows old. pip-audit asks the package index, and where that answers for packages but
not for advisories it says "no known vulnerabilities" all the same: so it is first asked about a version with known
holes. Who does not know of those knows nothing, and that is said aloud instead. Exit code 1: a hole was found.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCKS = (
    "requirements.lock",
    "tests/requirements.lock",
    "tests/benchmarks/requirements.lock",
    "tests/contract/requirements.lock",
)
SNAPSHOT = Path(__file__).with_name("advisories.json")
# CVE-2020-28493 and four others, for ever.
CANARY = "jinja2==2.10"
PATIENCE = 300.0
# Advisories that do not concern us, each with the reason why not.
ACCEPTED: Mapping[str, str] = {}

NOT_AUDITED = """\
**********************************************************************
* NOT AUDITED against live advisories: {why}
* Only the snapshot of {date} was looked at. Run `make audit` where the
* package index serves advisories.
**********************************************************************"""


@dataclass(frozen=True, order=True)
class Hole:
    """An advisory that concerns a locked version."""

    package: str
    version: str
    advisory: str


def locked(folder: Path = ROOT) -> set[tuple[str, str]]:
    """Name and version of everything that any lock file names."""
    named = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
    return {
        (re.sub(r"[-_.]+", "-", name.lower()), version)
        for lock in LOCKS
        for name, version in named.findall((folder / lock).read_text())
    }


def snapshot() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(SNAPSHOT.read_text())
    return found


def known_holes(packages: Iterable[tuple[str, str]], advisories: Iterable[Mapping[str, Any]]) -> list[Hole]:
    """Those of these packages that an advisory's ranges hold, in the OSV format's meaning."""
    wanted = dict[str, list[str]]()
    for name, version in packages:
        wanted.setdefault(name, []).append(version)
    return sorted(
        Hole(one["package"], version, one["id"])
        for one in advisories
        for version in wanted.get(one["package"], ())
        if one["id"] not in ACCEPTED and any(_within(Version(version), events) for events in one["ranges"])
    )


def _within(version: Version, events: Sequence[Mapping[str, str]]) -> bool:
    inside = False
    for event in events:
        if "introduced" in event and (event["introduced"] == "0" or version >= Version(event["introduced"])):
            inside = True
        if "fixed" in event and version >= Version(event["fixed"]):
            inside = False
        if "last_affected" in event and version > Version(event["last_affected"]):
            inside = False
    return inside


def live_holes(command: Sequence[str], folder: Path = ROOT) -> list[Hole]:
    """What pip-audit knows of the lock files. Raises LookupError, with the reason, where it knows nothing."""
    with tempfile.TemporaryDirectory() as made:
        canary = Path(made) / "canary.txt"
        canary.write_text(f"{CANARY}\n")
        if not any(one.get("vulns") for one in _ask(command, canary)):
            raise LookupError("no advisories are served here")
    holes = set()
    for lock in LOCKS:
        for one in _ask(command, folder / lock):
            if one.get("skip_reason"):
                raise LookupError(f"{one['name']} of {lock} was skipped")
            found = {vuln["id"] for vuln in one["vulns"]} - ACCEPTED.keys()
            holes |= {Hole(one["name"], one["version"], advisory) for advisory in found}
    return sorted(holes)


def _ask(command: Sequence[str], requirements: Path) -> list[dict[str, Any]]:
    argv = [*command, "--requirement", str(requirements), "--no-deps", "--disable-pip"]
    argv += ["--format=json", "--progress-spinner=off"]
    try:
        ran = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False)
        said: list[dict[str, Any]] = json.loads(ran.stdout)["dependencies"]
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError) as error:
        raise LookupError(f"pip-audit gave no answer ({type(error).__name__})") from error
    return said


def main(command: Sequence[str]) -> int:
    packages, known = locked(), snapshot()
    holes = known_holes(packages, known["advisories"])
    print(f"{len(packages)} locked packages, {len(known['advisories'])} advisories in the snapshot")
    try:
        holes += live_holes(command)
        print("Live advisories were asked for every locked package.")
    except LookupError as error:
        print(NOT_AUDITED.format(why=error, date=known["asOf"]))
    for hole in holes:
        print(f"HOLE: {hole.package} {hole.version}: {hole.advisory}")
    print("Servers and C libraries inside the wheels are seen by neither: docs/security.md names them.")
    print(f"Known holes: {len(holes)}. The snapshot of advisories is of {known['asOf']}.")
    return 1 if holes else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["pip-audit"]))
