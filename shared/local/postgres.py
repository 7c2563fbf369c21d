"""An embedded PostgreSQL: a real server on loopback, made by `initdb` at the first start, a direct child afterwards."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from shared.domain.start_rules import OLDEST_POSTGRESQL
from shared.local import binaries
from shared.local.datadir import DataDir, write_private
from shared.local.errors import LocalError
from shared.local.supervisor import Child

USER = DATABASE = "redraft"
# Sorts the same on every machine, whatever its locales; UTF-8 whatever the environment says.
INITDB = (
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--auth=scram-sha-256",
    f"--username={USER}",
    "--no-instructions",
)
SERVER: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a socket path has a length limit that deep folders exceed
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Six workers with up to 64 threads each, the API, a person's psql and a test run beside them.
    "max_connections": "300",
    # Taken as it is used. With PostgreSQL's own 128 MB, ten million old edits made each new one write out another
    # pages first: 1.3 writes and 2 evictions an edit, and a fifth to a third fewer edits a second.
    "shared_buffers": "512MB",
    # Half as many checkpoints in a flood: after each, whatever is touched first goes into the WAL as a whole page.
    "max_wal_size": "2GB",
    "log_checkpoints": "off",  # every five minutes a line that no user needs
    "cluster_name": "redraft",
}
FOR_TESTS_ONLY: Mapping[str, str] = {"fsync": "off", "full_page_writes": "off"}


class PostgreSQL:
    """One server in one data folder. `prepare()`, then start `child()`, then `wait()`."""

    def __init__(self, data: DataDir, *, port: int | None = None, settings: Mapping[str, str] | None = None) -> None:
        """`port` None takes a free one and keeps it. `settings` are `-c name=value`, over our own."""
        self.data = data
        self.folder = data.path / "postgres"
        self.password = data.secret("postgresPassword")
        self.port = data.port("postgresPort") if port is None else port
        self.settings = {**SERVER, **(settings or {}), "port": str(self.port)}
        self._binaries = binaries.postgres_folder()
        self._identity = ""

    def url(self, database: str = DATABASE) -> str:
        """In SQLAlchemy's form."""
        return self._dsn(database).replace("postgresql://", "postgresql+psycopg://", 1)

    def _dsn(self, database: str) -> str:
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def prepare(self) -> None:
        """Choose whom to run as, make the data folder at the first start, check it at later ones (0.5 s, 0.05 s).

        Raises LocalError: no binaries, another major version's data, or a server that still runs there.
        """
        self._identity = self._choose_identity()
        user, group = binaries.owner(self._identity)
        have = binaries.major_version(self._binaries / "postgres")
        if int(have) < OLDEST_POSTGRESQL:
            raise LocalError(
                f"The PostgreSQL on PATH is {have}; Redraft needs {OLDEST_POSTGRESQL}. "
                "Install a newer one, or set REDRAFT_DATABASE_URL to a server of yours."
            )
        if not self.folder.exists():
            self._initialise(user, group)
            return
        try:
            version = (self.folder / "PG_VERSION").read_text(encoding="ascii").strip()
        except PermissionError as error:
            raise LocalError(
                f"{self.folder} belongs to another user (was Redraft started as root before?). "
                f"Start as that user, or: sudo chown -R {user} {self.data.path}"
            ) from error
        except FileNotFoundError as error:
            raise LocalError(f"{self.folder} is no PostgreSQL data folder. Move it away, or use --data-dir.") from error
        if version != have:
            raise LocalError(
                f"{self.folder} was made by PostgreSQL {version}, this is PostgreSQL {have}, which cannot read it. "
                f"Put a PostgreSQL {version} first on PATH to dump it, or move the folder away to start afresh."
            )
        if self.folder.stat().st_uid != user:
            _give(self.folder, user, group)
        self._await_predecessor()

    def _choose_identity(self) -> str:
        for identity in binaries.identities():
            if not identity:
                return identity
            # A folder that the identity would own: its data folder stands beside.
            probe = self.data.path / "probe"
            probe.mkdir(mode=0o700, exist_ok=True)
            os.chown(probe, *binaries.owner(identity))
            fits = binaries.works(identity, self._binaries / "postgres", probe)
            probe.rmdir()
            if fits:
                return identity
        if os.geteuid() != 0:
            raise LocalError(
                f"PostgreSQL needs a user with a name, and number {os.geteuid()} has none here. Start Redraft as a "
                "user from /etc/passwd, or set REDRAFT_DATABASE_URL to a server of yours."
            )
        raise LocalError(
            "PostgreSQL refuses to run as root, and here it cannot run as `nobody` either: a folder above "
            f"{self._binaries} or {self.data.path} is closed to other users. Start Redraft as a normal user, move "
            "both to a folder that others may pass through (chmod o+x), or set REDRAFT_DATABASE_URL."
        )

    def _initialise(self, user: int, group: int) -> None:
        fresh = self.data.path / "postgres.new"  # renamed when whole: a start killed half-way leaves no half folder
        if fresh.exists():
            shutil.rmtree(fresh)
        fresh.mkdir(mode=0o700)
        os.chown(fresh, user, group)
        password = self.data.path / "postgres.password"
        write_private(password, self.password)
        os.chown(password, user, group)
        sync = () if self.settings.get("fsync") != "off" else ("--no-sync",)
        argv = [str(self._binaries / "initdb"), *INITDB, *sync, f"--pwfile={password}", str(fresh)]
        try:
            made = subprocess.run(  # noqa: S603 - our own binary
                self._child("initdb", argv).command(),
                cwd="/",
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            password.unlink()
        if made.returncode != 0:
            raise LocalError(f"initdb failed in {fresh}:\n{made.stdout}{made.stderr}")
        fresh.rename(self.folder)

    def _await_predecessor(self) -> None:
        """Wait for a server whose supervisor was killed to finish its own shutdown; forget one that is long gone."""
        pidfile = self.folder / "postmaster.pid"
        for _ in range(100):
            try:
                pid = int(pidfile.read_text(encoding="ascii").split("\n", 1)[0])
            except (FileNotFoundError, ValueError):
                return
            if not self._serves_here(pid):
                # The number belongs to another process now. PostgreSQL would take that for a living server.
                pidfile.unlink(missing_ok=True)
                return
            time.sleep(0.1)
        raise LocalError(f"Another PostgreSQL (process {pid}) still runs in {self.folder}. Stop it: kill -INT {pid}")

    def _serves_here(self, pid: int) -> bool:
        with suppress(psutil.NoSuchProcess, FileNotFoundError):
            process = psutil.Process(pid)
            try:
                return process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).samefile(self.folder)
            except psutil.AccessDenied:
                return False
        return False

    def _child(self, name: str, argv: list[str]) -> Child:
        return Child(
            name=name,
            argv=argv,
            environment=binaries.server_environment(self.data.path),
            sealed=True,
            # "Fast" shutdown: ends sessions, writes a checkpoint, and needs no recovery at the next start.
            stop_signal=signal.SIGINT,
            orphan_signal=signal.SIGINT,
            grace=10,
            identity=self._identity,
            cwd="/",
        )

    def child(self) -> Child:
        """What to supervise. Call after `prepare()`."""
        chosen = [f"-c{name}={value}" for name, value in self.settings.items()]
        return self._child("postgres", [str(self._binaries / "postgres"), "-D", str(self.folder), *chosen])

    def answers(self, database: str = "postgres") -> bool:
        """Whether our server, and not another one on its port, takes a connection now."""
        import psycopg  # noqa: PLC0415 - 0.1 s that a command which needs no server should not pay

        try:
            psycopg.connect(self._dsn(database), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def create_database(self, name: str = DATABASE, *, template: str | None = None) -> str:
        """Make a database unless it is there; its URL. The template must have no connections (20 ms of CPU)."""
        import psycopg  # noqa: PLC0415 - as above
        from psycopg import sql  # noqa: PLC0415

        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template is not None:
            # Files are copied three times as fast as they are logged block by block.
            statement += sql.SQL(" TEMPLATE {} STRATEGY FILE_COPY").format(sql.Identifier(template))
        with psycopg.connect(self._dsn("postgres"), autocommit=True) as connection:
            # Asked first: an attempt that fails would stand in the server's log at every start.
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
                connection.execute(statement)
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Remove a database, connections to it included."""
        import psycopg  # noqa: PLC0415 - as above
        from psycopg import sql  # noqa: PLC0415

        with psycopg.connect(self._dsn("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _give(folder: Path, user: int, group: int) -> None:
    """Hand a whole data folder to the user that PostgreSQL runs as now; only root ever needs to."""
    for parent, _, files in os.walk(folder):
        os.chown(parent, user, group)
        for name in files:
            os.chown(Path(parent) / name, user, group, follow_symlinks=False)
