"""The limit of the HTTP stack: the route, the key's header read, the body parsed by nobody, a fixed answer."""

from typing import Annotated

from fastapi import FastAPI, Header, Response

from shared.local import die_with_parent

die_with_parent.die_with_parent()

app = FastAPI()

BODY = (
    b'{"postId": "post_0000001", "accountId": "acc_bench", "platform": "tiktok", "contentType": "video", '
    b'"contentUrl": "https://cdn.example.com/1.mp4", "thumbnailUrl": "https://cdn.example.com/1.jpg", '
    b'"caption": "A caption of a usual length, the kind that people write for a short video, with a #tag or #two 1", '
    b'"soundId": null, "timezone": "America/New_York", "scheduledTime": "2030-01-01T00:00:00Z", '
    b'"status": "generated", "createdAt": "2030-01-01T00:00:00Z"}'
)


@app.patch("/v1/posts/{post_id}")
async def nothing(post_id: str, authorization: Annotated[str, Header()]) -> Response:
    return Response(BODY, media_type="application/json", headers={"ETag": '"1"'})
