"""An embedded Valkey (it speaks Redis): password, append-only file, and no eviction, so that no doorbell is dropped."""

import signal
from collections.abc import Mapping

from shared.local import binaries
from shared.local.datadir import DataDir, write_private
from shared.local.supervisor import Child

SERVER: Mapping[str, str] = {
    "bind": "127.0.0.1",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": '""',  # the append-only file is the one copy on disk
    "maxmemory-policy": "noeviction",
    "loglevel": "warning",
}


class Valkey:
    """One server in one data folder. `prepare()`, then start `child()`, then wait until it `answers()`."""

    def __init__(self, data: DataDir, *, port: int | None = None, settings: Mapping[str, str] | None = None) -> None:
        """`port` None takes a free one and keeps it. `settings` are lines of its configuration, over our own."""
        self.data = data
        self.folder = data.path / "valkey"
        self.password = data.secret("valkeyPassword")
        self.port = data.port("valkeyPort") if port is None else port
        self.settings = {**SERVER, **(settings or {}), "port": str(self.port), "requirepass": self.password}
        self._binary = binaries.valkey_server()

    def url(self, database: int = 0) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/{database}"

    def prepare(self) -> None:
        """Write the configuration: a file, because a password in the arguments is everybody's to read."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        lines = "".join(f"{name} {value}\n" for name, value in self.settings.items())
        write_private(self.data.path / "valkey.conf", lines)

    def child(self) -> Child:
        """What to supervise. Call after `prepare()`."""
        return Child(
            name="valkey",
            argv=[str(self._binary), str(self.data.path / "valkey.conf"), "--dir", str(self.folder)],
            environment=binaries.server_environment(self.data.path),
            sealed=True,
            stop_signal=signal.SIGTERM,
            orphan_signal=signal.SIGTERM,
            grace=10,
            # Advice on a kernel setting that matters to servers with gigabytes, not to this one.
            unsaid=("Memory overcommit",),
        )

    def answers(self) -> bool:
        """Whether our server, and not another one on its port, answers now and has its data loaded."""
        return answers(self.url())


def answers(url: str) -> bool:
    """Whether the Redis at that URL answers now; after at most 2 s."""
    import redis  # noqa: PLC0415 - 0.15 s that a command which needs no server should not pay
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.retry import Retry  # noqa: PLC0415

    # The client's own retries would make of "not yet" an answer that comes seconds late.
    once = Retry(NoBackoff(), 0)
    try:
        with redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2, retry=once) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False
