"""The operations of the API as its document has them, for tests that ask each of them the same."""

from typing import Any, NamedTuple

from api.app import _built

DOCUMENT: dict[str, Any] = _built.openapi()


class Operation(NamedTuple):
    """One method of one path. `scope`: None where no key is needed. `body`: whether it takes one."""

    name: str
    method: str
    path: str
    scope: str | None
    body: bool


OPERATIONS = [
    Operation(
        shown["operationId"],
        method,
        path,
        shown["security"][0]["key"][0] if "security" in shown else None,
        "requestBody" in shown,
    )
    for path, methods in DOCUMENT["paths"].items()
    for method, shown in methods.items()
]
