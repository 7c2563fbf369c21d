"""A supervisor of shell scripts, for tests: `python -m tests.shared.local.keeper '[{"name": "a", "script":
"..."}]'`.
"""

import asyncio
import json
import os
import sys

from shared.local import die_with_parent, supervisor
from shared.local.output import Output

if os.environ.get("KERNEL_KILLS") == "no":
    die_with_parent.KERNEL_KILLS = False  # type: ignore[misc]

children = [
    supervisor.Child(
        name=one["name"],
        argv=one.get("argv") or ["/bin/sh", "-c", one["script"]],
        grace=one.get("grace", 5),
        rank=one.get("rank", 0),
    )
    for one in json.loads(sys.argv[1])
]


async def begin(keeper: supervisor.Supervisor) -> None:
    keeper.start(*children)


asyncio.run(supervisor.run(begin, Output()))
