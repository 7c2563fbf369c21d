"""Every setting: an environment variable `REDRAFT_<NAME>`.

docs/configuration.md is made from this file by `python -m shared.cli.configuration`, and a test holds the two equal.
"""

import re
from functools import lru_cache
from typing import Final

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.domain import addresses, start_rules

_PREFIX: Final = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+)+")


class Settings(BaseSettings):
    """What the environment says. Times are seconds unless the name says otherwise."""

    model_config = SettingsConfigDict(env_prefix="REDRAFT_", frozen=True, extra="ignore")

    # Where things are. Unset, `redraft up` starts embedded servers and sets both for its children.
    database_url: str = Field(
        default="",
        description="PostgreSQL, 18 or newer: `postgresql+psycopg://user:password@host:port/name`. "
        "If it is empty, `redraft up` starts a server.",
    )
    database_direct_url: str = Field(
        default="",
        description="The same PostgreSQL without a pooler between, for `redraft migrate`. Set it if "
        "`REDRAFT_DATABASE_URL` names PgBouncer in transaction mode. Each transaction then brings its settings itself.",
    )
    redis_url: str = Field(
        default="",
        description="Redis or Valkey: `redis://:password@host:port/0`. If it is empty, `redraft up` starts a server.",
    )
    publisher_url: str = Field(
        default="", description="Your publisher. If it is empty, a sandbox serves that only logs."
    )
    renderer_url: str = Field(default="", description="Your renderer. If it is empty, a sandbox serves that only logs.")
    webhook_url: str = Field(
        default="", description="Your receiver of webhooks. If it is empty, no events are written or sent."
    )
    service_secret: str = Field(
        default="",
        description="Signs what publisher, renderer and receiver are sent: one secret, or two with a comma between "
        "while it is changed. If it is empty, workers warn about it.",
    )
    ops_user: str = Field(default="ops", description="The user of the operators' page `/ops`.")
    ops_users: str = Field(
        default="",
        description="More users of `/ops`, with commas between, all with its passwords. What a user does is kept with "
        "the user's name.",
    )
    ops_password: str = Field(
        default="",
        description="The password of `/ops`. If it is empty, the page is off; `redraft up` makes a password.",
    )
    ops_read_password: str = Field(
        default="", description="A second password of `/ops`, which only looks. If it is empty, there is none."
    )
    flower_url: str = Field(default="", description="Where `/ops` finds Flower, for its links.")
    flower_inner_url: str = Field(
        default="",
        description="Where `redraft doctor` reaches Flower, if that is another address than `REDRAFT_FLOWER_URL`.",
    )
    log_format: str = Field(
        default="auto", description="`json`, `console`, or `auto`: console on a terminal, JSON elsewhere."
    )
    log_level: str = Field(default="INFO", description="`DEBUG`, `INFO`, `WARNING` or `ERROR`.")
    trusted_proxies: str = Field(
        default="",
        description="Addresses and networks, with commas between, whose `X-Forwarded-For` counts. "
        "If it is empty, no address is trusted, loopback neither.",
    )
    root_path: str = Field(
        default="",
        description="The prefix that a proxy before the API strips, as `/redraft`. `Location`, `/ops`, `/docs` "
        "and the messages of errors carry it. If it is empty, there is none.",
    )
    alive_file: str = Field(
        default="",
        description="A file that the pool of a worker touches every two seconds, for a health check that looks at its "
        "age. If it is empty, there is none.",
    )
    metrics_token: str = Field(
        default="",
        description="A bearer token for `/metrics`. If it is empty, everyone who reaches the port may read the page.",
    )

    # Waiting for an answer.
    wait_default: float = Field(default=10.0, description="How long a PATCH waits for the result of its edit.")
    wait_max: float = Field(default=30.0, description="The longest `Prefer: wait` that a request may ask for.")
    waiters_max: int = Field(
        default=512,
        description="Requests of one API process that wait at the same time. More are answered 202 at once. "
        "One workspace gets three quarters of them.",
    )
    pending_max: int = Field(
        default=2000, description="Edits of one API process that are not recorded yet. More are answered 503."
    )
    database_patience: float = Field(
        default=2.0, description="How long a request waits for PostgreSQL before it is answered 503."
    )

    # Periods and limits.
    rescue_period: float = Field(
        default=5.0, description="How often rescue looks for work whose message was lost, and rings for it again."
    )
    dispatch_period: float = Field(default=1.0, description="How often beat looks for posts that are due.")
    horizon: float = Field(default=60.0, description="Posts that are due within it are enqueued.")
    lock_timeout: float = Field(default=2.0, description="How long a statement waits for a lock (PostgreSQL's own).")
    idle_in_transaction_session_timeout: float = Field(
        default=5.0, description="When PostgreSQL ends a transaction that sends nothing."
    )
    transaction_timeout: float = Field(default=15.0, description="When PostgreSQL ends a transaction in any case.")
    service_timeout: float = Field(
        default=30.0, description="The deadline of one call of a service, from connecting to the last byte."
    )
    claim_expiry: float = Field(
        default=60.0, description="How long a claim holds when its worker is not heard of any more."
    )
    visibility_timeout: int = Field(
        default=300, description="When Redis gives a message that was not acknowledged to another worker."
    )
    grace: float = Field(
        default=45.0,
        description="How long a worker may take to end after SIGTERM. The time limit of a task is 5 s shorter.",
    )
    tries_never_started: int = Field(
        default=10,
        ge=1,
        description="How often a call is tried within an hour: one that never started, or was answered 5xx or 401.",
    )
    tries_unknown: int = Field(default=3, ge=1, description="How often a call is tried if its outcome is unknown.")
    publisher_keeps_keys: float = Field(
        default=86400.0,
        description="How long your publisher remembers an `Idempotency-Key` that it did not refuse. "
        "Redraft sends no request under a key that is about that old.",
    )
    edit_attempts: int = Field(default=5, ge=1, description="How many workers an edit may end before it is `failed`.")
    queue_full: int = Field(
        default=1000, description="Dispatch and rescue ring a queue only while it holds fewer messages."
    )
    idempotency_hours: int = Field(default=24, description="How many hours an `Idempotency-Key` is kept at least.")
    redis_timeout: float = Field(default=2.0, description="The longest wait for an answer of Redis.")

    # More cores for the API of one host.
    api_processes: int = Field(
        default=0,
        ge=0,
        le=64,
        description="API processes of `redraft api` and `redraft up`, on one port. "
        "0: one for each two cores, at least one and at most four.",
    )
    api_place: str = Field(
        default="",
        description="`redraft api` sets it for each of several processes: the port and a number, `8000/2`. "
        "If it is empty, the process has its port alone.",
    )

    # How many at once in one worker process.
    edits_concurrency: int = Field(default=2, description="Pool processes of the edits worker.")
    bulk_concurrency: int = Field(default=2, description="Pool processes of the bulk worker.")
    ops_concurrency: int = Field(default=1, description="Pool processes of the ops worker.")
    publish_concurrency: int = Field(default=64, description="Messages that a publish worker has in hand at once.")
    publish_calls: int = Field(
        default=512, description="Calls of the publisher at once, over all messages that the worker has in hand."
    )
    render_concurrency: int = Field(default=16, description="Renders at once.")
    webhook_calls: int = Field(default=64, description="Calls of the receiver of webhooks at once.")
    webhooks_concurrency: int = Field(default=16, description="Messages that a webhooks worker has in hand at once.")

    # Flower always has a password: a start without one makes one up and prints it.
    flower_user: str = Field(default="flower", description="The user of Flower.")
    flower_password: str = Field(
        default="", description="The password of Flower. If it is empty, the start makes one up and prints it."
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, text: str) -> str:
        addresses.networks(text)
        return text

    @field_validator("root_path")
    @classmethod
    def _is_a_prefix(cls, text: str) -> str:
        if text and not _PREFIX.fullmatch(text):
            raise ValueError("it begins with / and ends without one, with letters, digits, and ._~- between")
        return text

    @field_validator("service_secret")
    @classmethod
    def _is_one_or_two(cls, text: str) -> str:
        secrets = text.split(",")
        if len(secrets) > 2 or (len(secrets) == 2 and any(one != one.strip() or not one for one in secrets)):
            raise ValueError("write one secret, or two with a comma between and no blanks")
        return text


@lru_cache(maxsize=1)
def settings() -> Settings:
    """This process's settings, read once. StartError where a variable has an invalid value."""
    try:
        return Settings()
    except ValidationError as error:
        # Without the value: it may be a secret.
        wrong = [
            f"{start_rules.variable(str(one['loc'][0]))}: {one['msg']}" for one in error.errors(include_input=False)
        ]
        raise start_rules.StartError("; ".join(wrong)) from None
