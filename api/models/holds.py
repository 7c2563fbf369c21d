"""The bodies of requests to hold and to resume, and of their answers."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from api.models.answers import InstantShown, Shown
from shared.domain.bodies import Body, absent
from shared.domain.fields import Ruled, fault, one_of, text
from shared.domain.holds import MISSED, REASON_MAX, fault_of_reason
from shared.domain.one_line import ONE_LINE


def _reason(value: object) -> str:
    given = text(value)
    if (wrong := fault_of_reason(given)) is not None:
        raise fault("invalid_request", wrong)
    return given


class NewHold(Body):
    """Why something is held."""

    optional: ClassVar[bool] = True
    reason: Annotated[str, Ruled(_reason, maxLength=REASON_MAX, pattern=ONE_LINE, examples=["the price is wrong"])] = (
        Field(default=absent, description="for people; webhooks carry it")
    )


class Resumption(Body):
    """What becomes of posts whose time went by while they were held."""

    optional: ClassVar[bool] = True
    missed: Annotated[str, one_of(("publish",))] = Field(
        default=absent, description="publish: they go out now. Without it they stay held by themselves."
    )


class Hold(Shown):
    """A hold."""

    since: InstantShown
    by: str = Field(description="the name of an API key or of an operator", examples=["marketing"])
    of: Literal["post", "account", "workspace"]
    reason: str | None = Field(description=f"{MISSED}: its time went by while it was held", examples=[MISSED])


class HoldReport(Shown):
    """What is held since when, and the posts that were already going out."""

    held: Hold
    going_out: list[str] = Field(
        description="posts that a publish had claimed before; they go out; the first 1,000", examples=[["post_abc123"]]
    )
    going_out_total: int = Field(examples=[1])


class Resumed(Shown):
    """What holds it still, and how many posts stay held since their time went by."""

    held: Hold | None
    missed: int = Field(description="posts that stay held by themselves, with reason missed", examples=[0])
    released: int = Field(description="missed posts that go out now", examples=[0])
