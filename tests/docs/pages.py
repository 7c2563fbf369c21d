"""The pages that people read, taken apart: prose, sentences, fenced blocks."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = sorted(
    path.relative_to(ROOT).as_posix() for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
)

_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ITEM = re.compile(r"\s*(?:[-*]|\d+\.)\s+")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_END = re.compile(r"(?<=[.!?])[\"')*_]*\s+")


@dataclass(frozen=True)
class Block:
    """A fenced block: the page and line where it begins, the words behind its three backticks, and its text."""

    page: str
    line: int
    info: str
    text: str


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def blocks(page: str) -> list[Block]:
    text = text_of(page)
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, found[1].strip(), found[2])
        for found in _FENCE.finditer(text)
    ]


def sentences(text: str) -> list[str]:
    """The sentences of paragraphs and list items. Headings, tables, pictures and fenced blocks are left out; a piece of
    inline code is one word.
    """
    text = re.sub(r"<!--.*?-->", "", _FENCE.sub("\n", text), flags=re.DOTALL)
    return [sentence for paragraph in _paragraphs(text) for sentence in _END.split(paragraph) if words(sentence)]


def words(sentence: str) -> int:
    return len([word for word in sentence.split() if re.search(r"\w", word)])


def _paragraphs(text: str) -> Iterator[str]:
    lines: list[str] = []
    for line in [*text.splitlines(), ""]:
        apart = not line.strip() or line.startswith(("#", "|", "!["))
        if apart or _ITEM.match(line):
            yield _plain(" ".join(lines))
            lines = []
        if not apart:
            lines.append(_ITEM.sub("", line, count=1) if _ITEM.match(line) else line.strip())


def _plain(paragraph: str) -> str:
    return re.sub(r"`[^`]+`", "code", _LINK.sub(r"\1", paragraph))
