"""Logins of /ops: one that only looks, and users whose names are kept with what they do."""

from collections.abc import Iterator

import httpx
import pytest
from starlette.routing import Route

from api.ops.pages import router
from shared.local.postgres import PostgreSQL
from shared.local.valkey import Valkey
from tests import factories
from tests.api.ops.test_pages import OURS, edit, form, read
from tests.conftest import TEMPLATE, empty_database
from tests.loopback import LOOPBACK
from tests.stack import Running, running

ACTS, LOOKS = "acts-on-things", "looks-at-things"
ENVIRONMENT = {"REDRAFT_OPS_PASSWORD": ACTS, "REDRAFT_OPS_READ_PASSWORD": LOOKS, "REDRAFT_OPS_USERS": "anna,ben"}


@pytest.fixture(scope="module")
def stack(postgres: PostgreSQL, valkey: Valkey) -> Iterator[Running]:
    url = postgres.create_database("api_ops_logins", template=TEMPLATE)
    with running(url, empty_database(valkey), **ENVIRONMENT) as stack:
        yield stack


def come_in(stack: Running, user: str, password: str) -> httpx.Client:
    assert stack.api is not None
    return httpx.Client(base_url=stack.api.url, auth=(user, password), **LOOPBACK, timeout=10)


def test_a_login_that_only_looks_sees_everything_and_changes_nothing(stack: Running) -> None:
    post = stack.post()
    failed = edit(stack, post, {"caption": "mine"})
    with come_in(stack, "ops", ACTS) as operator, come_in(stack, "anna", LOOKS) as guest:
        for path in ("/ops", "/ops/edits", f"/ops/edits/{failed}", f"/ops/posts/{post}", "/ops/jobs", "/ops/webhooks"):
            assert "This login only looks." in read(guest, path)
            assert "This login only looks." not in read(operator, path)
        for act in ("requeue", "discard"):
            path = f"/ops/edits/{failed}/{act}"
            refused = guest.post(path, data=form(operator, failed, act), headers=OURS)
            assert refused.status_code == 403
            assert "This login only looks, and nothing was done." in refused.text
        assert stack.row("edits", failed).status == "failed"


def test_every_form_of_the_pages_is_closed_to_it(stack: Running) -> None:
    paths = [route.path for route in router.routes if isinstance(route, Route) and "POST" in (route.methods or ())]
    assert len(paths) >= 5
    with come_in(stack, "anna", LOOKS) as guest:
        for path in paths:
            answer = guest.post(path.replace("{", "").replace("}", ""), headers=OURS)
            assert (answer.status_code, "This login only looks" in answer.text) == (403, True), path


def test_what_a_user_does_is_kept_with_the_users_name(stack: Running) -> None:
    post = stack.post()
    failed = edit(stack, post, {"caption": "mine"})
    with come_in(stack, "ben", ACTS) as ben:
        done = ben.post(f"/ops/edits/{failed}/discard", data=form(ben, failed, "discard"), headers=OURS)
        assert done.status_code == 303
        assert "by ben" in " ".join(read(ben, f"/ops/edits/{failed}").split())
    assert stack.scalar("SELECT actor FROM acts WHERE subject_id = :id", id=failed) == "ben"


def test_a_name_that_is_not_listed_gets_in_with_neither_password(stack: Running) -> None:
    for user, password in (("carl", ACTS), ("carl", LOOKS), ("ops", factories.SECRET)):
        with come_in(stack, user, password) as stranger:
            assert stranger.get("/ops").status_code == 401
