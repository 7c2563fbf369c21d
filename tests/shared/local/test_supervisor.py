"""The supervisor with small stand-ins: order, restarts, output, and nothing left behind."""

import json
import os
import signal
import sys
import uuid

import pytest

from tests.processes import marked
from tests.waiting import eventually

# Lives until SIGTERM and says so, at both ends.
POLITE = 'trap "echo bye; exit 0" TERM; echo "pid $$"; while :; do sleep 0.02; done'
STUBBORN = 'trap "" TERM; echo "pid $$"; while :; do sleep 0.02; done'
# A pool: a child that waits for one of its own, which does not hear of its parent's death by itself.
POOL = "sleep 600 & echo pid $!; wait"


@pytest.fixture
def mark():
    """In the environment of all that a test starts; what carries it after the test was left behind."""
    return f"mark-{uuid.uuid4()}"


@pytest.fixture
def keep(processes, mark):
    def start(*children, **environment):
        return processes.start(
            [sys.executable, "-m", "tests.shared.local.keeper", json.dumps(children)], TEST_MARK=mark, **environment
        )

    return start


def pids(keeper, name):
    """The pids that the child of that name has announced, in order."""
    lines = [line.split(" | ", 1) for line in keeper.output().splitlines() if " | pid " in line]
    return [int(text.split()[1]) for who, text in lines if who.strip() == name]


def test_children_stop_by_rank_the_highest_first(keep, mark):
    keeper = keep(
        {"name": "api", "script": POLITE, "rank": 4},
        {"name": "database", "script": POLITE, "rank": 0},
        {"name": "worker", "script": POLITE, "rank": 3},
    )
    eventually(lambda: all(pids(keeper, name) for name in ("api", "database", "worker")), within=30)
    assert keeper.stop(within=5) == 0
    byes = [line.split()[0] for line in keeper.output().splitlines() if line.endswith("| bye")]
    assert byes == ["api", "worker", "database"]
    assert marked(mark) == []


def test_a_child_that_is_killed_is_started_again(keep):
    keeper = keep({"name": "worker", "script": POLITE})
    (first,) = eventually(lambda: pids(keeper, "worker"), within=30)
    os.kill(first, signal.SIGKILL)
    eventually(lambda: len(pids(keeper, "worker")) == 2, within=30)
    assert "worker    | ended with SIGKILL; starting it again in 0.2 s" in keeper.output()


def test_a_child_that_keeps_dying_is_started_ever_more_slowly(keep):
    keeper = keep({"name": "broken", "script": "exit 3"})
    eventually(lambda: keeper.output().count("ended with exit code 3") >= 3, within=30)
    assert [line.split()[-2] for line in keeper.output().splitlines()[:3]] == ["0.2", "0.4", "0.8"]


@pytest.mark.parametrize("kernel_kills", ["yes", "no"])
def test_a_killed_supervisor_takes_its_children_with_it(keep, mark, kernel_kills):
    keeper = keep({"name": "a", "script": STUBBORN}, {"name": "b", "script": POLITE}, KERNEL_KILLS=kernel_kills)
    eventually(lambda: pids(keeper, "a") and pids(keeper, "b"), within=30)
    keeper.kill()
    eventually(lambda: marked(mark) == [], within=30, because="nothing is left")


def test_without_the_kernels_help_the_watcher_takes_the_pool_too_and_ends_with_its_child(keep, mark):
    keeper = keep({"name": "pool", "script": POOL}, KERNEL_KILLS="no")
    eventually(lambda: pids(keeper, "pool"), within=30)
    keeper.kill()
    eventually(lambda: marked(mark) == [], within=30, because="nothing is left")
    again = keep({"name": "quick", "script": POLITE}, KERNEL_KILLS="no")
    eventually(lambda: pids(again, "quick"), within=30)
    assert again.stop(within=5) == 0
    eventually(lambda: marked(mark) == [], within=30, because="no watcher is left")


def test_a_pool_does_not_outlive_its_killed_child(keep):
    keeper = keep({"name": "pool", "argv": ["/bin/sh", "-c", f"echo parent $$; {POOL}"]})
    (member,) = eventually(lambda: pids(keeper, "pool"), within=30)
    parent = int(keeper.output().split("parent ")[1].split()[0])
    os.kill(parent, signal.SIGKILL)

    def gone():
        try:
            with open(f"/proc/{member}/stat", encoding="ascii") as file:  # noqa: PTH123 - a pseudo file
                return file.read().split()[2] == "Z"
        except FileNotFoundError:
            return True

    eventually(gone, within=30)


def test_a_forked_process_that_asks_for_it_dies_with_its_parent(processes, mark):
    script = (
        "import os, time; from shared.local.die_with_parent import die_with_parent\n"
        "if os.fork() == 0: die_with_parent(); print('set', flush=True)\n"
        "time.sleep(600)"
    )
    parent = processes.start([sys.executable, "-c", script], TEST_MARK=mark)
    parent.says("set", within=30)
    parent.kill()
    eventually(lambda: marked(mark) == [], within=30)


def test_the_stop_signal_reaches_the_child_alone(keep):
    """A worker's pool finishes what it holds; a signal to the whole group would kill it at once."""
    script = 'trap "" INT; trap "wait; exit 0" TERM; (sleep 0.3; echo finished) & echo "pid $$"; wait'
    keeper = keep({"name": "worker", "script": script})
    eventually(lambda: pids(keeper, "worker"), within=30)
    assert keeper.stop(within=5) == 0
    assert "worker    | finished" in keeper.output()


def test_a_stubborn_child_is_killed_after_its_grace(keep, mark):
    keeper = keep({"name": "stubborn", "script": STUBBORN, "grace": 0.3})
    eventually(lambda: pids(keeper, "stubborn"), within=30)
    # It would never end by itself.
    assert keeper.stop(within=30) == 0
    assert "stubborn  | still busy after 0 s; killed" in keeper.output()
    assert marked(mark) == []


def test_a_second_signal_kills(keep, mark):
    keeper = keep({"name": "stubborn", "script": STUBBORN, "grace": 60})
    eventually(lambda: pids(keeper, "stubborn"), within=30)
    keeper.signal(signal.SIGINT)
    keeper.says("SIGINT: stopping", within=30)
    keeper.signal(signal.SIGINT)
    # Its grace is a minute.
    assert keeper.wait(within=20) == 0
    assert marked(mark) == []


def test_no_output_is_lost_not_even_a_last_line_without_an_end(keep):
    keeper = keep({"name": "talker", "script": "seq 1 20000; printf unfinished; exec sleep 600"})
    eventually(lambda: "| 20000\n" in keeper.output(), within=30)
    keeper.stop(within=5)
    said = [line.split(" | ", 1)[1] for line in keeper.output().splitlines() if line.startswith("talker")]
    assert said == [*map(str, range(1, 20001)), "unfinished"]
