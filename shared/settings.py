"""Every setting: an environment variable `REDRAFT_<NAME>`, with its default (docs/configuration.md)."""

from functools import lru_cache

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.domain import addresses, start_rules


class Settings(BaseSettings):
    """What the environment says. Times are seconds unless the name says otherwise."""

    model_config = SettingsConfigDict(env_prefix="REDRAFT_", frozen=True, extra="ignore")

    # Where things are. Unset, `redraft up` starts embedded servers and sets both for its children.
    database_url: str = Field(default="", description="postgresql+psycopg://user:password@host:port/name")
    redis_url: str = Field(default="", description="redis://:password@host:port/0")
    publisher_url: str = ""
    renderer_url: str = ""
    webhook_url: str = ""
    service_secret: str = ""
    ops_user: str = "ops"
    ops_password: str = ""
    flower_url: str = ""
    log_format: str = Field(default="auto", description="json, console, or auto: console on a terminal")
    log_level: str = "INFO"
    trusted_proxies: str = Field(
        default="", description="addresses and networks whose X-Forwarded-For counts; none, loopback neither, if empty"
    )
    metrics_token: str = Field(default="", description="a bearer token for /metrics; empty: whoever reaches the port")

    # Waiting for an answer (docs/api.md).
    wait_default: float = 10.0
    wait_max: float = 30.0
    waiters_max: int = 512
    pending_max: int = 2000
    database_patience: float = 2.0

    # Periods, time-outs and limits.
    rescue_period: float = 5.0
    dispatch_period: float = 1.0
    horizon: float = 60.0
    lock_timeout: float = 2.0
    idle_in_transaction_session_timeout: float = 5.0
    transaction_timeout: float = 15.0
    service_timeout: float = 30.0
    claim_expiry: float = 60.0
    visibility_timeout: int = 300
    grace: float = 45.0
    tries_never_started: int = 10
    tries_unknown: int = 3
    edit_attempts: int = 5
    queue_full: int = 1000
    idempotency_hours: int = 24
    redis_timeout: float = 2.0

    # How many at once in one worker process.
    edits_concurrency: int = 2
    bulk_concurrency: int = 2
    ops_concurrency: int = 1
    publish_concurrency: int = 64
    publish_calls: int = Field(default=512, description="calls of the publisher at once, over all messages in hand")
    render_concurrency: int = 16
    webhook_calls: int = Field(default=64, description="calls of the receiver of webhooks at once")
    webhooks_concurrency: int = 16

    # Flower always has a password: a start without one makes one up and prints it.
    flower_user: str = "flower"
    flower_password: str = ""

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, text: str) -> str:
        addresses.networks(text)
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
