"""Runs a command that dies with the process which started it, as another user where that is asked.

`command(argv)` puts this file before a command line. It runs as a script of its own (`python -I -S`, 10 ms, standard
library only), prepares the process and then becomes the command, so that pid, output and environment stay the child's.

On Linux the kernel does it (PR_SET_PDEATHSIG, see prctl(2)): the signal comes when the *thread* that started the child
ends, so start children from the main thread. Elsewhere a watcher beside the child waits for the end of a pipe whose
other end only the starter holds, then signals the child's whole process group.
"""

import argparse
import ctypes
import os
import select
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Final

PR_SET_PDEATHSIG: Final = 1  # <sys/prctl.h>
PR_SET_KEEPCAPS: Final = 8
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_RAISE: Final = 2
CLONE_NEWUSER: Final = 0x10000000  # <sched.h>
CAPABILITY_VERSION_3: Final = 0x20080522  # <linux/capability.h>
CAP_DAC_OVERRIDE: Final = 1

KERNEL_KILLS: Final = sys.platform == "linux"


def command(
    argv: Sequence[str],
    *,
    orphan_signal: signal.Signals = signal.SIGKILL,
    identity: str = "",
    lifeline: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> list[str]:
    """`argv`, made to get `orphan_signal` when the calling process dies, however it dies.

    `identity` is one of `binaries.identities()`; empty stays who we are. `lifeline` is the read end of a pipe
    (passed on with `pass_fds`) whose write end the caller keeps until it ends; needed where `KERNEL_KILLS` is false.
    `environment` is all that `argv` gets of one, instead of what this script got: which Python itself may need, where
    its libraries are found by it. It shows in the arguments until `argv` runs, so nothing secret may stand in it.
    """
    options = [f"--parent={os.getpid()}", f"--signal={int(orphan_signal)}"]
    if identity:
        options.append(f"--identity={identity}")
    if lifeline is not None:
        options.append(f"--lifeline={lifeline}")
    if environment is not None:
        options += ["--sealed", *(f"--set={name}={value}" for name, value in environment.items())]
    return [sys.executable, "-I", "-S", __file__, *options, "--", *argv]


def die_with_parent(orphan_signal: signal.Signals = signal.SIGKILL) -> None:
    """This process gets `orphan_signal` when its parent dies. Does nothing where the kernel cannot do it.

    Forked children do not inherit it: a process that forks a pool has to call it in each (Celery's prefork pool does).
    """
    if KERNEL_KILLS:
        _prctl(PR_SET_PDEATHSIG, int(orphan_signal))


def _check(result: int) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def _prctl(option: int, *values: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    padded = (*values, 0, 0, 0, 0)[:4]
    _check(libc.prctl(option, *(ctypes.c_ulong(value) for value in padded)))


def become(identity: str) -> None:
    """Take on an identity: `user:UID:GID`, `reading-user:UID:GID` or `namespace:UID`.

    `reading-user` keeps the one capability to enter folders that are closed to that user. `namespace` is a private
    user namespace in which our own files are still ours but our number is UID. Raises OSError where that is forbidden.
    """
    kind, *numbers = identity.split(":")
    if kind == "namespace":
        own_user, own_group = os.geteuid(), os.getegid()
        (inside,) = numbers
        libc = ctypes.CDLL(None, use_errno=True)
        _check(libc.unshare(CLONE_NEWUSER))
        for name, line in (
            ("setgroups", "deny"),
            ("uid_map", f"{inside} {own_user} 1"),
            ("gid_map", f"{inside} {own_group} 1"),
        ):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:  # noqa: PTH123 - 10 ms start: no pathlib
                file.write(line)
        return
    user, group = (int(number) for number in numbers)
    if kind == "reading-user":
        _prctl(PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setgid(group)
    os.setuid(user)
    if kind == "reading-user":
        bit = 1 << CAP_DAC_OVERRIDE
        header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
        sets = (ctypes.c_uint32 * 6)(
            bit, bit, bit, 0, 0, 0
        )  # effective, permitted, inheritable; then their upper halves
        _check(ctypes.CDLL(None, use_errno=True).capset(header, sets))
        _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE)


def _watch(lifeline: int, orphan_signal: int) -> None:
    """Fork a watcher that signals our process group when the lifeline ends; return in the process to be watched."""
    ours, theirs = os.pipe()
    watched = os.getpid()
    first = os.fork()
    if first:
        os.waitpid(first, 0)
        os.close(ours)
        os.close(lifeline)
        # Kept open across exec by the command and all that it forks: its end tells the watcher that all are gone.
        os.set_inheritable(theirs, True)  # noqa: FBT003 - the standard library's own signature
        return
    # Forked twice, so that the command never has to wait for a child that it did not start.
    if os.fork():
        os._exit(0)
    os.setsid()
    os.close(theirs)
    ready, _, _ = select.select([lifeline, ours], [], [])
    if ours not in ready:
        _signal_group(watched, orphan_signal)
        if not select.select([ours], [], [], 10)[0]:
            _signal_group(watched, signal.SIGKILL)
    os._exit(0)


def _signal_group(leader: int, number: int) -> None:
    try:
        os.killpg(leader, number)
    except ProcessLookupError:
        # No session of its own, or already gone.
        try:
            os.kill(leader, number)
        except ProcessLookupError:
            return


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--signal", type=int, required=True)
    parser.add_argument("--identity", default="")
    parser.add_argument("--lifeline", type=int)
    parser.add_argument("--sealed", action="store_true")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("argv", nargs="+")
    options = parser.parse_args()
    if options.identity:
        become(options.identity)
    # After the change of user, which the kernel answers by forgetting the death signal.
    if options.lifeline is not None:
        _watch(options.lifeline, options.signal)
    else:
        die_with_parent(signal.Signals(options.signal))
    if os.getppid() != options.parent:  # it died before we asked for the signal
        sys.exit(1)
    try:
        environment = dict(one.split("=", 1) for one in options.set) if options.sealed else os.environ
        os.execvpe(options.argv[0], options.argv, environment)  # noqa: S606 - becoming the command is what this file is for
    except OSError as error:
        sys.exit(f"cannot run {options.argv[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
