"""All roles reach PostgreSQL and Redis by TLS, with the URLs that docs/deployment.md shows, and trust no other."""

from collections.abc import Iterator
from pathlib import Path

import certifi
import httpx
import pytest
import redis
from sqlalchemy.exc import OperationalError

from shared.broker import queue
from shared.local import commands
from shared.local.postgres import PostgreSQL
from shared.local.valkey import Valkey
from shared.settings import settings
from shared.store import db
from tests import factories
from tests.conftest import TEMPLATE, empty_database
from tests.deployment import tls
from tests.loopback import LOOPBACK
from tests.stack import Running, running
from tests.waiting import eventually

DATABASE = "?sslmode=verify-full&sslrootcert="
REDIS = "?ssl_cert_reqs=required&ssl_ca_certs="


@pytest.fixture(scope="module")
def servers(
    postgres: PostgreSQL, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str, Path]]:
    """URLs that speak TLS alone, and the certificate of both."""
    folder = tmp_path_factory.mktemp("tls")
    url = postgres.create_database("by_tls", template=TEMPLATE)
    with tls.before(url, folder) as database, tls.before(empty_database(valkey), folder) as cache:
        yield database, cache.replace("redis://", "rediss://"), folder / "certificate.pem"
    postgres.drop_database("by_tls")


@pytest.fixture(scope="module")
def stack(servers: tuple[str, str, Path]) -> Iterator[Running]:
    database, cache, certificate = servers
    urls = f"{database}{DATABASE}{certificate}", f"{cache}{REDIS}{certificate}"
    with running(*urls, "edits", "publish", "ops") as made:
        made.start_beat()
        yield made


def test_an_edit_is_applied_and_a_post_goes_out(stack: Running) -> None:
    post = stack.post(scheduled_time=factories.soon(0))
    edited = stack.patch(stack.post(), {"caption": "by TLS"})
    assert (edited.status_code, edited.json()["caption"]) == (200, "by TLS")
    eventually(lambda: stack.row("posts", post).status == "posted", within=30, because="beat, ops and publish work")


def test_flower_sees_the_queues(stack: Running) -> None:
    given = commands.flower_environment("flower", "right one")
    flower = stack.processes.start("flower", **stack.environment, **given)

    def shown() -> bool:
        assert flower.running, flower.output()
        try:
            page = httpx.get(f"{flower.url}/api/workers", auth=("flower", "right one"), **LOOPBACK, timeout=10)
        except httpx.TransportError:
            return False
        return page.status_code == 200 and any(name.startswith("edits@") for name in page.json())

    eventually(shown, within=30, because="Flower hears the workers")


def test_a_certificate_of_another_authority_is_refused(
    servers: tuple[str, str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    database, cache, _ = servers
    monkeypatch.setenv("REDRAFT_REDIS_URL", f"{cache}{REDIS}{certifi.where()}")
    engine = db.make_engine(f"{database}{DATABASE}{certifi.where()}", settings(), pool_size=1)
    with pytest.raises(OperationalError, match="certificate verify failed"), db.transaction(engine):
        pass
    factories.forget_caches()
    with pytest.raises(redis.ConnectionError, match="CERTIFICATE"):
        queue.depths()
    factories.forget_caches()


def test_a_url_that_only_says_rediss_checks_certificates_too(
    servers: tuple[str, str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery's broker takes such a URL for one without TLS, unless it is told how to check."""
    monkeypatch.setenv("REDRAFT_REDIS_URL", servers[1])
    factories.forget_caches()
    with queue.sender().connection_for_write() as connection, pytest.raises(Exception, match="CERTIFICATE"):
        connection.ensure_connection(max_retries=1, timeout=5)
    factories.forget_caches()
