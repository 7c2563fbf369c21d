"""Every fenced command of README and docs/ runs as a reader types it, in a folder that looks like a fresh clone after
`make up`, against a real stack.

A block whose commands cannot run in a test says why behind its backticks: ```sh no-test: needs Docker. One whose last
command may fail says how it may end: ```sh exits 0 or 1. The blocks of a page run in one shell, in their order.
"""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from shared.cli.main import app
from tests.docs.pages import PAGES, ROOT, Block, blocks, text_of
from tests.ports import free_port
from tests.processes import Process, Processes, data_dir

TO_RUN = {page: [block for block in blocks(page) if re.match(r"(sh|bash|console)\b", block.info)] for page in PAGES}
RECEIVER = "9000"
"""The port of README's receiver of webhooks; here it is a free one."""

LINKED = (".venv", "Makefile", "tests", "shared", "api", "worker", "pyproject.toml", "README.md")


class Reader:
    """A person with a terminal in a folder of their own, beside a running stack."""

    def __init__(self, folder: Path, processes: Processes) -> None:
        self.folder = folder
        self.processes = processes
        self.port = str(free_port())
        for name in LINKED:
            (folder / name).symlink_to(Path(sys.prefix) if name == ".venv" else ROOT / name)
        shutil.copytree(ROOT / "docs", folder / "docs")

    def start_stack(self) -> None:
        ports = f"--port={free_port()}", f"--flower-port={free_port()}"
        up = [sys.executable, "-m", "shared.cli.main", "up", "--demo", f"--data-dir={self.folder / '.redraft'}", *ports]
        url = f"http://127.0.0.1:{self.port}/webhooks"
        self.processes.start(up, REDRAFT_WEBHOOK_URL=url).says("Redraft is up", within=60)

    def types(self, page: str) -> Process:
        """Begin with the page's blocks, in one shell that ends at the first command that fails."""
        lines = [f"cd {self.folder}", "set -e", *(self._lines(block) for block in TO_RUN[page])]
        script = self.folder / f"{page.replace('/', '-')}.sh"
        script.write_text("\n".join(lines).replace(RECEIVER, self.port))
        state = str(self.folder / "state")
        return self.processes.start(
            ["bash", str(script)], NO_PROXY="127.0.0.1", no_proxy="127.0.0.1", XDG_STATE_HOME=state
        )

    @staticmethod
    def _lines(block: Block) -> str:
        if "no-test" in block.info:
            return ""
        begin = f"echo '--- {block.page}:{block.line}'"
        ends = re.search(r"exits ([\d or]+)", block.info)
        if ends is None:
            return f"{begin}\n{commands(block)}"
        allowed = "|".join(ends[1].split(" or "))
        return f"{begin}\nset +e\n{commands(block)}\ncase $? in {allowed}) ;; *) exit 99 ;; esac\nset -e"


def commands(block: Block) -> str:
    """What a reader types: all of a `sh` block, the lines behind a `$` of a `console` block."""
    if not block.info.startswith("console"):
        return block.text
    return "\n".join(line.removeprefix("$ ") for line in block.text.splitlines() if line.startswith("$ "))


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    processes = Processes()
    with data_dir() as data:
        one = Reader(data.path, processes)
        one.start_stack()
        yield one
        processes.close()


@pytest.fixture(scope="module", autouse=True)
def readme(reader: Reader) -> Process:
    """README's session waits up to a minute for its post to go out: the other pages run meanwhile."""
    return reader.types("README.md")


@pytest.mark.parametrize("page", [page for page in PAGES if TO_RUN[page] and page != "README.md"])
def test_the_commands_of_a_page_work_as_they_stand(reader: Reader, page: str) -> None:
    shell = reader.types(page)
    assert shell.wait(within=180) == 0, shell.output()


def test_readmes_session_works_as_it_stands(readme: Process) -> None:
    assert readme.wait(within=180) == 0, readme.output()
    said = readme.output()
    for part in (
        "HTTP/1.1 200 OK",
        '"status":"applied"',
        ": posted",
        "edit.applied",
        "post.rescheduled",
        "post.posted",
    ):
        assert part in said, said


def test_a_block_that_is_not_run_says_why() -> None:
    left_out = [block for found in TO_RUN.values() for block in found if "no-test" in block.info]
    assert left_out
    assert [block for block in left_out if not re.search(r"no-test: \w+ \w+", block.info)] == []


def inline(page: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)))


@pytest.mark.parametrize("page", PAGES)
def test_a_command_that_a_page_names_is_one_that_there_is(page: str) -> None:
    root = typer.main.get_command(app)
    for said in inline(page):
        command = root
        for word in said.removeprefix(".venv/bin/").split()[1:] if re.match(r"(\.venv/bin/)?redraft ", said) else []:
            known = getattr(command, "commands", None)
            if known is None or not re.fullmatch(r"[a-z]+", word):
                break
            assert word in known, said
            command = known[word]


@pytest.mark.parametrize("page", PAGES)
def test_a_target_of_make_that_a_page_names_is_one_that_there_is(page: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {found[1] for said in inline(page) if (found := re.match(r"make ([a-z]+)", said))}
    assert named <= targets
