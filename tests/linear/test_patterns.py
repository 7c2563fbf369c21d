"""No regular expression and no route costs more than linear work, whatever the text."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import pytest

import api
import shared
from api import app
from tests.linear.cost import WITHIN, affordable
from tests.linear.hostile import UNITS, WORST, of
from tests.test_house import PRODUCT


def patterns() -> Iterator[tuple[str, re.Pattern[Any], set[str]]]:
    """Each compiled pattern of api/ and shared/, with the ways in which its module uses it."""
    for room in (api, shared):
        for found in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
            name = f"{found.name.replace('.', '/')}.py"
            if "re.compile(" not in PRODUCT.get(name, ""):
                continue
            module = importlib.import_module(found.name)
            for variable, value in vars(module).items():
                if isinstance(value, re.Pattern):
                    ways = set(re.findall(rf"\b{variable}\.(\w+)\b", PRODUCT[name])) or {"subn"}
                    yield f"{found.name}:{variable}", value, ways - {"groups"}


PATTERNS = list(patterns())


def test_every_regular_expression_is_known_here() -> None:
    """Compiled once, under a name: no other stands anywhere."""
    compiled = sum(
        len(re.findall(r"re\.compile\(", source)) for name, source in PRODUCT.items() if "worker/" not in name
    )
    assert compiled == len(PATTERNS)
    assert compiled >= 15
    loose = re.compile(r"\bre\.(match|search|sub|subn|split|findall|finditer|fullmatch)\(")
    assert [name for name, source in PRODUCT.items() if loose.search(source)] == []


@pytest.mark.parametrize(("pattern", "ways"), [pytest.param(two, three, id=one) for one, two, three in PATTERNS])
def test_a_regular_expression_takes_linear_time(pattern: re.Pattern[Any], ways: set[str]) -> None:
    for text in WORST:
        given = text.encode("utf-8", "surrogatepass") if isinstance(pattern.pattern, bytes) else text
        for way in ways:
            call = getattr(pattern, way)
            arguments = ("", given) if way in ("sub", "subn") else (given,)
            assert affordable(lambda c=call, a=arguments: c(*a), WITHIN), (way, text[:20], text[-2:])  # type: ignore[misc]


def documented(node: Any) -> Iterator[str]:
    """The patterns that the contract gives to clients, who run them over bytes of strangers too."""
    if isinstance(node, dict):
        if isinstance(node.get("pattern"), str):
            yield node["pattern"]
        for below in node.values():
            yield from documented(below)
    elif isinstance(node, list):
        for below in node:
            yield from documented(below)


@pytest.mark.parametrize("pattern", sorted(set(documented(app._built.openapi()))))
def test_a_documented_pattern_takes_linear_time(pattern: str) -> None:
    compiled = re.compile(pattern)
    for text in WORST:
        assert affordable(lambda t=text: compiled.search(t), WITHIN), text[:20]  # type: ignore[misc]


ROUTES = app._built.routes


@pytest.mark.parametrize("number", range(len(ROUTES)))
def test_a_route_is_found_in_linear_time(number: int) -> None:
    route: Any = ROUTES[number]
    paths = ["/v1/posts/" + of(unit) for unit in UNITS] + [
        "/" + of(unit) for unit in ("/", "v1/", "posts/", "/v1/posts")
    ]
    scopes = [{"type": "http", "method": "GET", "path": path, "root_path": ""} for path in paths]
    if hasattr(route, "matches"):
        assert all(affordable(lambda s=scope: route.matches(s), WITHIN) for scope in scopes)  # type: ignore[misc]
