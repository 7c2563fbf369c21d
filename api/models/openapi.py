"""The OpenAPI 3.1 document: what FastAPI makes of the routes, and here what FastAPI cannot say.

FastAPI tells paths, parameters, security and the bodies of answers. It knows nothing of bodies and headers of requests,
which routes read themselves, nor of headers of answers, samples, and events.
"""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from api.http import problems
from api.http.reading import JSON_TYPES
from api.models.answers import Problem
from api.models.webhooks import EVENTS
from shared.domain.errors import Internal
from shared.settings import settings

Json = dict[str, Any]

_ABOUT: Final = """\
Queued edits for scheduled social posts. A PATCH is recorded before it is answered and applied under the post's lock;
it never races a render or a publish, is never lost and never applied twice.

Send `Authorization: Bearer sk_…`. Errors always have the shape of `Problem`; branch on `code`. Every GET answers HEAD,
every path OPTIONS.
"""
_BODIES: Final[dict[type[BaseModel], None]] = {}
"""The models of bodies of requests, as routes name them."""
_TAGS: Final = ("posts", "edits", "accounts", "holds", "reschedules", "health", "webhooks")
_PATH: Final = {
    "post_id": ("postId", "post_abc123"),
    "account_id": ("accountId", "acc_1a2b3c4d5e"),
    "edit_id": ("editId", "edit_01k8xg6v3f9zq4d7c2m5n8p1rt"),
    "job_id": ("id", "rsch_01k8xg6v3f9zq4d7c2m5"),
}
"""The parameters of paths: their names in the document, and an example."""
TAGS: Final = r'^(\*|[ ,]*|[ ,]*(W/)?"[!#-~]*"( *,[ ,]*(W/)?"[!#-~]*"){0,63}[ ,]*)$'

_SENT: Final[dict[str, tuple[Json, str]]] = {
    "Idempotency-Key": (
        {"pattern": "^[!-~]{1,255}$"},
        """Makes a repeat safe; kept for a day at least. A repeat with the same method, path, body and If-Match gets the
first one's own result, with anything else 422. A request that left nothing behind keeps no key.""",
    ),
    "If-Match": (
        {"pattern": TAGS, "examples": ['"3"']},
        """The post's ETag as you know it, a list of at most 64, or *; judged under the post's lock. Weak tags never
match: where no tag of it can be a post's, 412 says so at once, and nothing is done.""",
    ),
    "If-None-Match": (
        {"pattern": TAGS, "examples": ['"3"']},
        """An ETag that you have, a list, or *. GET: 304 if the post has it still. A write: 412 if the post has it when
the write is to be done; weak tags are compared without their W/.""",
    ),
    "Prefer": (
        {"examples": ["wait=5", "respond-async"]},
        """wait=N: how many seconds to wait for the edit's end, at most 30. respond-async: not at all; with wait=N, N
seconds.""",
    ),
    "Accept": ({"examples": ["text/csv"]}, "text/csv: all results in one file, instead of pages."),
}
"""The headers of requests: what their schema has beside its type, and their meaning."""

_DRY_RUN: Final[Json] = {
    "name": "dryRun",
    "in": "query",
    "required": False,
    "description": "true: say what the edit would do, and record nothing",
    "schema": {"type": "boolean"},
}

_GIVEN: Final[dict[str, str]] = {
    "X-Request-Id": "The request's id: yours, if you sent a sane one, else a new one.",
    "RateLimit": 'What is left of the minute: "default";r=5999;t=42. Only for keys with a limit.',
    "RateLimit-Policy": 'The key\'s limit: "default";q=6000;w=60. Only for keys with a limit.',
    "ETag": 'The post\'s revision as an entity tag: "3".',
    "Edit-Id": "The id of the edit that stands behind this answer.",
    "Location": "Where to ask for it.",
    "Preference-Applied": "Which of your preferences were honoured.",
    "Idempotent-Replayed": "true: an earlier request with this Idempotency-Key was answered so.",
    "Vary": "Accept.",
    "WWW-Authenticate": "Bearer.",
    "Allow": "The methods that this path takes.",
    "Accept-Patch": "The media types that a PATCH may have.",
    "Accept-Encoding": "identity: send the body as it is.",
    "Retry-After": "Seconds to wait.",
}
"""The headers of answers."""
_SHAPES: Final[dict[str, Json]] = {
    "Retry-After": {"type": "integer", "minimum": 1},
    "Idempotent-Replayed": {"type": "string", "enum": ["true"]},
}

