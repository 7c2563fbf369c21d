"""The body of an undo."""

from typing import ClassVar

from pydantic import Field

from shared.domain.bodies import Body
from shared.domain.body_reading import read
from shared.domain.fields import Flag


class Undo(Body):
    """May be left out."""

    optional: ClassVar[bool] = True
    force: Flag = Field(default=False, description="overwrite what later edits made of the same fields")


def parse_undo(body: object) -> bool:
    """Whether the undo overwrites later edits. Raises InvalidRequest."""
    given: Undo = read(Undo, body)
    return given.force
