"""GET /openapi.json, and GET /docs: the same document as a page of its own that loads nothing from anywhere."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import Response

from api import openapi

router = APIRouter()

_NOTHING_FROM_ELSEWHERE = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
}


@router.get("/openapi.json")
async def show_document() -> Response:
    """The contract for machines."""
    return Response(openapi.document_bytes(), media_type="application/json")


@router.get("/docs")
async def show_page() -> Response:
    """The contract for people."""
    return Response(page(), headers=_NOTHING_FROM_ELSEWHERE, media_type="text/html")


@lru_cache(maxsize=1)
def page() -> bytes:
    """The page, made once."""
    folder = Path(__file__).parent
    environment = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined)
    environment.globals |= {"resolved": resolved, "kind": kind}
    return environment.get_template("docs.html").render(document=openapi.document()).encode()


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    """What a node says, or what it refers to."""
    while "$ref" in node:
        found: Any = openapi.document()
        for step in node["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        node = found
    return node


def kind(schema: dict[str, Any]) -> str:
    """A schema in a few words: `string, at most 2200`, `Post[]`, `video | slides`."""
    if "$ref" in schema:
        target = resolved(schema)
        name = schema["$ref"].rpartition("/")[2]
        return kind(target) if "enum" in target else str(name)
    if "anyOf" in schema:
        return " or ".join(kind(one) for one in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return " | ".join(str(value) for value in schema.get("enum", [schema.get("const")]))
    words = [str(schema.get("format", schema.get("type", "any")))]
    if words == ["array"]:
        words = [f"{kind(schema['items'])}[]"]
    for key, said in (("maxLength", "at most {}"), ("maximum", "at most {}"), ("maxItems", "at most {}")):
        if key in schema:
            words.append(said.format(f"{schema[key]:,}"))
    return ", ".join(words)
