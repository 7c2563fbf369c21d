"""The OpenAPI document says what the code does: its routes, its fields, its codes."""

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from pydantic import TypeAdapter, ValidationError

from api import app
from api.http import problems
from api.models import deletion, openapi
from api.models.webhooks import EVENTS
from shared.domain import edits, events, fields, lifecycle, reschedule_gaps, reschedule_jobs, reschedules, times
from shared.domain.holds import Hold, Holds, Level
from shared.domain.posts import Post, detailed, public
from shared.domain.queued_edits import EditResult
from shared.domain.reschedule_jobs import Job, JobStatus
from tests.api.operations import DOCUMENT, OPERATIONS

SCHEMAS = DOCUMENT["components"]["schemas"]
NOW = datetime.now(UTC)
HOLD = Hold(Level.POST, NOW, "kim", None)


def routes() -> set[tuple[str, str]]:
    """Every method and path that the app serves under /v1 or for health, parameters left nameless."""
    found = set()
    for route in iter_route_contexts(app._built.routes):
        path = re.sub(r"{[^}]*}", "{}", route.path or "")
        if path.startswith("/v1/") or path in {"/healthz", "/readyz"}:
            found |= {(method.lower(), path) for method in route.methods or () if method != "HEAD"}
    return found


def test_every_route_is_documented_and_every_documented_operation_is_a_route() -> None:
    documented = {
        (method, re.sub(r"{[^}]*}", "{}", path)) for path, methods in DOCUMENT["paths"].items() for method in methods
    }
    assert documented == routes()


def test_names_of_operations_are_unique() -> None:
    names = [operation.name for operation in OPERATIONS]
    assert len(names) == len(set(names))


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        here = {node["$ref"]} if "$ref" in node else set()
        return here.union(*(references(below) for below in node.values())) if node else here
    if isinstance(node, list):
        return set().union(*(references(below) for below in node)) if node else set()
    return set()


def test_every_reference_leads_somewhere_and_every_component_is_used() -> None:
    used = references(DOCUMENT)
    # 405 answers methods that no operation has.
    assert "#/components/responses/Error405" not in references(DOCUMENT["paths"])
    there = {
        f"#/components/{kind}/{name}"
        for kind, named in DOCUMENT["components"].items()
        for name in named
        if kind != "securitySchemes"
    }
    assert used | {"#/components/responses/Error405"} == there


def test_every_error_code_stands_with_its_status_and_every_status_with_its_headers() -> None:
    for code, status in problems.STATUS.items():
        assert code in DOCUMENT["components"]["responses"][f"Error{status}"]["description"], code
    for status, header in (
        (401, "WWW-Authenticate"),
        (405, "Allow"),
        (412, "ETag"),
        (429, "Retry-After"),
        (503, "Retry-After"),
    ):
        assert header in DOCUMENT["components"]["responses"][f"Error{status}"]["headers"]


@pytest.mark.parametrize(
    ("schema", "names"),
    [
        ("PostPatch", edits.FIELDS),
        ("EditItem", (*edits.FIELDS, "postId", "ifMatch")),
        ("EditFate", ("postId", "status", "editId", "revision", "error")),
        ("NewVideos", ("accountIds", "contentUrl", "caption", "soundId", "scheduledTime", "timezone")),
        (
            "NewSlideshows",
            (
                *("accountIds", "contentUrls", "caption", "soundId", "scheduledTime", "timezone"),
                *("renderAsVideo", "slideDuration"),
            ),
        ),
        ("Undo", ("force",)),
        ("Deletion", ("postIds",)),
        ("ShiftJob", ("filter", "shift", "dryRun", "minGap")),
        ("SpreadJob", ("filter", "spread", "dryRun", "minGap")),
        ("ItemsJob", ("items", "dryRun", "minGap")),
        ("PostFilter", ("all", "accountIds", "platform", "scheduledFrom", "scheduledTo", "postIds")),
        ("SpreadBetween", ("from", "to", "timezone")),
        ("JobItem", ("postId", "scheduledTime", "timezone")),
        ("Result", reschedule_jobs.RESULT_FIELDS),
    ],
)
def test_bodies_have_these_fields(schema: str, names: tuple[str, ...]) -> None:
    assert set(SCHEMAS[schema]["properties"]) == set(names)


def test_what_an_edit_changes_is_documented_with_every_field_that_an_edit_may_change() -> None:
    assert {*SCHEMAS["Changed"]["properties"]} == {*edits.FIELDS, *lifecycle.AUDITED}
    assert "required" not in SCHEMAS["Changed"]


def test_words_are_those_of_the_code() -> None:
    def words(schema: str) -> list[str]:
        found: list[str] = SCHEMAS[schema]["enum"]
        return found

    assert words("Status") == list(lifecycle.Status)
    assert words("EditStatus") == list(lifecycle.EditStatus)
    assert words("JobStatus") == list(reschedule_jobs.JobStatus)
    assert words("Outcome") == list(reschedules.Outcome)
    assert words("Reason") == list(deletion.Reason)


