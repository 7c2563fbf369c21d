"""The order in which transactions lock tables and rows, read from the product's own source and never run.

A transaction kind is what stands below one `with transaction()`, or a function that a route hands to the database. Its
calls are followed into shared/store, to the statements that they name. A statement that may wait for a lock, while the
transaction holds others, makes an edge from each of those to it: a cycle is a deadlock that two of them can meet.
"""

import ast
import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from sqlalchemy import TextClause

from worker.attempts import ChunkAttempts, EditAttempts

ROOT = Path(__file__).parent.parent.parent
DOORS = {"transaction", "autocommit", "autocommit_relaxed"}
METHODS: Mapping[str, Callable[..., Any]] = {"attempts.count": EditAttempts.count, "attempt.count": ChunkAttempts.count}
"""Methods that lock on a connection of their own, while the caller's transaction goes on."""

# Rows of these hang on a post: whoever holds the post has them to himself.
OF_A_POST = {"edits", "publish_attempts", "webhook_events"}
# Whoever sweeps these rows holds that lock.
SWEPT = {"idempotency_keys": "advisory :sweeping"}


@dataclass(frozen=True, slots=True)
class Lock:
    """What one statement locks. `waits`: for somebody who has it; `ordered`: one row, or several in one order; `kept`:
    until the transaction ends, and not on another connection that commits at once.
    """

    what: str
    waits: bool
    ordered: bool
    sql: str
    kept: bool = True


_LOCKS = re.compile(
    r"\b(?:(?P<how>UPDATE|DELETE FROM|INSERT INTO)\s+(?P<table>[a-z_]+)\b"
    r"|FOR\s+(?:NO\s+KEY\s+)?(?:UPDATE|SHARE)(?:\s+OF\s+(?P<of>\w+))?(?P<skip>\s+SKIP\s+LOCKED)?"
    r"|pg_(?P<try>try_)?advisory_xact_lock(?:_shared)?\((?P<name>[\w:]+))"
)


_SEVERAL = re.compile(r"\bANY\b|\bunnest\b|recordset|\bIN \(\s*SELECT|\bJOIN\b")
# An array is walked in its order.
_IN_ORDER = re.compile(r"ORDER BY [\w., ]+\s+(?:FOR|ON CONFLICT)|= ANY\(ARRAY\(\s*SELECT.*ORDER BY", re.DOTALL)


def locks_of(sql: str) -> list[Lock]:
    """What a statement locks, in the order of its text."""
    sql = re.sub(r"--[^\n]*", "", sql)
    found: list[Lock] = []
    skipped: set[str] = set()
    matches = list(_LOCKS.finditer(sql))
    for match, following in zip(matches, [*(one.start() for one in matches[1:]), len(sql)], strict=False):
        part = sql[match.start() : following] if match["how"] else sql[: match.end()]
        ordered = _SEVERAL.search(part) is None or _IN_ORDER.search(part) is not None
        if match["name"]:
            found.append(Lock(f"advisory {match['name']}", match["try"] is None, True, sql))
        elif match["how"] is None:
            tables = re.findall(r"\bFROM\s+([a-z_]+)\b", sql[: match.start()])
            table = next((one for one in reversed(tables) if one not in {"unnest", "jsonb_to_recordset"}), "?")
            if match["skip"]:
                skipped.add(table)
            found.append(Lock(table, match["skip"] is None, ordered, sql))
        elif re.search(r"(KEY|FOR|DO)\s+$", sql[: match.start()]):
            continue
        # A new row is waited for only where its key may have been taken.
        elif match["how"] != "INSERT INTO" or "ON CONFLICT" in part:
            found.append(Lock(match["table"], True, ordered, sql))
    # Rows that are written because they could be locked are locked already.
    return [replace(one, waits=one.waits and one.what not in skipped) for one in found]


@cache
def _source(module: ModuleType) -> ast.Module:
    return ast.parse(inspect.getsource(module))


