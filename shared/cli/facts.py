"""What the parts said when `redraft doctor` asked them, and what a finding is.

Pure. shared/cli/probes.py asks; shared/cli/findings.py and shared/cli/service_findings.py judge.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from shared.domain.failure_classes import FailureClass
from shared.domain.service_answers import Outcome
from shared.domain.start_rules import Unfit
from shared.domain.waits import Flood, Session


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: a stable code for scripts, what it is, and what to do."""

    code: str
    what: str
    todo: str


@dataclass(frozen=True, slots=True)
class Queue:
    """One of the broker's queues: its messages, and the workers that take from it."""

    name: str
    depth: int
    workers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Late:
    """A post that should have gone out, and why its row and tries say that it has not. `code`: the kind of reason."""

    post_id: str
    late: timedelta
    why: str
    code: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """How many posts had an answer of one kind, or failed in one way; `words`: those of the latest of them. `groups`:
    the most frequent words of them, with counts.
    """

    count: int
    words: str
    groups: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Webhooks:
    """Undelivered events of all workspaces. `oldest`: how long the one that waits longest has waited.

    `outcome`, `words`, `since`: the receiver's last answer, and how long ago that was; None where there was none.
    `took`: how long its calls take, of the workspace that waits longest.
    """

    queued: int = 0
    oldest: timedelta | None = None
    dead: int = 0
    outcome: Outcome | None = None
    words: str = ""
    since: timedelta | None = None
    took: timedelta | None = None


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """What PostgreSQL said. `skew`: its clock minus this machine's, in seconds; `skew_within`: how exact that is.

    `failed_posts`: posts that failed within a day; `failed_groups`: the most frequent groups of them, as lists show
    each, with counts; `failed_classes`: all of them by class. `publisher` and `renderer`: the last answers for posts
    between two tries. `renderer_waits`: how long the renderer has made a post wait at most.
    `unset`: settings that transactions do not run with: what each should be, and what it is.
    `unread`: what could not be read, and why.
    `oldest_edit`, `oldest_waits`: the edit that waits longest, and why it waits.
    `version`: such as `18.4`, empty where it is not known.
    `unfit`: why it cannot serve us. Nothing else was asked of it then.
    `failed_jobs`: bulk jobs that failed within a day, each with its error, the latest first.
    `flood`: the key whose edits are most of those that wait, or of those that come.
    `ending_keys`: API keys that end soon, each with how long it has left, the next one first.
    """

    skew: float
    skew_within: float
    pending: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    queued: int = 0
    oldest: timedelta | None = None
    failed: int = 0
    late: int = 0
    latest: tuple[Late, ...] = ()
    holders: tuple[Session, ...] = ()
    stalled: tuple[str, ...] = ()
    webhooks: Webhooks = Webhooks()
    publisher: Mapping[Outcome, Said] = field(default_factory=dict)
    renderer: Mapping[Outcome, Said] = field(default_factory=dict)
    renderer_waits: timedelta = timedelta()
    failed_posts: int = 0
    failed_groups: tuple[tuple[str, int], ...] = ()
    failed_classes: Mapping[FailureClass, Said] = field(default_factory=dict)
    version: str = ""
    unfit: Unfit | None = None
    unset: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)
    oldest_edit: str = ""
    oldest_waits: str = ""
    ending_keys: tuple[tuple[str, timedelta], ...] = ()
    flood: Flood | None = None
    failed_jobs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """What Redis said of itself. `saved`: how it keeps things on disk: `aof`, `rdb`, `nothing`, or `unknown` where it
    does not tell. `refuses`: why it refused a trial write; empty where it took it.
    """

    policy: str
    saved: str
    saving_fails: bool = False
    used: int = 0
    most: int = 0
    refuses: str = ""


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """What the broker and its workers said. `skews`: each worker's clock minus this machine's, in seconds. `versions`:
    the code that each worker runs, as far as it has reported it.

    `beat`: whether beat was heard, None where that is not known. `namesakes`: names that several workers have.
    """

    queues: tuple[Queue, ...]
    skews: Mapping[str, float] = field(default_factory=dict)
    beat: bool | None = True
    versions: Mapping[str, str] = field(default_factory=dict)
    namesakes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Facts:
    """All that was asked. None: that part did not answer; `unreachable` says so of each, by its name.

    `untrusted`: parts whose certificate is not trusted, and why. `broken`: probes that failed themselves. `version`:
    the code of this command. `api_skew`: the clock of the API's machine minus this machine's, in seconds, exact to a
    second.
    """

    database: DatabaseFacts | None
    redis: RedisFacts | None
    workers: WorkerFacts | None
    unreachable: Mapping[str, str] = field(default_factory=dict)
    now: datetime | None = None
    queue_full: int = 1000
    webhooks_wanted: bool = False
    untrusted: Mapping[str, str] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    api_skew: float | None = None
