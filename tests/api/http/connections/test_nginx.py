"""Behind a real nginx that forwards offers to upgrade and keeps its connections: each client gets its own answers."""

import asyncio
import json
import random
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests import factories
from tests.api.http.connections.peers import ONE, OTHER, Answer, Tenant, exchange
from tests.ports import free_port
from tests.processes import Processes
from tests.stack import Running
from tests.waiting import eventually

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
CLIENTS, REQUESTS = 12, 60  # of each workspace, of each client

# The usual lines for websockets, kept connections, and bodies that are passed on as they come.
CONFIGURATION = """
worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    upstream redraft {{ server 127.0.0.1:{api}; keepalive 4; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://redraft;
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
        }}
    }}
}}
"""

pytestmark = pytest.mark.skipif(NGINX is None, reason="no nginx here; Debian's is in nginx-light")


@pytest.fixture
def proxy(stack: Running, processes: Processes, tmp_path: Path) -> Iterator[int]:
    assert stack.api is not None
    port = free_port()
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(CONFIGURATION.format(folder=tmp_path, api=stack.api.port, port=port))
    tmp_path.chmod(0o777)
    nginx = processes.start([str(NGINX), "-p", str(tmp_path), "-c", str(configuration)])

    def up() -> bool:
        assert nginx.running, nginx.output()
        with suppress(httpx.TransportError):
            return stack.http.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
        return False

    eventually(up, within=30, because="nginx passes requests on")
    yield port
    nginx.stop()


def test_no_answer_reaches_another_client(stack: Running, proxy: int) -> None:
    """Half of all requests offer an upgrade, and carry a whole other request of their own workspace as their body."""
    theirs = stack.post(workspace_id=OTHER.workspace, account_id=factories.TIKTOK + OTHER.suffix)
    posts = {ONE: stack.post(), OTHER: theirs}
    crossed = asyncio.run(crowd(proxy, posts))
    assert not crossed, f"{len(crossed)} of {2 * CLIENTS * REQUESTS}: {crossed[:3]}"


async def crowd(port: int, posts: dict[Tenant, str]) -> list[str]:
    clients = [client(port, tenant, post, seed) for tenant, post in posts.items() for seed in range(CLIENTS)]
    return [one for found in await asyncio.gather(*clients) for one in found]


async def client(port: int, tenant: Tenant, post: str, seed: int) -> list[str]:
    """What was wrong with the answers of one client, on one connection as long as it lasts."""
    rng = random.Random(f"{tenant.workspace} {seed}")
    wrong = []
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number in range(REQUESTS):
        name = f"{tenant.workspace}-{seed}-{number}"
        kind = rng.choice(["accounts", "patch", "hidden", "hidden"])
        segments = {
            "accounts": [tenant.head("GET", "/v1/accounts", f"X-Request-Id: {name}") + b"\r\n"],
            "patch": patch(tenant, post, name, json.dumps({"caption": name}).encode()),
            "hidden": patch(
                tenant, post, name, tenant.head("GET", "/v1/accounts", f"X-Request-Id: {name}-hidden") + b"\r\n"
            ),
        }[kind]
        try:
            answer = await exchange(reader, writer, segments, pause=rng.choice([0, 0.001, 0.01]))
        except (asyncio.IncompleteReadError, ConnectionError) as gone:
            wrong.append(f"{name} ({kind}): {gone!r}")
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            continue
        if not right(answer, tenant, name, kind):
            wrong.append(f"{name} ({kind}): {answer}")
        if answer.headers.get("connection") == "close":
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    return wrong


def patch(tenant: Tenant, post: str, name: str, body: bytes) -> list[bytes]:
    offer = ("Connection: Upgrade", "Upgrade: websocket", "Content-Type: application/json")
    head = tenant.head("PATCH", f"/v1/posts/{post}", *offer, f"X-Request-Id: {name}", f"Content-Length: {len(body)}")
    return [head + b"\r\n", body[:9], body[9:]]


def right(answer: Answer, tenant: Tenant, name: str, kind: str) -> bool:
    if answer.headers.get("x-request-id") != name:
        return False
    if kind == "accounts":
        return answer.status == 200 and {one["accountId"] for one in answer.json["data"]} == tenant.accounts
    if kind == "patch":
        return answer.status in (200, 202)
    return answer.status == 400
