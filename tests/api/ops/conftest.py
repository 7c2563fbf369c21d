"""One stack with an operators' page and one browser for the tests of this folder; a window of its own for each test."""

from collections.abc import Iterator

import pytest

from shared.local.postgres import PostgreSQL
from shared.local.valkey import Valkey
from tests.api.ops.browser import DESKTOP, Browser, browsing
from tests.conftest import TEMPLATE, empty_database
from tests.stack import Running, running

PASSWORD = "operators-only"


@pytest.fixture(scope="module")
def stack(postgres: PostgreSQL, valkey: Valkey) -> Iterator[Running]:
    url = postgres.create_database("ops_browser", template=TEMPLATE)
    redis = empty_database(valkey)
    with running(url, redis, "edits", "bulk", REDRAFT_OPS_PASSWORD=PASSWORD) as stack:
        yield stack


@pytest.fixture(scope="module")
def chromium(stack: Running) -> Iterator[Browser]:
    assert stack.api is not None
    with browsing() as browser:
        # Once with the password, as a person who was asked for it; the browser remembers it from there on.
        browser.open(f"{stack.api.url.replace('://', f'://ops:{PASSWORD}@')}/ops")
        yield browser


@pytest.fixture
def browser(chromium: Browser) -> Browser:
    chromium.look(DESKTOP, "light")
    chromium.said()
    return chromium
