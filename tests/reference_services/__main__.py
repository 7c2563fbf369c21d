"""Start the reference services; see tests/reference_services/__init__.py."""

import argparse
import os
from pathlib import Path

import uvicorn

from tests.reference_services.server import Services

parser = argparse.ArgumentParser(
    prog="python -m tests.reference_services",
    epilog="To make it answer 401, 429 or a page, or not at all: POST /behave, see docs/services.md.",
)
parser.add_argument("--host", default="127.0.0.1")
parser.add_argument("--port", type=int, default=9000)
parser.add_argument("--delay", type=float, default=0.0, help="seconds that each publish takes")
parser.add_argument("--journal", type=Path, help="a file that keeps journal and effects over a restart")
parser.add_argument("--tame", type=int, metavar="SEED", help="have a publisher's bad moments: busy, late, answers lost")
options = parser.parse_args()
services = Services(os.environ.get("REDRAFT_SERVICE_SECRET", ""), options.delay, options.journal, options.tame)
print(f"publisher, renderer and webhooks at http://{options.host}:{options.port}", flush=True)
uvicorn.run(
    services, host=options.host, port=options.port, access_log=False, log_level="warning", backlog=2048,
    timeout_graceful_shutdown=1,
)  # fmt: skip
