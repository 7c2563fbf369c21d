"""GET /openapi.json, and GET /docs: the same document in Swagger UI, which loads nothing from other hosts."""

import asyncio
import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import FileResponse, RedirectResponse, Response

from api.http.reading import NoQuery
from shared.domain.errors import NotFound, printable

router = APIRouter(include_in_schema=False)

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_OURS: Final = Path(__file__).parent
# The package brings the files of Swagger UI. Its own page has inline scripts, which the policy above refuses.
_SWAGGER_UI: Final = Path(str(files("fastapi_offline"))) / "static"
_FILES: Final = {
    "swagger-ui-bundle.js": _SWAGGER_UI,
    "swagger-ui.css": _SWAGGER_UI,
    "docs.js": _OURS,
    "docs.css": _OURS,
}


@router.get("/openapi.json")
async def show_document(request: Request, _: NoQuery) -> Response:
    """The contract for machines."""
    # In a thread: the first call makes the document, which takes longer than an edit should wait.
    return Response(await asyncio.to_thread(document_bytes, request.app), media_type="application/json")


@router.get("/")
async def lead_to_page(_: NoQuery) -> Response:
    """Leads to the page. The path is relative, so that it holds behind a proxy that strips a prefix."""
    return RedirectResponse("docs")


@router.get("/docs")
async def show_page(_: NoQuery) -> Response:
    """The contract for people."""
    return FileResponse(_OURS / "docs.html", headers={"Content-Security-Policy": POLICY, "Cache-Control": "no-store"})


@router.get("/docs/{name}")
async def show_file(name: str, _: NoQuery) -> Response:
    """What the page loads."""
    if name not in _FILES:
        raise NotFound(f"The page has no file {printable(name)}; see /docs")
    return FileResponse(_FILES[name] / name, headers={"Cache-Control": "public, max-age=3600"})


@cache
def document_bytes(app: FastAPI) -> bytes:
    """The document as it is served."""
    return json.dumps(app.openapi(), indent=1, ensure_ascii=False).encode()
