"""What the models of JSON bodies are made of: their base, and lists with a bound. Pure.

shared/domain/body_reading.py reads a body by its model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from shared.domain.errors import InvalidCode
from shared.domain.fields import fault, kind_of

ENOUGH: Final = 200
"""Errors of one body that are looked at, more or less. A client sees twenty of them."""
SEVERAL: Final = "several"
"""The type of an error that holds the errors of a list."""
_SLICE: Final = 50
ONE, MANY = "(one)", "(many)"
"""Tags of a union of a value and a list of values. They are no part of a field's name."""

Wrong = tuple[InvalidCode, str, str]
"""The code of a fault, its field, its message."""
absent: Any = None
"""The default of a field that may be left out, where no other value means the same."""


class Body(BaseModel):
    """A request's body or an object in it: no fields but these."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True, hide_input_in_errors=True)

    shape: ClassVar[str] = "be a JSON object"
    """What the value must do where it is no object, read after "must". `{kind}` is what it is instead."""
    read_only: ClassVar[frozenset[str]] = frozenset()
    """Fields that answers show and that no request may send."""
    optional: ClassVar[bool] = False
    """Whether a request may come without a body."""
    missing: ClassVar[str] = "send it"
    """What is said of a required field that is missing."""

    @classmethod
    def together(cls, given: Mapping[str, Any]) -> "Sequence[Wrong]":  # noqa: ARG003  -- models with such rules read it
        """What is wrong by the rules over several fields. The values of the JSON object may be wrong in themselves."""
        return ()


@cache
def names(model: type[BaseModel]) -> tuple[str, ...]:
    """The names of a model's fields as clients send them."""
    return tuple(field.alias or name for name, field in model.model_fields.items())


@dataclass(frozen=True, slots=True)
class Several:
    """An array: how many elements it may have, and whether each must differ. Annotates a list.

    `words` and `code`: the fault of another number, and of what is no array; `{count}` is the number. `other`: the
    words for what is no array, where they differ; `{kind}` is what it is. `once`: elements may not repeat. `by`: the
    field by which elements are compared, where they are objects.
    """

    least: int
    most: int
    words: str
    code: Any = "invalid_request"
    other: str | None = None
    once: bool = False
    by: str | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_wrap_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        shown = handler(core) | {"minItems": self.least, "maxItems": self.most}
        return shown | {"uniqueItems": True} if self.once and self.by is None else shown

    def _check(self, value: Any, handler: Any, info: core_schema.ValidationInfo) -> Any:
        if not isinstance(value, list):
            words = self.words if self.other is None else self.other.format(kind=kind_of(value))
            raise fault("invalid_request", words)
        if not self.least <= len(value) <= self.most:
            raise fault(self.code, self.words.format(count=f"{len(value):,}"))
        repeated = self._repeated(value) if self.once else []
        if not (repeated or info.context):
            return handler(value)
        found = repeated
        size = _SLICE if info.context else len(value)
        for start in range(0, len(value), size):
            try:
                handler(value[start : start + size])
            except ValidationError as error:
                if not info.context and error.error_count() > ENOUGH:
                    raise
                below = error.errors(include_url=False)
                found += [{**each, "loc": _moved(each["loc"], start)} for each in below]
            if len(found) >= ENOUGH:
                break
        if not found:
            return handler(value)
        raise PydanticCustomError(SEVERAL, "several errors", {"errors": found})

    def _repeated(self, value: list[Any]) -> list[Any]:
        keys = value if self.by is None else [each.get(self.by) if isinstance(each, dict) else None for each in value]
        first: dict[str, int] = {}
        found: list[Any] = []
        for place, key in enumerate(keys):
            if isinstance(key, str) and first.setdefault(key, place) != place and len(found) < ENOUGH:
                loc = (place,) if self.by is None else (place, self.by)
                found.append({"type": "repeated", "loc": loc, "ctx": {"first": first[key], "depth": len(loc)}})
        return found


def _moved(loc: tuple[Any, ...], by: int) -> tuple[Any, ...]:
    """The place of an error in the whole list, where `loc` is its place in the part that begins at `by`."""
    return (loc[0] + by, *loc[1:])