@pytest.mark.parametrize(
    "duration",
    [
        *("P1D", "-PT90M", "+P2W", "P1DT2H", "P1DT2H3M", "PT0M", "P0W", "", "P", "-P", "PT", "P1DT", "P1W1D", "P1WT1H"),
        *("P1M", "P1Y", "PT1S", "PT1M1H", "PT1.5H", "pt1h", "P-1D", "P1D ", " P1D", "P1DT2H3M4", "P1234567890D"),
    ],
)
def test_a_duration_is_documented_as_it_is_read(duration: str) -> None:
    assert bool(re.fullmatch(fields.DURATION_PATTERN, duration)) is (times.parse_duration(duration) is not None)


@pytest.mark.parametrize(
    "gap", ["PT30M", "P1D", "+P2W", "P0W", "P0DT0M", "PT0H", "P0DT1M", "P10D", "-PT5M", "-P0W", "P"]
)
def test_a_gap_is_documented_as_it_is_read(gap: str) -> None:
    documented = SCHEMAS["ShiftJob"]["properties"]["minGap"]["pattern"]
    try:
        read = TypeAdapter(reschedule_gaps.MinGap).validate_python(gap)
    except ValidationError:
        read = None
    assert bool(re.fullmatch(documented, gap)) is (read is not None)


def test_a_post_is_documented_with_the_fields_that_are_shown() -> None:
    facts = lifecycle.PostFacts(
        "p", "tiktok", lifecycle.Status.GENERATED, None, "video", "u", None, "", None, None, NOW,
        render_as_video=False, rendered_url=None, revision=1, schedule_revision=1, content_revision=1,
    )  # fmt: skip
    post = Post(facts, "ws", "acc", NOW, None, None, None, None, None, None, 0, None, None, None)
    assert list(SCHEMAS["Post"]["properties"]) == list(public(post)) == SCHEMAS["Post"]["required"]
    assert list(SCHEMAS["PostDetails"]["properties"]) == list(detailed(post))


def contents(node: Any) -> Iterator[dict[str, Any]]:
    """Every body in the document that has a model: its schema and its sample."""
    if isinstance(node, dict):
        if "schema" in node and "$ref" in node["schema"]:
            yield node
        for below in node.values():
            yield from contents(below)


MODELS: dict[str, Any] = {model.__name__: model for model in openapi.models(app._built)}
SAMPLES = [
    (each["schema"]["$ref"].rpartition("/")[2], each["example"])
    for each in [*contents(DOCUMENT["paths"]), *contents(DOCUMENT["webhooks"]), *contents(DOCUMENT["components"])]
]


def test_every_model_has_a_sample() -> None:
    assert {name for name, _ in SAMPLES} == MODELS.keys()


@pytest.mark.parametrize(("name", "sample"), SAMPLES)
def test_a_sample_is_one_of_its_model(name: str, sample: Any) -> None:
    assert MODELS[name].model_validate(sample)


def test_the_sample_of_a_bulk_job_is_a_dry_run() -> None:
    assert (DOCUMENT["paths"]["/v1/reschedules"]["post"]["requestBody"]["content"]["application/json"]["example"]) == {
        "dryRun": True,
        "filter": {"all": True},
        "shift": "P1D",
    }


def test_webhooks_are_documented_as_they_are_sent() -> None:
    facts = lifecycle.PostFacts(
        "p", "tiktok", lifecycle.Status.GENERATED, None, "video", "u", None, "", None, None, NOW,
        render_as_video=False, rendered_url=None, revision=1, schedule_revision=1, content_revision=1,
    )  # fmt: skip
    post = Post(facts, "ws", "acc", NOW, None, None, None, None, None, None, 0, None, None, None)
    before, after = {"scheduledTime": "a"}, {"scheduledTime": "b"}
    ends = [
        EditResult("edit_1", lifecycle.EditStatus.APPLIED, 2, before, after),
        EditResult("edit_2", lifecycle.EditStatus.REJECTED, 2, error_code="cannot_edit", error_message="no"),
        EditResult("edit_3", lifecycle.EditStatus.FAILED, 2, error_code="internal", error_message="no"),
    ]
    sent = [
        *events.of_edits(ends, {end.id: post for end in ends}),
        events.posted(post, 2, NOW, None),
        events.failed(post, 2, "reason"),
        events.deleted(post, NOW),
        events.reschedule_finished("ws", Job("rsch_1", JobStatus.DONE, False, 1, 1, 0, 0, 0, NOW, NOW)),
        events.hold_changed(post, Holds(own=HOLD)),
        events.hold_changed(post, Holds()),
        events.scope_held("ws", "acc", replace(HOLD, level=Level.ACCOUNT)),
        events.scope_resumed("ws", None, replace(HOLD, level=Level.WORKSPACE)),
    ]
    assert {event.type for event in sent} == EVENTS.keys()
    for event in sent:
        shown = EVENTS[event.type].model_fields["data"].annotation
        assert shown is not None
        documented = {field.alias for field in shown.model_fields.values()}
        assert documented == event.data.keys() | {"sequence"}, event.type


async def fetched(path: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app.app), base_url="http://test") as http:
        return await http.get(path)


def test_the_document_is_served_without_a_key() -> None:
    served = asyncio.run(fetched("/openapi.json"))
    assert (served.status_code, served.headers["content-type"]) == (200, "application/json")
    assert served.json() == json.loads(json.dumps(DOCUMENT))
    assert DOCUMENT["openapi"].startswith("3.1.")
