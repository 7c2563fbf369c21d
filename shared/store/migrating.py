"""Bringing the tables up to date, and which migrations this code knows.

No role imports it: Alembic takes a sixth of a second to load.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory


def migrate(url: str, revision: str = "head") -> None:
    """Bring the database up to `revision`. Two at once are safe: the second waits and finds nothing to do."""
    config = _config()
    config.attributes["url"] = url
    command.upgrade(config, revision)


def known() -> list[str]:
    """The migrations of this code, the newest first."""
    return [script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()]


def _config() -> Config:
    """Alembic's configuration without a file of its own: one place says where the migrations stand."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config
