"""Parts of a PATCH's body, good and bad."""

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from api.models.edits import parse_patch
from shared.domain import edits
from shared.domain.errors import InvalidRequest

LONE = "\ud800"
NOW = datetime(2026, 4, 22, 15, 0, tzinfo=UTC)
TIME = {"scheduledTime": "2026-05-01T09:00", "timezone": "America/New_York"}
URL = "https://example.com/a.mp4"
TABLE = (*edits.FIELDS,)


def slides(count):
    return {"contentType": "slides", "contentUrl": [f"https://example.com/{n}.jpg" for n in range(count)]}


def refusal(body):
    with pytest.raises(InvalidRequest) as caught:
        parse_patch(body)
    return caught.value


@dataclass(frozen=True)
class Subject:
    platform: str = "tiktok"
    content_type: str = "video"
    render_as_video: bool = False
    caption: str = "stands"
