"""What the bodies of answers share: their base, times, pages and errors."""

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from api.http.problems import Code
from shared.domain.bodies import absent

T = TypeVar("T")

InstantShown = Annotated[
    str, Field(json_schema_extra={"format": "date-time"}, examples=["2030-04-22T19:00:00Z"], description="UTC")
]
EditId = Annotated[str, Field(examples=["edit_01k8xg6v3f9zq4d7c2m5n8p1rt"])]
JobId = Annotated[str, Field(examples=["rsch_01k8xg6v3f9zq4d7c2m5n8p1rt"])]


class Shown(BaseModel):
    """An answer's body. New fields may come."""

    model_config = ConfigDict(alias_generator=to_camel)


class Page(Shown, Generic[T]):
    """One page of a list."""

    data: list[T]
    has_more: bool
    next_cursor: str | None = Field(description="send it as cursor for the next page; null on the last")


class Fault(Shown):
    """One thing that is wrong."""

    field: str = Field(
        description="a field or parameter as it was sent: contentUrl[3]; for cannot_edit: status", examples=["timezone"]
    )
    message: str = Field(examples=["timezone is missing; scheduledTime needs it"])


class ErrorBody(Shown):
    """What is wrong: branch on `code`."""

    code: Code
    message: str = Field(description="for people: what is wrong and what to do next")
    request_id: str = Field(description="as in X-Request-Id", examples=["req_01k8xg6v3f9zq4d7c2m5n8p1rt"])
    details: list[Fault] = Field(default=absent, description="only where they help: all fields at fault")


class Problem(Shown):
    """Every error has this shape."""

    error: ErrorBody


class Health(Shown):
    """The process is up."""

    status: Literal["ok"]


class Readiness(Shown):
    """Whether edits can be accepted."""

    database: Literal["up", "read_only", "down"]
    redis: Literal["up", "down"]
