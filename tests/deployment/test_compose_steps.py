"""The steps of docs/deployment.md that need no Docker, typed as they stand there."""

import subprocess
from pathlib import Path

from tests import compose
from tests.docs.pages import blocks

PAGE = "docs/deployment.md"


def typed(folder: Path) -> dict[str, str]:
    """What `.env` holds after the page's lines that write it."""
    for block in blocks(PAGE):
        if "test_compose_steps" in block.info:
            subprocess.run(["sh", "-eu", "-c", block.text], cwd=folder, check=True)
    lines = (line.partition("=") for line in (folder / ".env").read_text().splitlines())
    return {name: value for name, _, value in lines}


def test_one_line_makes_every_password_and_keeps_it_from_others(tmp_path: Path) -> None:
    env = typed(tmp_path)
    secrets = [value for name, value in env.items() if name.endswith(("PASSWORD", "SECRET"))]
    assert len(secrets) == len(set(secrets)) == 5
    assert all(value.isalnum() and len(value) == 48 for value in secrets), "they stand in URLs"
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600


def test_what_was_typed_is_all_that_compose_asks_for(tmp_path: Path) -> None:
    env = typed(tmp_path)
    services = compose.resolved(env)["services"]
    publish = services["worker-publish"]["environment"]
    assert publish["REDRAFT_PUBLISHER_URL"] == "https://publisher.example.com/publish"
    assert publish["REDRAFT_SERVICE_SECRET"] == env["REDRAFT_SERVICE_SECRET"]
    assert services["worker-edits"]["environment"]["REDRAFT_WEBHOOK_URL"] == "https://example.com/webhooks"
