"""A decision that fails for one caption: a fault of our own, or one that ends its process."""

from typing import Any

import pytest

from shared.domain import lifecycle


def fail_for(monkeypatch: pytest.MonkeyPatch, caption: str, error: type[BaseException]) -> None:
    """Have `lifecycle.decide` raise for edits to this caption."""
    decide = lifecycle.decide

    def failing(facts: Any, patch: Any, *rest: Any) -> Any:
        if patch.caption == caption:
            raise error
        return decide(facts, patch, *rest)

    monkeypatch.setattr(lifecycle, "decide", failing)
