"""An answer whose body is JSON."""

from typing import Any

from pydantic_core import to_json
from starlette.responses import Response


class JsonAnswer(Response):
    """`content` as JSON. Pydantic's writer takes less than a third of the time of Starlette's."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return to_json(content)