def modules() -> list[ModuleType]:
    names = sorted(
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        for room in ("api", "worker", "shared")
        for path in (ROOT / room).rglob("*.py")
        if "migrations" not in path.parts and path.stem not in {"__init__", "__main__"}
    )
    return [importlib.import_module(name) for name in names]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of transaction: where it stands, and what it locks, in the order of its source."""

    name: str
    locks: tuple[Lock, ...]


def kinds(of: list[ModuleType] | None = None) -> list[Kind]:
    """All kinds of transactions that lock anything: the product's, or those of some modules."""
    found = []
    for module in of or modules():
        for node in ast.walk(_source(module)):
            if isinstance(node, ast.With) and (door := _door(node)):
                locks = [
                    replace(lock, kept=lock.kept and door == "transaction") for lock in _reading(module, node.body)
                ]
                found.append(Kind(f"{module.__name__}:{node.lineno}", tuple(locks)))
            elif isinstance(node, ast.Call):
                given = [_resolve(module, one) for one in node.args]
                found += [_of(one) for one in given if isinstance(one, FunctionType) and _takes_a_transaction(one)]
    # What is reached in a way that only a run would show stands for itself.
    seen = {lock.sql for kind in found for lock in kind.locks}
    for module in of or modules():
        if module.__name__.startswith("shared.store"):
            for function in vars(module).values():
                if isinstance(function, FunctionType) and _takes_a_transaction(function):
                    kind = _of(function)
                    found += [kind] if any(lock.sql not in seen for lock in kind.locks) else []
    return [kind for kind in dict.fromkeys(found) if kind.locks]


def _of(function: FunctionType) -> Kind:
    return Kind(f"{function.__module__}.{function.__name__}", tuple(_inside(function)))


def _takes_a_transaction(function: FunctionType) -> bool:
    return _ours(function) and next(iter(inspect.signature(function).parameters), "") == "tx"


def _door(node: ast.With) -> str | None:
    """By which of the ways to the database a block goes. All but `transaction` commit each statement at once."""
    called = [part.func for item in node.items for part in ast.walk(item.context_expr) if isinstance(part, ast.Call)]
    names = [getattr(one, "id", None) or getattr(one, "attr", None) for one in called]
    return next((name for name in names if name in DOORS), None)


def _ours(thing: FunctionType) -> bool:
    return thing.__module__.partition(".")[0] in {"api", "worker", "shared"}


def _resolve(module: ModuleType, node: ast.AST) -> object:
    """What a name or a dotted name in a module means; None for what only a run would tell."""
    if isinstance(node, ast.Name):
        return vars(module).get(node.id, _imported(module).get(node.id))
    if isinstance(node, ast.Attribute):
        dotted = ast.unparse(node)
        if dotted in METHODS:
            return METHODS[dotted]
        if isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}:
            return next((vars(one)[node.attr] for one in vars(module).values()
                         if isinstance(one, type) and one.__module__ == module.__name__
                         and node.attr in vars(one)), None)  # fmt: skip
        owner = _resolve(module, node.value)
        return getattr(owner, node.attr, None) if isinstance(owner, ModuleType | type) else None
    return None