_EVERY: Final = ("X-Request-Id", "RateLimit", "RateLimit-Policy")
"""The headers of every answer; the second and third where a key is asked for."""

_SHOWN: Final = frozenset({"caption", "scheduledTime", "timezone", "all", "dryRun"})
"""The fields of a sample request beside the required ones."""


# -- What routes say of themselves


def takes(*headers: str, body: type[BaseModel] | None = None, types: tuple[str, ...] = JSON_TYPES) -> Json:
    """FastAPI's `openapi_extra` for a route that reads these headers (and dryRun of the query) and this body."""
    said: Json = {"parameters": [_reference("parameters", name) for name in headers]} if headers else {}
    if body is not None:
        _BODIES[body] = None
        content = {kind: {"schema": _reference("schemas", body.__name__)} for kind in types}
        said["requestBody"] = {"required": not getattr(body, "optional", False), "content": content}
    return said


def carries(*headers: str, **more: Any) -> Json:
    """One of FastAPI's `responses`: an answer that carries these headers. `more`: its model, its description."""
    return {"headers": {name: _reference("headers", name) for name in headers}, **more}


# -- The document


class _Plain(GenerateJsonSchema):
    """JSON Schema without what says nothing: titles of fields, and defaults that only say "optional"."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002  -- none is ever wanted
        return False


def document(app: FastAPI) -> Json:
    """The whole document of an app's routes."""
    shown = get_openapi(title="Redraft", version="1", description=_ABOUT, routes=app.routes)
    schemas = _schemas(app)
    paths: Json = {}
    for path, operations in shown["paths"].items():
        for operation in operations.values():
            _complete(operation, schemas)
        paths[path.format_map({name: f"{{{shown_as}}}" for name, (shown_as, _) in _PATH.items()})] = operations
    return {
        "openapi": "3.1.0",
        "info": shown["info"] | {"license": {"name": "MIT"}},
        "servers": [{"url": settings().root_path or "/"}],
        "tags": [{"name": name} for name in _TAGS],
        "paths": paths,
        "webhooks": {kind: {"post": _webhook(kind, model, schemas)} for kind, model in EVENTS.items()},
        "components": {
            "schemas": schemas,
            "headers": {
                name: {"description": said, "schema": _SHAPES.get(name, {"type": "string"})}
                for name, said in _GIVEN.items()
            },
            "parameters": {
                name: {
                    "name": name,
                    "in": "header",
                    "required": False,
                    "description": said,
                    "schema": {"type": "string", **schema},
                }
                for name, (schema, said) in _SENT.items()
            }
            | {"dryRun": _DRY_RUN},
            "responses": {f"Error{status}": _error(status) for status in problems.REFUSALS},
            "securitySchemes": shown["components"]["securitySchemes"],
        },
    }


def models(app: FastAPI) -> list[type[BaseModel]]:
    """The models of all bodies: of requests, of answers, of events."""
    found: list[Any] = [Problem, *_BODIES, *EVENTS.values()]
    for route in iter_route_contexts(app.routes):
        if isinstance(route.original_route, APIRoute) and route.include_in_schema:
            found += [route.response_model, *(answer.get("model") for answer in route.responses.values())]
    return list(dict.fromkeys(model for model in found if model is not None))


def _schemas(app: FastAPI) -> Json:
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "validation") for model in models(app)]
    _, definitions = models_json_schema(wanted, ref_template="#/components/schemas/{model}", schema_generator=_Plain)
    schemas: Json = definitions["$defs"]
    return schemas


