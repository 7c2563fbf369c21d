"""Names in the product are the field's own: a word that only this project used does not come back as an identifier."""

import ast
import re
from collections.abc import Iterator

from tests.test_house import PRODUCT

BANNED = frozenset({
    "aside", "beaten", "checkup", "diagnosis", "envelope", "garbage", "hurry", "landed", "lately", "luck", "passing",
    "persevere", "remark", "retold", "stories", "tether", "told", "twins",
})  # fmt: skip
"""Words that are not the field's for anything here. Strings and comments are not looked at."""


def names(source: str) -> Iterator[str]:
    """Every name that a file gives to something: functions, classes, arguments, variables, attributes, imports' new
    names.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname


def parts(name: str) -> set[str]:
    """The words of a name: `_RetoldError` has `retold` and `error`."""
    return {part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def test_a_banned_word_does_not_come_back_as_a_name() -> None:
    found: dict[str, set[str]] = {}
    for path, source in PRODUCT.items():
        for name in {*names(source), *path.removesuffix(".py").split("/")}:
            for word in parts(name) & BANNED:
                found.setdefault(word, set()).add(f"{path}: {name}")
    assert found == {}


def test_which_names_a_file_gives() -> None:
    source = (
        "import a as tether\nclass RetoldError: ...\ndef put(remark, *, _luck=None):\n    self.twins = garbage_in = 1"
    )
    words = set().union(*map(parts, names(source)))
    assert words & BANNED == {"tether", "retold", "remark", "luck", "twins", "garbage"}
