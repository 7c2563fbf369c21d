"""The exit code of an API process that has ended cleanly at SIGTERM: 0.

uvicorn (0.54) sends itself the signal once more when all is closed, under the handler that it found at its start. The
exit code would be that of a process that was killed: 143 in a container, which reads as a failure.
"""

import signal
import sys
import threading


def zero_at_sigterm() -> None:
    """Let SIGTERM end this process with 0. Called before uvicorn sets its own handler, which closes all first."""
    in_main = threading.current_thread() is threading.main_thread()
    if in_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
