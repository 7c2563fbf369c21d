"""The OpenAPI 3.1 document, made once from the table of operations, and the routes that show it."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from api.models import answers, operations
from api.models.operations import OPERATIONS, REQUEST_HEADERS, Answer, Operation
from api.models.webhooks import EVENTS
from shared.domain.errors import Internal

Json = dict[str, Any]

_ABOUT: Final = """\
Queued edits for scheduled social posts. A PATCH is recorded before it is answered and applied under the post's lock;
it never races a render or a publish, is never lost and never applied twice.

Send `Authorization: Bearer sk_…`. Errors always have the shape of `Problem`; branch on `code`. Every GET answers HEAD,
every path OPTIONS.
"""

_HEADERS: Final[Json] = {
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
_ERRORS: Final[Mapping[int, tuple[str, tuple[str, ...]]]] = {
    400: ("The request is malformed", ()),
    401: ("No key, or not one of ours", ("WWW-Authenticate",)),
    403: ("The key lacks the scope", ()),
    404: ("Not there, or not yours", ("Edit-Id", "Location", "Preference-Applied", "Idempotent-Replayed")),
    # Of no operation, since it answers methods that none has: it stands among the components only.
    405: ("The path does not take that method", ("Allow",)),
    409: ("Its state does not allow it", ("Edit-Id", "Location", "Preference-Applied", "Idempotent-Replayed")),
    412: (
        "It has changed since, or If-Match or If-None-Match can never let it pass",
        ("ETag", "Edit-Id", "Location", "Preference-Applied", "Idempotent-Replayed"),
    ),
    413: ("The body is too large", ()),
    415: ("The body is of another media type, or is packed", ("Accept-Patch", "Accept-Encoding")),
    422: ("The Idempotency-Key was used for another request", ()),
    429: ("The key has spent its limit", ("Retry-After",)),
    500: ("A bug of ours, or an edit that spent its attempts", ("Edit-Id", "Location", "Idempotent-Replayed")),
    503: (
        "PostgreSQL is out of reach or takes no writes, or your request is still being recorded",
        ("Retry-After", "Edit-Id", "Location"),
    ),
}


class _Plain(GenerateJsonSchema):
    """JSON Schema without what says nothing: titles of fields, and defaults that only say "optional"."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002  -- none is ever wanted
        return False


@lru_cache(maxsize=1)
def document() -> Json:
    """The whole document."""
    models = _models()
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "validation") for model in models]
    _, definitions = models_json_schema(wanted, ref_template="#/components/schemas/{model}", schema_generator=_Plain)
    schemas: Json = definitions["$defs"]
    paths: Json = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Redraft", "version": "1", "description": _ABOUT, "license": {"name": "MIT"}},
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in ("posts", "edits", "accounts", "reschedules", "health", "webhooks")],
        "paths": paths,
        "webhooks": {kind: {"post": _webhook(kind, model, schemas)} for kind, model in EVENTS.items()},
        "components": {
            "schemas": schemas,
            "headers": {name: {"description": said, "schema": _header(name)} for name, said in _HEADERS.items()},
            "parameters": {
                name: {"name": name, "in": "header", "required": False, "description": said, "schema": schema}
                for name, (schema, said) in REQUEST_HEADERS.items()
            },
            "responses": {f"Error{status}": _error(status) for status in _ERRORS},
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "An API key: `redraft keys create`"}
            },
        },
    }


@lru_cache(maxsize=1)
def document_bytes() -> bytes:
    """The document as it is served."""
    return json.dumps(document(), indent=1, ensure_ascii=False).encode()


def _models() -> list[type[BaseModel]]:
    found: list[type[BaseModel]] = [answers.Problem, *EVENTS.values()]
    for operation in OPERATIONS:
        found += [operation.body] if operation.body else []
        found += [answer.model for answer in operation.answers.values() if answer.model]
    return list(dict.fromkeys(found))


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
        wanted = {*schema.get("required", ()), *_SHOWN} if not whole else {*schema["properties"]}
        return {
            name: sample(below, schemas, whole=whole) for name, below in schema["properties"].items() if name in wanted
        }
    if schema.get("type") == "array":
        return [sample(schema["items"], schemas, whole=whole)]
    return {"string": "…", "integer": 1, "boolean": False, "object": {}}.get(schema.get("type", ""))


_SHOWN: Final = frozenset({"caption", "scheduledTime", "timezone", "all", "dryRun"})
"""The fields of a sample request beside the required ones."""


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


def _reference(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


def _operation(operation: Operation, schemas: Json) -> Json:
    shown: Json = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [_tag(operation.path)],
        "parameters": _parameters(operation),
        "responses": {str(status): _answer(operation, answer, schemas) for status, answer in operation.answers.items()}
        | {str(status): _reference("responses", f"Error{status}") for status in operation.errors},
    }
    if operation.scope:
        shown["description"] = f"Needs a key with the scope `{operation.scope}`."
        shown["security"] = [{"key": []}]
    if operation.body:
        body = _reference("schemas", operation.body.__name__)
        schema = {"schema": body, "example": sample(body, schemas, whole=False)}
        shown["requestBody"] = {
            "required": operation.body_required,
            "content": dict.fromkeys(operation.media_types, schema),
        }
    return shown


def _tag(path: str) -> str:
    return next((part for part in ("reschedules", "accounts", "posts", "edits") if f"/{part}" in path), "health")


def _parameters(operation: Operation) -> list[Json]:
    names = [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]
    example = {"postId": "post_abc123", "editId": "edit_01k8xg6v3f9zq4d7c2m5n8p1rt", "id": "rsch_01k8xg6v3f9zq4d7c2m5"}
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "examples": [example[name]]}}
        for name in names
    ]
    in_query = [
        {"name": name, "in": "query", "required": False, "description": said, "schema": schema}
        for name, (schema, said) in operation.query.items()
    ]
    return [*in_path, *in_query, *(_reference("parameters", name) for name in operation.headers)]


def _answer(operation: Operation, answer: Answer, schemas: Json) -> Json:
    shown: Json = {
        "description": answer.description,
        "headers": _headers(answer.headers, limited=bool(operation.scope)),
    }
    if answer.model:
        body = _reference("schemas", answer.model.__name__)
        shown["content"] = {"application/json": {"schema": body, "example": sample(body, schemas)}}
        shown["content"] |= {media_type: {"schema": {"type": "string"}} for media_type in answer.also}
    return shown


def _headers(names: tuple[str, ...], *, limited: bool) -> Json:
    always = ("X-Request-Id", "RateLimit", "RateLimit-Policy") if limited else ("X-Request-Id",)
    return {name: _reference("headers", name) for name in (*always, *names)}


def _header(name: str) -> Json:
    if name == "Retry-After":
        return {"type": "integer", "minimum": 1}
    return {"type": "string", "enum": ["true"]} if name == "Idempotent-Replayed" else {"type": "string"}


def _error(status: int) -> Json:
    description, headers = _ERRORS[status]
    codes = operations.CODES[status]
    message = Internal().message if status == 500 else description
    example = {"error": {"code": codes[0], "message": message, "requestId": "req_01k8xg6v3f9zq4d7c2m5n8p1rt"}}
    return {
        "description": f"{description}. Codes: {', '.join(codes)}",
        "headers": _headers(headers, limited=True),
        "content": {"application/json": {"schema": _reference("schemas", "Problem"), "example": example}},
    }