def _complete(operation: Json, schemas: Json) -> None:
    """Add to one operation of FastAPI's what it lacks, and take out what it has too much."""
    summary, _, more = " ".join(operation["description"].split()).partition(". ")
    scopes = [scope for one in operation.get("security", ()) for scope in one["key"]]
    needs = [f"Needs a key with the scope `{scope}`." for scope in scopes]
    operation |= {"summary": summary.removesuffix("."), "description": " ".join([*needs, more]).strip() or summary}
    for parameter in operation.get("parameters", ()):
        if parameter.get("in") == "path":
            # Swagger UI fills in the parameter's own example, which the demo's data has.
            parameter["name"], parameter["example"] = _PATH[parameter["name"]]
            parameter["schema"] = {"type": "string"}
        elif "schema" in parameter:
            del parameter["schema"]["title"]
    for content in operation.get("requestBody", {}).get("content", {}).values():
        content["example"] = sample(content["schema"], schemas, whole=False)
    operation["responses"] = {
        status: _answer(answer, schemas, limited=bool(scopes))
        for status, answer in sorted(operation["responses"].items())
        # FastAPI adds it to each route with parameters. Ours answer 400 (api/http/problems.py).
        if answer.get("description") != "Validation Error"
    }


def _answer(answer: Json, schemas: Json, *, limited: bool) -> Json:
    if "$ref" in answer:
        return {"$ref": answer["$ref"]}
    for content in answer.get("content", {}).values():
        if "$ref" in content["schema"]:
            content["example"] = sample(content["schema"], schemas)
            if answer["description"] == "Successful Response":
                answer["description"] = schemas[content["schema"]["$ref"].rpartition("/")[2]]["description"]
    always = _EVERY if limited else _EVERY[:1]
    return answer | {"headers": carries(*always)["headers"] | answer.get("headers", {})}


def sample(schema: Json, schemas: Json, *, whole: bool = True) -> Any:
    """A value that a schema describes. `schemas`: the components. `whole`: with the fields that may be left out."""
    while "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    for key in ("anyOf", "oneOf"):
        if key in schema and "examples" not in schema:
            return sample(schema[key][0], schemas, whole=whole)
    if "examples" in schema or "enum" in schema:
        return (schema.get("examples") or schema["enum"])[0]
    if "const" in schema:
        return schema["const"]
    if "properties" in schema:
        wanted = {*schema["properties"]} if whole else {*schema.get("required", ()), *_SHOWN}
        return {
            name: sample(below, schemas, whole=whole) for name, below in schema["properties"].items() if name in wanted
        }
    if schema.get("type") == "array":
        return [sample(schema["items"], schemas, whole=whole)]
    return {"string": "…", "integer": 1, "boolean": False, "object": {}}.get(schema.get("type", ""))


def _webhook(kind: str, model: type[BaseModel], schemas: Json) -> Json:
    schema = _reference("schemas", model.__name__)
    return {
        "operationId": "on" + "".join(part.title() for part in kind.split(".")),
        "summary": model.__doc__,
        "tags": ["webhooks"],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema, "example": sample(schema, schemas)}},
        },
        "responses": {
            "2XX": {"description": "You took the event"},
            "410": {"description": "You will never take this event: it is not sent again"},
            "default": {"description": "The event is sent again, after your Retry-After if you give one"},
        },
    }


def _error(status: int) -> Json:
    refusal = problems.REFUSALS[status]
    message = Internal().message if status == 500 else refusal.meaning
    example = {"error": {"code": refusal.codes[0], "message": message, "requestId": "req_01k8xg6v3f9zq4d7c2m5n8p1rt"}}
    return carries(
        *(*_EVERY, *refusal.headers),
        description=f"{refusal.meaning}. Codes: {', '.join(refusal.codes)}",
        content={"application/json": {"schema": _reference("schemas", "Problem"), "example": example}},
    )


def _reference(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}
