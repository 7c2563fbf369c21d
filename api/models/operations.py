"""The contract, operation by operation: what may be sent, and every status and header that may come back.

tests/contract compares this table with the routes, and with the answers of a running API.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pydantic import BaseModel

from api.http import cursors, pagination, problems, reading
from api.models import answers, creation, deletion, edits, posts, reschedules
from shared.domain import fields
from shared.domain.lifecycle import EditStatus, Status
from shared.domain.reschedules import Outcome

Schema = dict[str, Any]

_STRING: Final[Schema] = {"type": "string"}
_ID: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": 255}
_INSTANT: Final[Schema] = {"type": "string", "pattern": fields.INSTANT_PATTERN, "examples": ["2030-04-22T00:00:00Z"]}
TAGS: Final = r'^(\*|[ ,]*|[ ,]*(W/)?"[!#-~]*"( *,[ ,]*(W/)?"[!#-~]*"){0,63}[ ,]*)$'


def _one_of(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


@dataclass(frozen=True, slots=True)
class Answer:
    """One status that is no error: its body's model (None: no body), its headers, other media types."""

    description: str
    model: type[BaseModel] | None = None
    headers: tuple[str, ...] = ()
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. `refusals`: the statuses of problems.STATUS that it may answer, besides those that
    follow from its having a key, a body, a query or a path parameter.
    """

    method: Literal["get", "post", "patch", "delete"]
    path: str
    name: str
    summary: str
    answers: Mapping[int, Answer]
    scope: str | None = None
    body: type[BaseModel] | None = None
    body_required: bool = True
    media_types: tuple[str, ...] = reading.JSON_TYPES
    headers: tuple[str, ...] = ()
    query: Mapping[str, tuple[Schema, str]] = field(default_factory=dict)
    refusals: tuple[int, ...] = ()

    @property
    def errors(self) -> list[int]:
        """Every error status that it may answer, in order."""
        # 400 for whatever stands in a query that the operation does not know.
        found = set(self.refusals) | {400, 500}
        if self.scope:
            found |= {401, 403, 429, 503}
        if self.body:
            found |= {413, 415}
        if "{" in self.path:
            found |= {404}
        if "Idempotency-Key" in self.headers:
            found |= {422}
        return sorted(found)


REQUEST_HEADERS: Final[Mapping[str, tuple[Schema, str]]] = {
    "Idempotency-Key": (
        {"type": "string", "pattern": "^[!-~]{1,255}$"},
        """Makes a repeat safe; kept for a day at least. A repeat with the same method, path, body and If-Match gets the
first one's own result, with anything else 422. A request that left nothing behind keeps no key.""",
    ),
    "If-Match": (
        {"type": "string", "pattern": TAGS, "examples": ['"3"']},
        """The post's ETag as you know it, a list of at most 64, or *; judged under the post's lock. Weak tags never
match: where no tag of it can be a post's, 412 says so at once, and no edit is made.""",
    ),
    "If-None-Match": (
        {"type": "string", "pattern": TAGS, "examples": ['"3"']},
        """An ETag that you have, a list, or *. GET: 304 if the post has it still. PATCH: 412 if the post has it when
the edit is to be applied; weak tags are compared without their W/.""",
    ),
    "Prefer": (
        {"type": "string", "examples": ["wait=5", "respond-async"]},
        """wait=N: how many seconds to wait for the edit's end, at most 30. respond-async: not at all; with wait=N, N
seconds.""",
    ),
    "Accept": (
        {"type": "string", "examples": ["text/csv"]},
        "text/csv: all results in one file, instead of pages.",
    ),
}

_PAGING: Final[Mapping[str, tuple[Schema, str]]] = {
    "limit": (
        {"type": "integer", "minimum": 1, "maximum": pagination.LIMIT_MAX, "default": pagination.LIMIT},
        "How many at most. A page may hold fewer where a filter matches few of very many: hasMore tells.",
    ),
    "cursor": (
        {"type": "string", "pattern": "^[A-Za-z0-9_-]+$", "maxLength": cursors.CURSOR_MAX},
        "nextCursor of the page before, with the same filters.",
    ),
}

_RETRY_ASYNC = ("Edit-Id", "Location", "Preference-Applied", "Idempotent-Replayed")

OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation(
        "patch",
        "/v1/posts/{postId}",
        "editPost",
        "Edit a post that waits to go live",
        {
            200: Answer("The post as this edit left it", posts.Post, ("ETag", *_RETRY_ASYNC)),
            202: Answer("Safely queued, not applied yet: ask at Location", edits.Edit, _RETRY_ASYNC),
        },
        scope="posts:write",
        body=edits.PostPatch,
        media_types=reading.PATCH_TYPES,
        headers=("If-Match", "If-None-Match", "Idempotency-Key", "Prefer"),
        refusals=(409, 412),
    ),
    Operation(
        "get",
        "/v1/posts/{postId}",
        "getPost",
        "One post, and how it ended",
        {200: Answer("The post", posts.PostDetails, ("ETag",)), 304: Answer("You have it", headers=("ETag",))},
        scope="posts:read",
        headers=("If-None-Match",),
    ),
    Operation(
        "get",
        "/v1/posts",
        "listPosts",
        "Posts, newest first",
        {200: Answer("A page of posts", posts.PostPage)},
        scope="posts:read",
        query={
            "status": (_one_of(*Status), "Only posts in this status."),
            "platform": (_one_of("tiktok", "instagram"), "Only posts on this platform."),
            "contentType": (_one_of("video", "slides"), "Only posts of this kind."),
            "accountId": (_ID, "Only posts of this account."),
            "scheduledFrom": (_INSTANT, "Only posts scheduled at or after this UTC time."),
            "scheduledTo": (_INSTANT, "Only posts scheduled before this UTC time."),
            **_PAGING,
        },
    ),
    Operation(
        "post",
        "/v1/posts/video",
        "createVideos",
        "Create a video post for each account",
        {201: Answer("The posts", creation.Created, ("Idempotent-Replayed",))},
        scope="posts:write",
        body=creation.NewVideos,
        headers=("Idempotency-Key",),
        refusals=(404,),
    ),
    Operation(
        "post",
        "/v1/posts/slideshow",
        "createSlideshows",
        "Create a post of slides for each account",
        {201: Answer("The posts", creation.Created, ("Idempotent-Replayed",))},
        scope="posts:write",
        body=creation.NewSlideshows,
        headers=("Idempotency-Key",),
        refusals=(404,),
    ),
    Operation(
        "delete",
        "/v1/posts",
        "deletePosts",
        "Delete posts that wait; each one that cannot be is reported with its reason",
        {200: Answer("What became of each", deletion.DeletionReport)},
        scope="posts:write",
        body=deletion.Deletion,
    ),
    Operation(
        "post",
        "/v1/posts/{postId}/retry",
        "retryPost",
        "Put a failed post back to due; one that may have gone out comes back closed to edits",
        {200: Answer("The post, back to work", posts.PostDetails, ("ETag",))},
        scope="posts:write",
        body=reschedules.Nothing,
        body_required=False,
        refusals=(409,),
    ),
    Operation(
        "get",
        "/v1/posts/{postId}/edits",
        "listEditsOfPost",
        "A post's audit trail, newest first",
        {200: Answer("A page of edits", edits.EditPage)},
        scope="posts:read",
        query=_PAGING,
    ),
    Operation(
        "get",
        "/v1/edits",
        "listEdits",
        "Edits, newest first: what became of many 202s in few calls",
        {200: Answer("A page of edits", edits.EditPage)},
        scope="posts:read",
        query={
            "status": (_one_of(*EditStatus), "Only edits in this status."),
            "postId": (_ID, "Only edits of this post."),
            "createdFrom": (_INSTANT, "Only edits accepted at or after this UTC time."),
            "createdTo": (_INSTANT, "Only edits accepted before this UTC time."),
            **_PAGING,
        },
    ),
    Operation(
        "get",
        "/v1/edits/{editId}",
        "getEdit",
        "One edit, and what became of it",
        {200: Answer("The edit", edits.Edit, ("Preference-Applied",))},
        scope="posts:read",
        headers=("Prefer",),
    ),
    Operation(
        "get",
        "/v1/accounts",
        "listAccounts",
        "The accounts that posts can be created for",
        {200: Answer("All of them, the oldest first", answers.AccountPage)},
        scope="posts:read",
    ),
    Operation(
        "post",
        "/v1/reschedules",
        "createReschedule",
        "Start a bulk job that moves many posts, or its dry run",
        {202: Answer("The job", reschedules.Job, ("Location", "Idempotent-Replayed"))},
        scope="bulk",
        body=reschedules.NewJob,
        headers=("Idempotency-Key",),
    ),
    Operation(
        "get",
        "/v1/reschedules",
        "listReschedules",
        "Bulk jobs, newest first",
        {200: Answer("A page of jobs", reschedules.JobPage)},
        scope="bulk",
        query=_PAGING,
    ),
    Operation(
        "get",
        "/v1/reschedules/{id}",
        "getReschedule",
        "One bulk job, cheap to poll",
        {200: Answer("The job", reschedules.Job)},
        scope="bulk",
    ),
    Operation(
        "get",
        "/v1/reschedules/{id}/results",
        "listResults",
        "What became of each post of a job",
        {
            200: Answer(
                "A page of results, or all of them as CSV", reschedules.ResultPage, ("Vary",), also=("text/csv",)
            )
        },
        scope="bulk",
        headers=("Accept",),
        query={"outcome": (_one_of(*Outcome), "Only posts with this outcome."), **_PAGING},
    ),
    Operation(
        "post",
        "/v1/reschedules/{id}/cancel",
        "cancelReschedule",
        "End a job before its next chunk",
        {200: Answer("The job, and what was moved", reschedules.Job)},
        scope="bulk",
        body=reschedules.Nothing,
        body_required=False,
        refusals=(409,),
    ),
    Operation(
        "post",
        "/v1/reschedules/{id}/revert",
        "revertReschedule",
        "Start the inverse job",
        {202: Answer("The inverse job", reschedules.Job, ("Location", "Idempotent-Replayed"))},
        scope="bulk",
        body=reschedules.Nothing,
        body_required=False,
        headers=("Idempotency-Key",),
        refusals=(409,),
    ),
    Operation("get", "/healthz", "getHealth", "The process is up", {200: Answer("It is", answers.Health)}),
    Operation(
        "get",
        "/readyz",
        "getReadiness",
        "Whether edits can be accepted",
        {
            200: Answer("They can, without Redis too", answers.Readiness),
            503: Answer("Not without a PostgreSQL that takes writes", answers.Readiness),
        },
    ),
)

CODES: Final[Mapping[int, list[str]]] = {
    status: [code for code, of in problems.STATUS.items() if of == status] for status in set(problems.STATUS.values())
}
"""The error codes of each status."""
