"""What docs/architecture.md says of the rooms, checked: one row lock, one commit, one send, every queue watched."""

import ast
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from shared import task_names
from shared.domain.lifecycle import EditStatus, Status
from shared.local import commands

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for room in ("api", "worker", "shared") for path in (ROOT / room).rglob("*.py"))
PRODUCT = {path.relative_to(ROOT).as_posix(): path.read_text() for path in SOURCES if "migrations" not in path.parts}


def texts(node: ast.AST) -> Iterator[str]:
    """Each string below a node, however many lines it has. Pieces that are joined are one string; no docstrings."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    joined = _joined(node)
    if joined is not None:
        yield joined
    elif isinstance(node, ast.JoinedStr):
        yield "".join(_joined(piece) or "{}" for piece in node.values)
    for child in ast.iter_child_nodes(node):
        if joined is None:
            yield from texts(child)


def _joined(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _joined(node.left), _joined(node.right)
        return None if left is None or right is None else left + right
    return None


@cache  # Each rule asks it of the whole product.
def sql_in(node: ast.AST) -> list[str]:
    """The strings below a node without SQL comments, each in one line."""
    return [" ".join(re.sub(r"--[^\n]*|/\*.*?\*/", " ", text, flags=re.DOTALL).split()) for text in texts(node)]


def _matches(node: ast.AST, pattern: str) -> bool:
    return any(re.search(pattern, text, re.IGNORECASE) for text in sql_in(node))


@cache
def _attributes(node: ast.AST) -> set[str]:
    """Each attribute below a node, whether it is called or kept for later, on one line or over several."""
    return {one.attr for one in ast.walk(node) if isinstance(one, ast.Attribute)}


def locks_rows(node: ast.AST) -> bool:
    lock = r"\bFOR (NO KEY UPDATE|UPDATE|KEY SHARE|SHARE)\b"
    named = _attributes(node) | {one.arg for one in ast.walk(node) if isinstance(one, ast.keyword)}
    return _matches(node, lock) or _matches(node, "^with_for_update$") or "with_for_update" in named


def commits(node: ast.AST) -> bool:
    """Whether a transaction ends here. `begin` with arguments is another one: SQLAlchemy's takes none."""
    calls = [one for one in ast.walk(node) if isinstance(one, ast.Call)]
    others = {call.func for call in calls if call.args or call.keywords}
    begins = [one for one in ast.walk(node) if isinstance(one, ast.Attribute) and one.attr == "begin"]
    sql = r"(^|;) ?(COMMIT( WORK| TRANSACTION)?|END (WORK|TRANSACTION)) ?(;|$)"
    return "commit" in _attributes(node) or not others.issuperset(begins) or _matches(node, sql)


def commits_each_statement(node: ast.AST) -> bool:
    keywords = [one for one in ast.walk(node) if isinstance(one, ast.keyword) and one.arg == "autocommit"]
    switched = any(not (isinstance(one.value, ast.Constant) and one.value.value is False) for one in keywords)
    return switched or _matches(node, "^AUTOCOMMIT$")


def holds_sql(node: ast.AST) -> bool:
    starts = r"WITH \w+ AS|SELECT\b.*(\bFROM\b|\(|\d)|INSERT INTO|UPDATE .*\bSET\b|DELETE FROM|TRUNCATE \w|MERGE INTO"
    return _matches(node, f"^({starts})")


def sends_a_task(node: ast.AST) -> bool:
    """`delay` alone may be a number of seconds."""
    called = {ast.unparse(one.func).rpartition(".")[2] for one in ast.walk(node) if isinstance(one, ast.Call)}
    return bool({"send_task", "apply_async"} & _attributes(node)) or "delay" in called


def pushes_to_a_queue(node: ast.AST) -> bool:
    return bool({"lpush", "rpush"} & _attributes(node)) or _matches(node, r"\b[LR]PUSH\b")


Rule = Callable[[ast.AST], bool]


def _top_level(node: ast.stmt) -> str:
    target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", node)
    return str(getattr(target, "name", None) or getattr(target, "id", ""))


