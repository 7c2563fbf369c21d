"""Hosts on this machine: a network namespace each, and a link from each to where this process runs.

This process has to be root in a network namespace of its own (`unshare --net`). Each other namespace lives as long as
the process that holds it, which dies with this one. So nothing is left behind, however a run ends.
"""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.processes import Process, Processes
from tests.waiting import eventually

LOSS = ("-m", "statistic", "--mode", "random", "--probability", "0.2")
"""Where the kernel has no netem, a fifth of the packets is dropped. Those come later, by TCP's own repeats."""


def run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stdout}{done.stderr}"


def enter() -> None:
    """Make loopback work here, and let hosts reach what listens on it."""
    links = subprocess.run(["ip", "-o", "link", "show", "up"], capture_output=True, text=True, check=True).stdout
    assert not links, f"not in a network namespace of its own: {links}"
    run("ip", "link", "set", "lo", "up")
    run("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1", "net.ipv4.conf.default.route_localnet=1")


class Host:
    """One host. It reaches `loopback` ports of this process under `here`, and is reached under `address`."""

    def __init__(self, processes: Processes, name: str, number: int) -> None:
        self.name = name
        self.here, self.address = f"198.18.{number}.1", f"198.18.{number}.2"
        self._link, self._processes = f"link{number}", processes
        holder = processes.start(["unshare", "--net", "sleep", "infinity"])
        own, its = Path("/proc/self/ns/net").readlink(), Path(f"/proc/{holder.pid}/ns/net")
        eventually(lambda: its.readlink() != own, within=10, because="the namespace is there")
        self._inside = ("nsenter", f"--net={its}")
        run("ip", "link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", str(holder.pid))
        run("ip", "addr", "add", f"{self.here}/30", "dev", self._link)
        run("ip", "link", "set", self._link, "up")
        for words in ("addr add {0}/30 dev eth0", "link set eth0 up", "link set lo up"):
            run(*self._inside, "ip", *words.format(self.address).split())

    def reaches(self, port: int) -> None:
        """What listens on this port of loopback here is reached from there too."""
        rule = f"-p tcp -d {self.here} --dport {port} -j DNAT --to-destination 127.0.0.1:{port}"
        run("iptables", "-t", "nat", "-A", "PREROUTING", *rule.split())

    def start(self, argv: Sequence[str], environment: Mapping[str, str]) -> Process:
        """Start a command there. Where `environment` says 127.0.0.1 it means this process's own."""
        there = {name: value.replace("127.0.0.1", self.here) for name, value in environment.items()}
        return self._processes.start([*self._inside, *argv], **there)

    def mute(self) -> None:
        """What it sends is lost."""
        run("iptables", "-A", "INPUT", "-i", self._link, "-j", "DROP")

    def deafen(self) -> None:
        """What is sent to it is lost."""
        run(*self._inside, "iptables", "-A", "INPUT", "-i", "eth0", "-j", "DROP")

    def cut(self) -> None:
        self.mute()
        self.deafen()

    def delay(self) -> None:
        """Its packets are late, each by another time, both ways."""
        for device, inside in ((self._link, ()), ("eth0", self._inside)):
            netem = [*inside, "tc", "qdisc", "replace", "dev", device, "root", "netem", "delay", "150ms", "100ms"]
            if subprocess.run(netem, capture_output=True, check=False).returncode != 0:
                run(*inside, "iptables", "-A", "INPUT", "-i", device, *LOSS, "-j", "DROP")

    def heal(self) -> None:
        """All links of this process carry everything again, this one both ways."""
        for device, inside in ((self._link, ()), ("eth0", self._inside)):
            run(*inside, "iptables", "-F", "INPUT")
            subprocess.run([*inside, "tc", "qdisc", "del", "dev", device, "root"], capture_output=True, check=False)
