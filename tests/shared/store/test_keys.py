"""The store's workspaces, accounts and keys, on a real database."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, create_engine, pool, text
from sqlalchemy.exc import IntegrityError

from shared.store import keys
from shared.store.keys import SCOPES, Found, Key, NameTakenError


@pytest.fixture
def tx(database_url: str) -> Iterator[Connection]:
    with create_engine(database_url, poolclass=pool.NullPool).begin() as connection:
        yield connection


@pytest.fixture
def home(tx: Connection) -> str:
    return keys.create_workspace(tx, "home")


def key_of(tx: Connection, secret: str) -> Key:
    [found] = keys.find_keys(tx, [keys.hash_of(secret)]).values()
    return found.key


def test_a_key_is_found_by_the_hash_of_its_secret_with_its_scopes_and_limit(tx: Connection, home: str) -> None:
    secret = keys.create_key(tx, home, "ci", ["bulk", "posts:read"], 60)
    digest = keys.hash_of(secret)
    found = keys.find_keys(tx, [digest, keys.hash_of("sk_wrong")])
    assert list(found) == [digest]
    key = found[digest].key
    assert key == Key(key.id, home, "ci", frozenset({"posts:read", "bulk"}), 60)
    assert key.id.startswith("key_")
    assert found[digest] == Found(key, expires_at=None, seconds_left=None, use_is_old=True)


def test_many_keys_of_several_workspaces_are_found_in_one_statement_and_none_is_no_error(
    tx: Connection, home: str
) -> None:
    other = keys.create_workspace(tx, "other")
    secrets = [keys.create_key(tx, place, "ci", SCOPES, None) for place in (home, other)]
    found = keys.find_keys(tx, [keys.hash_of(secret) for secret in secrets])
    assert [found[keys.hash_of(secret)].key.workspace_id for secret in secrets] == [home, other]
    assert found[keys.hash_of(secrets[0])].key.rate_limit is None
    assert keys.find_keys(tx, []) == {}


def test_a_secret_is_256_random_bits_and_stands_nowhere_in_the_database(tx: Connection, home: str) -> None:
    secrets = {keys.create_key(tx, home, f"key {number}", SCOPES, None) for number in range(20)}
    assert len(secrets) == 20
    assert {(secret[:3], len(secret)) for secret in secrets} == {("sk_", 46)}
    stored = tx.execute(text("SELECT CAST(api_keys AS text) FROM api_keys")).scalars().all()
    assert not [secret for secret in secrets if any(secret[3:20] in row for row in stored)]
    assert sorted(entry.hint for entry in keys.keys_of(tx, home)) == sorted(secret[-4:] for secret in secrets)


def test_a_revoked_key_is_not_found_but_listed_and_revoking_it_again_changes_nothing(tx: Connection, home: str) -> None:
    secret, other = (keys.create_key(tx, home, name, SCOPES, None) for name in ("one", "two"))
    key = key_of(tx, secret)
    first = keys.revoke_key(tx, key.id)
    assert first is not None
    assert keys.find_keys(tx, [keys.hash_of(secret)]) == {}
    assert len(keys.find_keys(tx, [keys.hash_of(other)])) == 1
    assert keys.revoke_key(tx, key.id) == first
    assert {entry.key.name: entry.revoked_at for entry in keys.keys_of(tx, home)} == {"one": first, "two": None}
    assert keys.revoke_key(tx, "key_nobody") is None


def test_a_renewed_key_takes_its_new_secret_and_no_longer_its_old_one(tx: Connection, home: str) -> None:
    old = keys.create_key(tx, home, "ci", SCOPES, 60)
    key = key_of(tx, old)
    keys.revoke_key(tx, key.id)
    tx.execute(text("UPDATE api_keys SET expires_at = now() - interval '1 day'"))
    new = keys.new_secret()
    keys.renew_key(tx, key.id, new)
    found = keys.find_keys(tx, [keys.hash_of(old), keys.hash_of(new)])
    assert found == {keys.hash_of(new): Found(key, use_is_old=True)}
    assert [entry.hint for entry in keys.keys_of(tx, home)] == [new[-4:]]


def test_a_name_is_used_once_and_the_transaction_survives_a_second_try(tx: Connection, home: str) -> None:
    other = keys.create_workspace(tx, "other")
    keys.create_key(tx, home, "ci", SCOPES, None)
    with pytest.raises(NameTakenError):
        keys.create_workspace(tx, "home")
    with pytest.raises(NameTakenError):
        keys.create_key(tx, home, "ci", SCOPES, None)
    keys.create_key(tx, other, "ci", SCOPES, None)
    assert {one.name for one in keys.workspaces(tx)} == {"home", "other"}
    assert len(keys.keys_of(tx, home, other)) == 2


def test_lists_hold_what_belongs_to_the_named_workspaces_and_of_none_nothing(tx: Connection, home: str) -> None:
    other = keys.create_workspace(tx, "other")
    mine = keys.add_account(tx, home, "tiktok", "harbor")
    theirs = keys.add_account(tx, other, "instagram", "harbor")
    keys.create_key(tx, other, "theirs", SCOPES, None)
    assert [(one.id, one.platform) for one in keys.accounts_of(tx, home)] == [(mine, "tiktok")]
    assert {one.id for one in keys.accounts_of(tx, home, other)} == {mine, theirs}
    assert (keys.accounts_of(tx), keys.keys_of(tx), keys.keys_of(tx, home)) == ([], [], [])
    assert len(mine) == len("acc_1a2b3c4d5e")


@pytest.mark.parametrize("limit", [0, -1])
def test_the_database_refuses_a_limit_that_lets_nothing_through(tx: Connection, home: str, limit: int) -> None:
    with pytest.raises(IntegrityError, match="ck_api_keys_rate_limit"), tx.begin_nested():
        keys.create_key(tx, home, "ci", SCOPES, limit)
