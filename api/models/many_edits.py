"""Many edits in one request: the body, and what became of each edit."""

from typing import Annotated, Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field

from api.models.answers import EditId, Shown
from api.models.edits import EditError, PostPatch
from shared.domain.bodies import Body, Several, absent
from shared.domain.body_reading import read
from shared.domain.edits import FIELDS, EditPatch
from shared.domain.errors import InvalidRequest
from shared.domain.fields import PostId, Ruled, fault, kind_of, text
from shared.domain.lifecycle import EditStatus

EDITS_AT_MOST: Final = 1_000
_BESIDE: Final = {"postId", "ifMatch"}


def _tags(value: object) -> str:
    """A string of the form of the header If-Match. api/http/headers.py reads what is in it."""
    if not isinstance(value, str):
        raise fault("invalid_request", f'must be a string that holds an ETag, such as "\\"3\\"", not {kind_of(value)}')
    return text(value)


def _object(value: object) -> object:
    if not isinstance(value, dict):
        raise fault("invalid_request", f"must be a JSON object, not {kind_of(value)}")
    return value


class EditItem(PostPatch):
    """One edit of many: a post, and what a PATCH of that post would hold."""

    shape: ClassVar[str] = f"be a JSON object, not {{kind}}; send postId and any of {', '.join(FIELDS)}"
    missing: ClassVar[str] = "each edit names its post"

    post_id: PostId
    if_match: Annotated[
        str, Ruled(_tags, description="as If-Match of a PATCH: the post's ETag as you know it", examples=['"3"'])
    ] = absent


class OtherObject(BaseModel):
    """Any other JSON object is answered with its error, in its place."""

    model_config = ConfigDict(extra="allow")


_MANY: Final = Several(
    1,
    EDITS_AT_MOST,
    f"must hold 1 to {EDITS_AT_MOST:,} edits and holds {{count}}",
    other="must be an array, not {kind}",
)


class ManyEdits(Body):
    """Up to 1,000 edits, each judged, recorded and applied by itself."""

    edits: Annotated[list[EditItem | OtherObject], _MANY]


class _Unread(Body):
    """The same, for reading: what is wrong in an edit is that edit's own error, so each is read by itself."""

    edits: Annotated[list[Annotated[Any, Ruled(_object)]], _MANY]


def parse_edits(body: object) -> list[dict[str, Any]]:
    """The items of a parsed JSON body, not read yet. InvalidRequest for what is no list of 1 to 1,000 objects."""
    given: _Unread = read(_Unread, body)
    return given.edits


def parse_item(item: dict[str, Any]) -> tuple[EditPatch, str | None]:
    """The patch and the ifMatch of an item, judged as the body of a PATCH is. Raises InvalidRequest, and nothing else
    whatever JSON it is given.
    """
    given: EditItem = read(EditItem, item)
    if item.keys() <= _BESIDE:
        raise InvalidRequest(f"The edit changes nothing; send at least one of {', '.join(FIELDS)}")
    return given.patch(), given.if_match


class EditFate(Shown):
    """What became of one edit of many."""

    post_id: str = Field(description="as it was sent; empty where it was no string", examples=["post_abc123"])
    status: EditStatus = Field(description="rejected without an editId: refused at once, nothing was recorded")
    edit_id: EditId | None
    revision: int | None = Field(description="of the post, as the edit left it or, refused under the lock, found it")
    error: EditError | None


class ManyEdited(Shown):
    """What became of each edit, in the order of the request."""

    data: list[EditFate]
