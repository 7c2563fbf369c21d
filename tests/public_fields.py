"""The public fields of a post, in the order in which answers and messages have them (docs/api.md)."""

from shared.domain.edits import PLAIN

PUBLIC_FIELDS = [
    "postId", "accountId", "platform", "contentType", "contentUrl", "thumbnailUrl", *(plain.name for plain in PLAIN),
    "soundId", "timezone", "scheduledTime", "status", "createdAt",
]  # fmt: skip
