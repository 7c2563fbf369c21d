"""What is imported before a test's role has its environment reads no setting."""

import json
import subprocess
import sys

from tests.preloaded import READ_SETTINGS, ROOT

FOUND = """
import importlib, json
from shared import settings
from tests import preloaded

class Read(Exception):
    pass

def read():
    raise Read

settings.settings = read
found = []
for name in preloaded.ours():
    try:
        importlib.import_module(name)
    except Read:
        found.append(name)
print(json.dumps(found))
"""


def test_the_modules_that_read_settings_when_they_are_imported_are_known() -> None:
    answer = subprocess.run([sys.executable, "-c", FOUND], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(json.loads(answer.stdout.splitlines()[-1])) == READ_SETTINGS