STATEMENTS = [(f"{name} {_top_level(node)}", node) for name in PRODUCT for node in ast.parse(PRODUCT[name]).body]


def places(rule: Rule) -> set[str]:
    """What a rule finds at the top level of a file: `shared/store/db.py transaction`."""
    return {place for place, node in STATEMENTS if rule(node)}


def files_with(pattern: str) -> set[str]:
    return {name for name, source in PRODUCT.items() if re.search(pattern, source)}


FINDS: list[tuple[Rule, str]] = [
    (locks_rows, 'LOCK = "SELECT id FROM posts FOR UPDATE"'),
    (locks_rows, 'LOCK = text("""\n    SELECT id FROM posts\n    WHERE id = :id\n    FOR NO KEY\n    UPDATE""")'),
    (locks_rows, 'LOCK = """\n    SELECT id\n    FROM edits e\n    FOR UPDATE OF e -- theirs\n    SKIP LOCKED"""'),
    (locks_rows, 'LOCK = """SELECT id FROM posts FOR NO /* why */ KEY UPDATE NOWAIT"""'),
    (locks_rows, 'LOCK = "select id from posts for share"'),
    (locks_rows, 'LOCK = "SELECT id FROM posts FOR KEY SHARE"'),
    (locks_rows, 'LOCK = f"SELECT id FROM {TABLE} FOR UPDATE {WAY}"'),
    (locks_rows, 'LOCK = "SELECT id FROM posts " + "FOR " + "UPDATE"'),
    (locks_rows, 'LOCK = ("SELECT id FROM posts FOR "\n    "UPDATE")'),
    (locks_rows, 'class Posts:\n    def lock(self, tx):\n        return tx.execute(BASE + " FOR UPDATE")'),
    (
        locks_rows,
        "def lock():\n    return (\n        select(Post)\n        .where(one)\n        .with_for_update()\n    )",
    ),
    (locks_rows, "LOCK = select(Post).with_for_update(\n    key_share=True,\n    skip_locked=True,\n)"),
    (locks_rows, "def lock(session):\n    session.get(Post, 1, with_for_update=True)"),
    (locks_rows, 'def lock(query):\n    getattr(query, "with_for_update")()'),
    (commits, "def write(tx):\n    tx.commit()"),
    (commits, "def write(tx):\n    (\n        tx\n        .commit\n    )()"),
    (commits, "def write(tx):\n    end = tx.commit\n    end()"),
    (commits, "def write(engine):\n    with engine.begin(\n    ) as tx:\n        pass"),
    (commits, 'def write(tx):\n    tx.execute(text("commit"))'),
    (commits, 'WRITE = """\n    UPDATE posts SET caption = $1;\n    COMMIT\n"""'),
    (commits, 'END = "END TRANSACTION;"'),
    (commits_each_statement, "ENGINE = create_engine(url, autocommit=True)"),
    (
        commits_each_statement,
        "def write(on, each):\n    psycopg.connect(\n        on,\n        autocommit=each,\n    )",
    ),
    (commits_each_statement, 'def write(tx):\n    tx.execution_options(isolation_level="AUTOCOMMIT")'),
    (holds_sql, 'READ = """\n    SELECT\n        id FROM posts"""'),
    (holds_sql, 'READ = text("""\n    WITH late AS (\n        SELECT id FROM posts) TABLE late""")'),
    (holds_sql, 'def write(tx):\n    tx.execute(text("delete from posts"))'),
    (holds_sql, 'WRITE = f"UPDATE {TABLE} SET caption = $1"'),
    (sends_a_task, "def ring(app):\n    app.send_task(\n        name,\n    )"),
    (sends_a_task, "def ring(task):\n    task\\\n    .apply_async()"),
    (sends_a_task, "def ring(task):\n    task.delay(\n        post_id,\n    )"),
    (pushes_to_a_queue, "async def ring(redis):\n    await redis.lpush(\n        queue, body)"),
    (pushes_to_a_queue, "SCRIPT = \"return redis.call('rpush', KEYS[1], ARGV[1])\""),
]

