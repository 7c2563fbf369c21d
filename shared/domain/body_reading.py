"""Reads a parsed JSON body by a Pydantic model, and says all that is wrong with it in one InvalidRequest. Pure.

Pydantic's list of errors becomes our faults in `faults_of`. Bodies come from strangers, so the work is bounded: a body
with very many errors is read a second time, carefully: unknown names are cut off, and lists end at enough errors.
Errors hold what the client sent. Log none of them.
"""

from collections.abc import Container, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Final, TypeVar, cast, get_args

from pydantic import ValidationError

from shared.domain import hints
from shared.domain.bodies import ENOUGH, MANY, ONE, SEVERAL, Body, names
from shared.domain.errors import Faults, InvalidRequest, printable
from shared.domain.fields import kind_of

_NAMES_KEPT: Final = 21
M = TypeVar("M", bound=Body)


def read(model: type[M], body: object) -> M:
    """The body as its model. Raises InvalidRequest, and nothing else whatever JSON it is given."""
    try:
        found = model.__pydantic_validator__.validate_python(body)
    except ValidationError as error:
        raise refusal(model, body, error) from None
    wrong = model.together(body)  # type: ignore[arg-type]  # a model in strict mode is made from an object
    if wrong:
        faults = Faults()
        for each in wrong:
            faults.add(*each)
        faults.raise_if_any()
    return cast("M", found)


def refusal(model: type[Body], body: object, error: ValidationError) -> InvalidRequest:
    """All that is wrong with a body that its model does not take."""
    if not isinstance(body, dict):
        return InvalidRequest(f"The body must {_shape(model, body)}")
    faults = Faults()
    faults_of(model, _errors(model, body, error), faults, given=body)
    return faults.error() or InvalidRequest("The body is not understood")


def _errors(model: type[Body], body: object, error: ValidationError) -> Iterable[Any]:
    if error.error_count() <= ENOUGH:
        found = error.errors(include_url=False)
        # Pydantic stops at the first name with a lone surrogate.
        if not any(each["type"] == "string_unicode" for each in found):
            return found
    try:
        model.model_validate(_cut(model, body), context=_CAREFULLY)
    except ValidationError as fewer:
        error = fewer
    return error.errors(include_url=False)


_CAREFULLY: Final = {"carefully": True}


def faults_of(
    model: type[Body],
    errors: Iterable[Any],
    faults: Faults,
    *,
    given: Mapping[str, Any] | None = None,
) -> None:
    """Translate a list of Pydantic's errors. `given`: the object, for `together`.

    Unknown fields come first, then the rules over several fields, then the fields themselves. Of one field, one fault.
    """
    flat = list(_flat(errors))
    for error in flat:
        if error["type"] == "extra_forbidden":
            *above, name = error["loc"]
            where = name_of(above)
            at = _at(model, above)
            prefixed = f"{where}." if where else ""
            check_known([str(name)], names(at), faults, prefix=prefixed, read_only=at.read_only)
    for wrong in model.together(given) if given is not None else ():
        faults.add(*wrong)
    said = faults.names()
    for error in flat:
        *above, last = error["loc"] or ("",)
        name = name_of([*above, error.get("ctx", {}).get("field", last)])
        if error["type"] != "extra_forbidden" and name not in said:
            code, words = _fault(model, error)
            if not faults.enough_of(code):
                faults.add(code, name, f"{name} {words}{_hint(error, given)}")


def _hint(error: Any, given: Any) -> str:
    """What was probably meant. `given`: the whole body."""
    match error.get("ctx"):
        case {"zone": str(zone)}:
            return hints.zone(zone)
        case {"time": str(time)}:
            for part in error["loc"][:-1]:
                given = given[part]
            return hints.time(time, given.get("timezone") if isinstance(given, dict) else None)
        case _:
            return ""


def _fault(model: type[Body], error: Any) -> tuple[Any, str]:
    """The code of one error, and its words after the field's name."""
    match error["type"]:
        case "missing":
            return "missing_required_fields", f"is missing; {_at(model, error['loc'][:-1]).missing}"
        case "repeated":
            where, first = name_of(error["loc"][: -error["ctx"]["depth"]]), error["ctx"]["first"]
            return "invalid_request", f"names the same as {where}[{first}]; name each once"
        case "model_type" | "model_attributes_type":
            return (
                "invalid_request",
                f"must {_shape(_at(model, error['loc']), error['input'])}",
            )
        case code:
            return code, error["ctx"]["words"]


def _shape(model: type[Body], value: object) -> str:
    return model.shape.replace("{kind}", kind_of(value))


def name_of(loc: Iterable[int | str]) -> str:
    """`items[7].timezone`: a place in a body as a client would write it."""
    name = ""
    for part in loc:
        if isinstance(part, int):
            name += f"[{part}]"
        elif part not in (ONE, MANY):
            name += f".{part}" if name else part
    return name


def check_known(
    given: Iterable[str],
    known: Iterable[str],
    faults: Faults,
    *,
    prefix: str = "",
    read_only: Container[str] = (),
) -> None:
    """No field besides `known`; a near miss is answered with the name that was probably meant.

    `read_only`: fields that answers show and requests do not take.
    """
    known = tuple(known)
    for name in given:
        # Finding near misses is slow, and no client sees more than twenty of them.
        if name in known or faults.enough_of("invalid_request"):
            continue
        shown = f"{prefix}{printable(name)}"
        meant = None if name in read_only else hints.near(name, known)
        what = "can only be read" if name in read_only else "is not a field here"
        advice = f"did you mean {meant}?" if meant else f"send only {', '.join(known)}"
        faults.add("invalid_request", shown, f'"{shown}" {what}; {advice}')


def _flat(errors: Iterable[Any]) -> Iterator[Any]:
    for error in errors:
        if error["type"] == SEVERAL:
            yield from _flat({**each, "loc": (*error["loc"], *each["loc"])} for each in error["ctx"]["errors"])
        else:
            yield error


@cache
def _below(model: type[Body]) -> dict[str, type[Body]]:
    """The models of a model's fields, by the fields' names."""
    found = {field.alias or name: _model_in(field.annotation) for name, field in model.model_fields.items()}
    return {name: below for name, below in found.items() if below is not None}


def _model_in(annotation: Any) -> type[Body] | None:
    if isinstance(annotation, type) and issubclass(annotation, Body):
        return annotation
    return next((found for each in get_args(annotation) if (found := _model_in(each)) is not None), None)


def _at(model: type[Body], loc: Iterable[int | str]) -> type[Body]:
    for part in loc:
        model = _below(model).get(part, model) if isinstance(part, str) else model
    return model


def _cut(model: type[Body], value: Any) -> Any:
    """The same without most of the names that are none: an object has room for seventy thousand. Those that stay
    can be printed.
    """
    if isinstance(value, list):
        return [_cut(model, each) for each in value]
    if not isinstance(value, dict):
        return value
    known, below, unknown = names(model), _below(model), 0
    kept: dict[str, Any] = {}
    for name, each in value.items():
        if name in known:
            kept[name] = _cut(below[name], each) if name in below else each
        elif unknown < _NAMES_KEPT:
            unknown += 1
            kept[printable(name)] = None
    return kept
