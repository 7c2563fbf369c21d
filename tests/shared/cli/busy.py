"""A task that holds its process, for a worker started with `--include=tests.shared.cli.busy`."""

import time

from worker.runtime.app import app


@app.task(name="tests.busy")
def busy():
    print("I am busy", flush=True)
    time.sleep(600)
