"""The operators' door by itself: guesses, tokens, origins."""

import time

from starlette.requests import Request

from api import ops_entry
from shared.settings import Settings


def test_after_ten_wrong_passwords_an_address_waits_and_others_do_not() -> None:
    guesses = ops_entry.Guesses()
    for second in range(10):
        assert not guesses.too_many("a", second)
        guesses.wrong("a", second)
    assert guesses.too_many("a", 10)
    assert not guesses.too_many("b", 10)
    assert not guesses.too_many("a", 61)


def test_a_token_ends_after_half_a_day_and_with_the_password() -> None:
    config, path, now = Settings(ops_password="a"), "/ops/x", time.time()
    token = ops_entry.token(config, path, now)
    assert ops_entry.token_holds(config, path, token, now + 12 * 3600 - 1)
    assert not ops_entry.token_holds(config, path, token, now + 12 * 3600 + 1)
    assert not ops_entry.token_holds(config, path, token, now - 3600)
    assert not ops_entry.token_holds(Settings(ops_password="b"), path, token, now)
    assert not ops_entry.token_holds(config, path, f"{'9' * 400}.x", now)


def test_an_origin_is_held_against_the_host_that_was_asked() -> None:
    def asked(**headers: str) -> bool:
        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        return ops_entry.from_here(Request({"type": "http", "headers": raw}))

    assert asked(origin="https://redraft.example.com", host="redraft.example.com")
    assert not asked(origin="https://redraft.example.com.evil.com", host="redraft.example.com")
    assert not asked(origin="https://redraft.example.com:8443", host="redraft.example.com")
    assert not asked(host="redraft.example.com")
    assert not asked()
