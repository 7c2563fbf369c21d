"""How the errors of Pydantic become our faults: codes, names, messages, all at once, and with bounded work."""

import json
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import ValidationError

from shared.domain import bodies, body_reading
from shared.domain.bodies import Body, Several, absent
from shared.domain.body_reading import name_of, read
from shared.domain.errors import InvalidRequest
from shared.domain.fields import Flag, Id, Zone

ZONES = "must be one of America/New_York, "


class Part(Body):
    shape: ClassVar[str] = "be a part, not {kind}"
    missing: ClassVar[str] = "each part needs it"

    part_id: Id
    timezone: Zone = "Asia/Tokyo"


class Whole(Body):
    shape: ClassVar[str] = "be a whole, not {kind}"

    parts: Annotated[list[Part], Several(1, 500, "must hold 1 to 500 parts and holds {count}", once=True, by="partId")]
    names: Annotated[list[Id], Several(0, 2, "must be an array of names", once=True)] = absent
    one: Part | None = None
    dry_run: Flag = False


GOOD: dict[str, Any] = {"parts": [{"partId": "a"}]}


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (GOOD | {"dryRun": 1}, [("invalid_request", "dryRun", "dryRun must be true or false")]),
        ({}, [("missing_required_fields", "parts", "parts is missing; send it")]),
        (
            {"parts": [{}]},
            [("missing_required_fields", "parts[0].partId", "parts[0].partId is missing; each part needs it")],
        ),
        ({"parts": [5]}, [("invalid_request", "parts[0]", "parts[0] must be a part, not a number")]),
        ({"parts": []}, [("invalid_request", "parts", "parts must hold 1 to 500 parts and holds 0")]),
        (GOOD | {"names": "a"}, [("invalid_request", "names", "names must be an array of names")]),
        (
            GOOD | {"names": ["a", "a"]},
            [("invalid_request", "names[1]", "names[1] names the same as names[0]; name each once")],
        ),
        (
            {"parts": [{"partId": "a"}, {"partId": "a"}, {"partId": 1}]},
            [
                ("invalid_request", "parts[1].partId", "parts[1].partId names the same as parts[0]; name each once"),
                ("invalid_request", "parts[2].partId", "parts[2].partId must be a string, not a number"),
            ],
        ),
        (
            GOOD | {"dry_run": True, "one": {"partid": "a", "partId": "b"}},
            [
                ("invalid_request", "one.partid", '"one.partid" is not a field here; did you mean partId?'),
                ("invalid_request", "dry_run", '"dry_run" is not a field here; did you mean dryRun?'),
            ],
        ),
        # All at once, in the order of the codes.
        (
            {"parts": [{"partId": "", "timezone": "Mars"}], "dryRun": "no", "x": 1},
            [
                ("invalid_request", "x", '"x" is not a field here; send only parts, names, one, dryRun'),
                ("invalid_request", "parts[0].partId", "parts[0].partId must have 1 to 255 characters"),
                ("invalid_request", "dryRun", "dryRun must be true or false"),
                ("invalid_timezone", "parts[0].timezone", f"parts[0].timezone {ZONES}"),
            ],
        ),
    ],
)
def test_errors_become_faults(body: Any, found: list[tuple[str, str, str]]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(Whole, body)
    assert refused.value.code == found[0][0]
    assert [detail.field for detail in refused.value.details] == [field for _, field, _ in found]
    for detail, (_, _, message) in zip(refused.value.details, found, strict=True):
        assert detail.message == message or (ZONES in message and detail.message.startswith(message))


def test_a_good_body_is_its_model() -> None:
    assert read(Whole, GOOD).parts[0].part_id == "a"


def test_a_body_that_is_no_object_is_said_in_its_models_words() -> None:
    with pytest.raises(InvalidRequest, match=r"^The body must be a whole, not an array$"):
        read(Whole, [])


@pytest.mark.parametrize(
    ("loc", "name"),
    [(("a",), "a"), (("a", 3, "b"), "a[3].b"), (("a", bodies.MANY, 3), "a[3]"), (("a", bodies.ONE), "a"), ((), "")],
)
def test_a_place_is_named_as_a_client_would_write_it(loc: tuple[int | str, ...], name: str) -> None:
    assert name_of(loc) == name


@pytest.mark.parametrize(
    "body",
    [
        {f"name{number}": 1 for number in range(20_000)},
        {"parts": [{f"name{number}": 1 for number in range(300)}] * 500},
        {"parts": [{"partId": "", "timezone": 5}] * 500},
        GOOD | {"one": {f"name{number}": 1 for number in range(70_000)}},
    ],
    ids=["names", "names of parts", "wrong parts", "names below"],
)
def test_of_very_many_errors_few_are_made(body: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pydantic makes a dict of each, at 5 us, and lets no other thread run meanwhile."""
    made: list[int] = []
    flat = body_reading._flat

    def count(errors: Any) -> Any:
        found = list(flat(errors))
        made.append(len(found))
        return iter(found)

    monkeypatch.setattr(body_reading, "_flat", count)
    with pytest.raises(InvalidRequest) as refused:
        read(Whole, body)
    assert len(refused.value.details) == 20
    # A slice of fifty parts, each with as many errors as are kept of one.
    assert max(made) < 2_000


def test_an_error_shows_nothing_of_what_the_client_sent() -> None:
    with pytest.raises(ValidationError) as caught:
        Part.model_validate({"partId": "secret" * 100})
    assert "secret" not in str(caught.value)
    assert json.dumps("secret") not in repr(caught.value)
