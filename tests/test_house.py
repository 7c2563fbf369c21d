"""What the house believes, checked (HOUSE 14): one row lock, one commit, one send, every queue watched."""

import ast
import re
import sys
from pathlib import Path

import pytest

from shared import task_names
from shared.domain.lifecycle import EditStatus, Status
from shared.local import commands

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for room in ("api", "worker", "shared") for path in (ROOT / room).rglob("*.py"))
PRODUCT = {path.relative_to(ROOT).as_posix(): path.read_text() for path in SOURCES if "migrations" not in path.parts}


def places(pattern: str) -> set[str]:
    return {name for name, source in PRODUCT.items() if re.search(pattern, source)}


def test_there_is_one_row_lock() -> None:
    lock = r"FOR (NO KEY )?UPDATE\b(?! when)|with_for_update"
    statements = {
        name: [line for line in source.splitlines() if re.search(lock, line) and '"' in line and "SELECT" in line]
        for name, source in PRODUCT.items()
    }
    assert {name for name, lines in statements.items() if lines} == {"shared/store/posts.py"}
    assert len(statements["shared/store/posts.py"]) == 1


def test_there_is_one_commit() -> None:
    assert places(r"\.commit\(\)|\.begin\(\)") == {"shared/store/db.py"}


def test_there_is_one_send() -> None:
    # What celery_message.py sends never leaves its process; beat's own messages are Celery's.
    assert places(r"\.(send_task|apply_async|delay)\(") <= {
        "shared/broker/celery_message.py",
        "worker/runtime/scheduler.py",
    }
    assert places(r"\.[lr]push\(") == {"shared/broker/queue.py"}


def test_the_domain_imports_the_standard_library_pydantic_and_itself() -> None:
    known = {*sys.stdlib_module_names, "pydantic", "pydantic_core", "tzdata"}
    for name, source in PRODUCT.items():
        if not name.startswith("shared/domain/"):
            continue
        for node in ast.walk(ast.parse(source)):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            foreign = {one for one in names if one.partition(".")[0] not in known}
            assert all(one.startswith("shared.domain") for one in foreign), (name, foreign)


def test_statements_stand_in_store_alone() -> None:
    sql = r"\"\"\"?\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM)\s+\w"
    assert {name for name in places(sql) if not name.startswith("shared/store/")} == set()


def test_every_queue_that_is_sent_to_is_watched_by_a_worker() -> None:
    assert set(task_names.QUEUE_OF.values()) == set(task_names.QUEUES) == set(commands.POOLS)


def test_every_task_name_has_a_task_and_a_queue() -> None:
    source = PRODUCT["worker/tasks.py"]
    named = {name for name in vars(task_names) if name in re.findall(r"@task\(task_names\.(\w+)", source)}
    assert {getattr(task_names, name) for name in named} == set(task_names.QUEUE_OF)


def test_every_status_is_known_to_the_database() -> None:
    first = (ROOT / "shared/store/migrations/versions/0001_first_tables.py").read_text()
    for status in [*Status, *EditStatus]:
        assert f"'{status.value}'" in first


def test_tasks_are_at_most_ten_lines_each() -> None:
    tree = ast.parse(PRODUCT["worker/tasks.py"])
    for function in [node for node in tree.body if isinstance(node, ast.FunctionDef)]:
        assert (function.end_lineno or 0) - function.lineno + 1 <= 10, function.name


@pytest.mark.parametrize("name", sorted(PRODUCT))
def test_no_file_is_named_for_nothing(name: str) -> None:
    assert not re.search(r"(^|/)(utils?|helpers?|common|core|services/)", name), "a file is named for its job"


LIBRARIES = ("asyncio.Transport", "celery.", "flower.", "kombu.", "psycopg.", "tornado.", "uvicorn.", "uvloop.")
# Made to be subclassed, or a name for a type alone.
_OPEN = {"celery.exceptions.", "psycopg.errors.", "psycopg.abc.", "psycopg.pq.", "psycopg.adapt."}


def reaches_in(source: str) -> set[str]:
    """What a file subclasses of those libraries, or uses of their privates."""
    tree = ast.parse(source)
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
        elif isinstance(node, ast.Import):
            names |= {(one.asname or one.name).partition(".")[0]: one.name for one in node.names}
    bases = [ast.unparse(base) for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for base in node.bases]
    meant = {names.get(first := base.partition(".")[0].partition("[")[0], first) + base[len(first) :] for base in bases}
    meant |= {name for name in names.values() if "._" in name}
    return {name for name in meant if name.startswith(LIBRARIES) and not name.startswith(tuple(_OPEN))}


def test_every_place_that_reaches_into_a_library_is_named_with_its_reason() -> None:
    told = (ROOT / "docs/overrides.md").read_text()
    found = {name for name, source in PRODUCT.items() if reaches_in(source)}
    found |= places("noqa: SLF001.*\n") & places(r"channel\._get")
    assert found >= {
        "api/http/protocol.py",
        "shared/store/db.py",
        "worker/runtime/transport.py",
        "worker/runtime/scheduler.py",
        "api/http/transport.py",
    }
    assert {name for name in found if f"`{name}`" not in told} == set()
    named = set(re.findall(r"^\| `([\w/.]+)`", told, re.MULTILINE))
    assert {name for name in named if name not in PRODUCT} == set()


def test_nothing_tracked_names_this_machine_or_an_index() -> None:
    for lock in ROOT.rglob("requirements.lock"):
        if ".venv" not in lock.parts:
            assert not re.search(r"https?://|--index|--find-links", lock.read_text()), lock
