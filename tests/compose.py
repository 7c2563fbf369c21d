"""docker-compose.yml as Compose resolves it: merges by YAML, then `${NAME}` by the environment.

Compose's rules: https://docs.docker.com/reference/compose-file/interpolation/
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parent.parent
TEXT: Final = (ROOT / "docker-compose.yml").read_text()
PASSWORDS: Final = {
    f"REDRAFT_{name}": f"given{name.replace('_', '')}"
    for name in ("DB_PASSWORD", "CACHE_PASSWORD", "OPS_PASSWORD", "FLOWER_PASSWORD")
}
"""What `docker compose up` refuses to start without."""

_VARIABLE: Final = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<name>\w+)(?:(?P<kind>:[-?])(?P<rest>[^}]*))?\})")


class MissingError(Exception):
    """A variable that has to be set is not, or is empty."""


def resolved(environment: Mapping[str, str]) -> dict[str, Any]:
    """The whole file, as `docker compose config` shows it in its long form. Raises MissingError."""
    found: dict[str, Any] = _interpolated(yaml.safe_load(TEXT), environment)
    return found


def _interpolated(part: Any, environment: Mapping[str, str]) -> Any:
    if isinstance(part, dict):
        # Fields x-… are only there for others to refer to.
        return {key: _interpolated(value, environment) for key, value in part.items() if not str(key).startswith("x-")}
    if isinstance(part, list):
        return [_interpolated(value, environment) for value in part]
    return _VARIABLE.sub(lambda found: _value(found, environment), part) if isinstance(part, str) else part


def _value(found: re.Match[str], environment: Mapping[str, str]) -> str:
    if found["escaped"]:
        return "$"
    value = environment.get(found["name"], "")
    if value:
        return value
    if found["kind"] == ":?":
        raise MissingError(f"{found['name']}: {found['rest']}")
    return found["rest"] or ""
