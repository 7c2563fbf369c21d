"""A proxy that strips a prefix, as nginx does with `location /redraft/ { proxy_pass http://…/; }`. In a thread."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx

from tests.loopback import LOOPBACK

PREFIX = "/redraft"
_OWN_TO_A_CONNECTION = {"connection", "keep-alive", "transfer-encoding"}


@contextmanager
def stripping(backend: str) -> Iterator[str]:
    """The URL under which `backend` is found. What is asked for outside of the prefix is 404."""

    class Handler(BaseHTTPRequestHandler):
        def pass_on(self) -> None:
            if not self.path.startswith(f"{PREFIX}/"):
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {**self.headers, "X-Forwarded-For": self.headers.get("X-Forwarded-For", "203.0.113.9")}
            with httpx.Client(**LOOPBACK) as client:
                path = self.path.removeprefix(PREFIX)
                answer = client.request(self.command, backend + path, headers=headers, content=body)
            self.send_response(answer.status_code)
            for name, value in answer.headers.multi_items():
                if name not in _OWN_TO_A_CONNECTION:
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = do_PATCH = pass_on  # noqa: N815 - as http.server calls them

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}{PREFIX}"
        finally:
            server.shutdown()
