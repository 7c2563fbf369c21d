"""The proxy that docs/deployment.md shows, as a real nginx in front of a real API."""

import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from shared.local.datadir import free_port
from shared.local.postgres import PostgreSQL
from shared.local.valkey import Valkey
from tests import factories
from tests.conftest import LOGICAL_DATABASES, TEMPLATE
from tests.docs.pages import blocks
from tests.loopback import LOOPBACK
from tests.processes import Processes
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


@pytest.fixture
def stack(postgres: PostgreSQL, valkey: Valkey) -> Iterator[Running]:
    url = postgres.create_database("docs_nginx", template=TEMPLATE)
    with running(url, valkey.url(LOGICAL_DATABASES - 90), "edits", REDRAFT_OPS_PASSWORD="right one") as stack:
        yield stack


@pytest.fixture
def proxy(stack: Running, processes: Processes, tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of the proxy."""
    assert stack.api is not None
    (block,) = [block for block in blocks("docs/deployment.md") if block.info == "nginx"]
    port = free_port()
    site, listens = re.subn(r"listen 80;", f"listen 127.0.0.1:{port};", block.text)
    site, servers = re.subn(r"127\.0\.0\.1:8000", f"127.0.0.1:{stack.api.port}", site)
    assert (listens, servers) == (1, 1)
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(FRAME.format(folder=tmp_path, site=site))
    tmp_path.chmod(0o777)
    nginx = processes.start([str(NGINX), "-p", str(tmp_path), "-c", str(configuration)])
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", **LOOPBACK, timeout=40) as client:

        def up() -> bool:
            assert nginx.running, nginx.output()
            with suppress(httpx.TransportError):
                return client.get("/healthz").status_code == 200
            return False

        eventually(up, within=30, because="nginx passes requests on")
        yield client
    nginx.stop()


def test_edits_and_operators_pass_and_metrics_do_not(stack: Running, proxy: httpx.Client) -> None:
    edited = proxy.patch(
        f"/v1/posts/{stack.post()}",
        json={"caption": "through the proxy"},
        headers={"Authorization": f"Bearer {factories.SECRET}"},
    )
    assert (edited.status_code, edited.json()["caption"]) == (200, "through the proxy")
    assert proxy.get("/metrics").status_code == 404
    assert stack.http.get("/metrics").status_code == 200
    assert proxy.get("/ops", auth=("ops", "right one")).status_code == 200