@cache
def _imported(module: ModuleType) -> dict[str, object]:
    """What functions of a module import for themselves."""
    found: dict[str, object] = {}
    for node in ast.walk(_source(module)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in {"shared", "worker"}:
            for one in node.names:
                owner = importlib.import_module(node.module)
                with suppress(ModuleNotFoundError):
                    thing = vars(owner).get(one.name, owner)
                    if thing is owner:
                        thing = importlib.import_module(f"{node.module}.{one.name}")
                    found[one.asname or one.name] = thing
    return found


_under_way: list[object] = []


def _inside(function: FunctionType) -> Iterator[Lock]:
    if function in _under_way:
        return
    _under_way.append(function)
    try:
        module = importlib.import_module(function.__module__)
        name = function.__qualname__.rpartition(".")[2]
        lines = inspect.unwrap(function).__code__.co_firstlineno
        for node in ast.walk(_source(module)):
            if isinstance(node, ast.FunctionDef) and node.name == name and abs(node.lineno - lines) < 4:
                yield from _reading(module, node.body)
                break
    finally:
        _under_way.pop()


def _reading(module: ModuleType, body: list[ast.stmt]) -> Iterator[Lock]:
    """What statements of Python lock, as they come: arguments before their call, nested functions not at all."""
    for statement in body:
        yield from _walk(module, statement)


def _walk(module: ModuleType, node: ast.AST) -> Iterator[Lock]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    if isinstance(node, ast.With) and _door(node):
        # Another connection than the one whose transaction is read.
        yield from (replace(lock, kept=False) for lock in _reading(module, node.body))
        return
    if isinstance(node, ast.Call):
        for part in [*node.args, *(word.value for word in node.keywords)]:
            yield from _walk(module, part)
        if isinstance(node.func, ast.Attribute):
            yield from _walk(module, node.func.value)
        yield from _called(_resolve(module, node.func))
        return
    if isinstance(node, ast.Name):
        yield from _statements(_resolve(module, node))
        return
    if isinstance(node, ast.Attribute) and (thing := _resolve(module, node)) is not None:
        yield from _statements(thing)
        return
    for child in ast.iter_child_nodes(node):
        yield from _walk(module, child)


def _called(thing: object) -> Iterator[Lock]:
    if isinstance(thing, classmethod | staticmethod):
        thing = thing.__func__
    thing = inspect.unwrap(thing) if callable(thing) and not isinstance(thing, type) else thing
    if isinstance(thing, FunctionType) and _ours(thing) and thing.__module__ != "shared.store.db":
        yield from _inside(thing)


def _statements(thing: object) -> Iterator[Lock]:
    if isinstance(thing, TextClause):
        yield from locks_of(thing.text)
    elif isinstance(thing, str):
        yield from locks_of(thing)
    elif isinstance(thing, dict):
        # One of them: the one that waits most.
        found = [tuple(_statements(one)) for one in thing.values()]
        yield from max(found, key=lambda locks: sum(lock.waits for lock in locks), default=())


@dataclass(frozen=True, slots=True)
class Edge:
    """Holding `held`, a kind waits for `wanted`."""

    held: str
    wanted: str
    kind: str


def edges(of: list[Kind]) -> list[Edge]:
    found = []
    for kind in of:
        held: list[str] = []
        for lock in kind.locks:
            if lock.what not in held:
                found += [Edge(one, lock.what, kind.name) for one in held if lock.waits]
                held += [lock.what] if lock.kept else []
    return found


def cycle(of: list[Edge]) -> list[Edge]:
    """Edges that lead back to where they began; empty if there are none."""
    ahead: dict[str, dict[str, Edge]] = {}
    for edge in of:
        ahead.setdefault(edge.held, {}).setdefault(edge.wanted, edge)

    def back_to(start: str, at: str, way: list[Edge]) -> list[Edge]:
        for wanted, edge in ahead.get(at, {}).items():
            if wanted == start:
                return [*way, edge]
            if wanted not in {one.wanted for one in way} and (found := back_to(start, wanted, [*way, edge])):
                return found
        return []

    return next((found for start in ahead if (found := back_to(start, start, []))), [])


def disordered(of: list[Kind]) -> list[tuple[str, Lock]]:
    """Statements that wait for several rows of a table in whatever order they meet them, nobody keeping others away."""
    found = []
    for kind in of:
        held: set[str] = set()
        for lock in kind.locks:
            mine = lock.what in held or ("posts" in held and lock.what in OF_A_POST) or SWEPT.get(lock.what) in held
            if lock.waits and not lock.ordered and not mine:
                found.append((kind.name, lock))
            if lock.kept:
                held.add(lock.what)
    return found


def unread(of: list[Kind]) -> list[tuple[str, str]]:
    """Statements of shared/store that lock something and that no kind was seen to use: (module and name, SQL)."""
    seen = {lock.sql for kind in of for lock in kind.locks}
    found = []
    for module in modules():
        if module.__name__.startswith("shared.store"):
            for name, thing in vars(module).items():
                if name == "__doc__":
                    continue  # a page may speak of locks
                missing = {lock.sql for lock in _statements(thing) if lock.waits} - seen
                found += [(f"{module.__name__}.{name}", sql) for sql in missing]
    return found