PASSES: list[tuple[Rule, str]] = [
    (locks_rows, '"""The page for updates, for a share and FOR UPDATE: a docstring is no statement."""'),
    (locks_rows, 'def lock():\n    """SELECT id FROM posts FOR UPDATE"""'),
    (locks_rows, 'READ = "SELECT id FROM posts -- not FOR UPDATE"'),
    (locks_rows, 'SAID = "Nothing stands there for updating."'),
    (commits, "def start(stack, watch):\n    stack.begin(watch)"),
    (commits, "def log(took):\n    say(commit=took)"),
    (commits, 'SAID = "The commit of its claim was not confirmed."'),
    (commits_each_statement, "ENGINE = create_engine(url, autocommit=False)"),
    (holds_sql, 'SAID = "Update it, or select another one."'),
    (sends_a_task, "def wait(self):\n    sleep(self.delay)"),
    (pushes_to_a_queue, 'SAID = "pushed"'),
]


@pytest.mark.parametrize(("rule", "snippet"), FINDS)
def test_a_rule_finds_what_it_forbids_however_it_is_written(rule: Rule, snippet: str) -> None:
    assert any(rule(node) for node in ast.parse(snippet).body)


@pytest.mark.parametrize(("rule", "snippet"), PASSES)
def test_a_rule_leaves_alone_what_only_looks_alike(rule: Rule, snippet: str) -> None:
    assert not any(rule(node) for node in ast.parse(snippet).body)


# Each runs in a statement that commits by itself, beside the transaction that has the posts, or in none. They pass over
# every row that is locked elsewhere, so that they wait for nothing, and have let go of their rows when they return.
LOCKS_OF_ONE_STATEMENT = {f"shared/store/edits.py {name}" for name in ("_FREE", "_GIVE_BACK", "_COUNT_DEATHS")}


def test_there_is_one_row_lock() -> None:
    assert places(locks_rows) - LOCKS_OF_ONE_STATEMENT == {"shared/store/posts.py _LOCK"}


def test_the_locks_of_one_statement_wait_for_nothing() -> None:
    assert places(locks_rows) >= LOCKS_OF_ONE_STATEMENT
    found = [text for node in ast.parse(PRODUCT["shared/store/edits.py"]).body for text in sql_in(node)]
    locks = [text for text in found if "FOR NO KEY UPDATE" in text]
    assert len(locks) == len(LOCKS_OF_ONE_STATEMENT)
    assert all("FOR NO KEY UPDATE OF e SKIP LOCKED" in text for text in locks)


def test_there_is_one_commit() -> None:
    assert places(commits) == {"shared/store/db.py transaction"}


def test_every_connection_that_commits_by_itself_is_named() -> None:
    assert places(commits_each_statement) == {
        "shared/store/db.py make_engine",
        "shared/store/db.py _autocommit",
        "shared/store/db.py _autocommit_relaxed",
        "shared/store/prerequisites.py server",  # asks the server's version, in no transaction
        "shared/local/postgres.py PostgreSQL",  # CREATE DATABASE runs in no transaction
    }


def test_there_is_one_send() -> None:
    # What celery_message.py sends never leaves its process; beat's own messages are Celery's.
    assert {place.split()[0] for place in places(sends_a_task)} <= {
        "shared/broker/celery_message.py",
        "worker/runtime/scheduler.py",
    }
    # Messages go on queues, and doorbells in the list of the worker that is awake or in its hand.
    assert {place.split()[0] for place in places(pushes_to_a_queue)} == {
        "shared/broker/queue.py",
        "shared/broker/doorbells.py",
        "shared/broker/hands.py",
    }


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
    elsewhere = {place for place in places(holds_sql) if not place.startswith("shared/store/")}
    assert elsewhere == {"shared/local/postgres.py PostgreSQL"}  # makes and drops databases in its own server


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
    found |= files_with("noqa: SLF001.*\n") & files_with(r"channel\._get")
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
