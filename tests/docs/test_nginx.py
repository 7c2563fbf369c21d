"""The proxy that docs/deployment.md shows, as a real nginx in front of a real API."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from shared.local.postgres import PostgreSQL
from shared.local.valkey import Valkey
from tests import factories
from tests.conftest import TEMPLATE, empty_database
from tests.docs.pages import blocks
from tests.loopback import LOOPBACK
from tests.ports import free_port
from tests.stack import Running, running
from tests.waiting import eventually

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
FRAME = """
worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    {site}
}}
"""

pytestmark = pytest.mark.skipif(NGINX is None, reason="no nginx here; Debian's is in nginx-light")


@contextmanager
def nginx_before(stack: Running, folder: Path, info: str) -> Iterator[httpx.Client]:
    """A client of a real nginx with the block of docs/deployment.md that has these words behind its backticks."""
    assert stack.api is not None
    (block,) = [block for block in blocks("docs/deployment.md") if block.info == info]
    port = free_port()
    site, listens = re.subn(r"listen 80;", f"listen 127.0.0.1:{port};", block.text)
    site, servers = re.subn(r"127\.0\.0\.1:8000", f"127.0.0.1:{stack.api.port}", site)
    assert (listens, servers) == (1, 1)
    configuration = folder / "nginx.conf"
    configuration.write_text(FRAME.format(folder=folder, site=site))
    folder.chmod(0o777)
    nginx = stack.processes.start([str(NGINX), "-p", str(folder), "-c", str(configuration)])
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", **LOOPBACK, timeout=40) as client:

        def up() -> bool:
            assert nginx.running, nginx.output()
            with suppress(httpx.TransportError):
                return client.get("/").status_code < 500
            return False

        eventually(up, within=30, because="nginx answers")
        yield client
    nginx.stop()


def test_edits_and_operators_pass_and_metrics_do_not(postgres: PostgreSQL, valkey: Valkey, tmp_path: Path) -> None:
    url, cache = postgres.create_database("docs_nginx", template=TEMPLATE), empty_database(valkey)
    with (
        running(url, cache, "edits", REDRAFT_OPS_PASSWORD="right one") as stack,
        nginx_before(stack, tmp_path, "nginx") as proxy,
    ):
        edited = proxy.patch(
            f"/v1/posts/{stack.post()}",
            json={"caption": "through the proxy"},
            headers={"Authorization": f"Bearer {factories.SECRET}"},
        )
        assert (edited.status_code, edited.json()["caption"]) == (200, "through the proxy")
        assert proxy.get("/metrics").status_code == 404
        assert stack.http.get("/metrics").status_code == 200
        assert proxy.get("/ops", auth=("ops", "right one")).status_code == 200


def test_under_a_prefix_what_an_answer_points_at_is_found(postgres: PostgreSQL, valkey: Valkey, tmp_path: Path) -> None:
    url, cache = postgres.create_database("docs_prefix", template=TEMPLATE), empty_database(valkey)
    given = {"REDRAFT_OPS_PASSWORD": "right one", "REDRAFT_ROOT_PATH": "/redraft", "REDRAFT_LOG_FORMAT": "json"}
    given |= {"REDRAFT_TRUSTED_PROXIES": "127.0.0.1"}
    with running(url, cache, **given) as stack, nginx_before(stack, tmp_path, "nginx under a prefix") as proxy:
        key = {"Authorization": f"Bearer {factories.SECRET}"}
        path = f"/redraft/v1/posts/{stack.post()}"
        queued = proxy.patch(path, json={"caption": "x"}, headers=key | {"Prefer": "respond-async"})
        assert queued.status_code == 202
        assert proxy.get(queued.headers["location"], headers=key).json()["editId"] == queued.json()["editId"]
        page = proxy.get("/redraft/ops", auth=("ops", "right one"))
        for link in re.findall(r'(?:href|src)="(/[^"#]+)"', page.text):
            assert proxy.get(link.replace("&amp;", "&"), auth=("ops", "right one")).status_code == 200, link
        assert proxy.get("/redraft/metrics").status_code == 404
        # What the client says of itself stands before what nginx knows.
        proxy.get("/redraft/ops", auth=("ops", "wrong"), headers={"X-Forwarded-For": "203.0.113.9"})
        assert stack.api is not None
        eventually(lambda: '"client":"203.0.113.9"' in stack.api.output(), within=10)  # type: ignore[union-attr]
