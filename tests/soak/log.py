"""What the clients were answered, kept on disk in shards by post: a million exchanges fit in no test's memory.

Whatever the oracle judges, it judges of one post at a time, so that a shard of posts can be judged alone.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from tests.faults.evidence import Exchange

SHARDS = 64


def shard_of(post_id: str) -> int:
    """The same in every process and run."""
    return zlib.crc32(post_id.encode()) % SHARDS


class Log:
    """Append with `add` while the load runs, then `close`, then read shard by shard."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._files: list[IO[bytes]] = [self._path(shard).open("wb") for shard in range(SHARDS)]
        self.exchanges = 0

    def _path(self, shard: int) -> Path:
        return self._folder / f"{shard:02}.jsonl"

    def add(
        self,
        request: str,
        post_id: str,
        body: Mapping[str, Any],
        sent: float,
        *,
        key: str | None = None,
        answered: float | None = None,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        answer: bytes = b"null",
        error: str = "",
    ) -> None:
        """`answer` is JSON already, as it came: it is written as it stands, and parsed only by the judge."""
        facts = [request, post_id, body, sent, answered, status, headers or {}, key, error]
        line = json.dumps(facts, separators=(",", ":")).encode()[:-1] + b"," + answer.replace(b"\n", b" ") + b"]\n"
        self._files[shard_of(post_id)].write(line)
        self.exchanges += 1

    def close(self) -> None:
        for file in self._files:
            file.close()

    def read(self, shard: int) -> list[Exchange]:
        """The exchanges about the posts of one shard, in the order in which they ended."""
        found = []
        with self._path(shard).open("rb") as lines:
            for line in lines:
                request, post_id, body, sent, answered, status, headers, key, error, answer = json.loads(line)
                found.append(Exchange(request, post_id, body, sent, answered, status, headers, answer, key, error))
        return found
