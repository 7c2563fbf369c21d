"""GET /openapi.json, and GET /docs: the same document as a page that loads nothing from elsewhere."""

import asyncio
import json
from functools import cache, partial
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import Response

from api.http import reading

router = APIRouter()

_NOTHING_FROM_ELSEWHERE = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
}


@router.get("/openapi.json", include_in_schema=False)
async def show_document(request: Request) -> Response:
    """The contract for machines."""
    reading.check_query(request)
    # In a thread: the first call makes the document, which takes longer than an edit should wait.
    return Response(await asyncio.to_thread(document_bytes, request.app), media_type="application/json")


@router.get("/docs", include_in_schema=False)
async def show_page(request: Request) -> Response:
    """The contract for people."""
    reading.check_query(request)
    return Response(await asyncio.to_thread(page, request.app), headers=_NOTHING_FROM_ELSEWHERE, media_type="text/html")


@cache
def document_bytes(app: FastAPI) -> bytes:
    """The document as it is served."""
    return json.dumps(app.openapi(), indent=1, ensure_ascii=False).encode()


@cache
def page(app: FastAPI) -> bytes:
    """The page, made once."""
    folder = Path(__file__).parent
    environment = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined)
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}
    environment.globals |= {"resolved": partial(resolved, app), "kind": partial(kind, app)}
    environment.filters["prose"] = prose
    return environment.get_template("docs.html").render(document=app.openapi()).encode()


def resolved(app: FastAPI, node: dict[str, Any]) -> dict[str, Any]:
    """A node of the document, or the node that its $ref refers to."""
    while "$ref" in node:
        found: Any = app.openapi()
        for step in node["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        node = found
    return node


def prose(text: str) -> Markup:
    """Text as HTML, with its `code` in code elements."""
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else Markup.escape(part)
        for place, part in enumerate(text.split("`"))
    )


def kind(app: FastAPI, schema: dict[str, Any]) -> str:
    """A schema in a few words: `string, at most 2,200`, `array of Post`, `video | slides`."""
    if "$ref" in schema:
        target = resolved(app, schema)
        name = schema["$ref"].rpartition("/")[2]
        return kind(app, target) if "enum" in target else str(name)
    if "anyOf" in schema:
        return " or ".join(kind(app, one) for one in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return " | ".join(str(value) for value in schema.get("enum", [schema.get("const")]))
    word = str(schema.get("format", schema.get("type", "any")))
    most = schema.get("maxLength", schema.get("maximum", schema.get("maxItems")))
    said = f", at most {most:,}" if most else ""
    return f"array of {kind(app, schema['items'])}{said}" if word == "array" else f"{word}{said}"
