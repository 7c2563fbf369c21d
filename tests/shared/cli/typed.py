"""A command of ours as a person types it and as a script reads it, in the test's own process."""

import json
from dataclasses import dataclass
from typing import Any

import typer
from typer.testing import CliRunner, Result


@dataclass(frozen=True)
class Typed:
    """`app` is the command with its subcommands. `says`: what the person answers to its questions."""

    app: typer.Typer

    def __call__(self, *arguments: str, says: str | None = None) -> Result:
        return CliRunner().invoke(self.app, list(arguments), input=says)

    def as_json(self, *arguments: str, code: int = 0) -> Any:
        """What a script gets."""
        result = self(*arguments, "--json")
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)
