"""Two hosts on this machine, for programs that need a link between ranks: network namespaces with a host name and a core of their own, joined by
a pair of virtual devices whose two ends let through so many Mbit/s each way (tc tbf). Needs root, iproute2 and mpirun.
"""

import contextlib
import os
import stat
import subprocess

CORES = (0, 1)


def sh(*words):
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)}: {done.stderr.strip() or done.returncode} (needs root and iproute2)")


@contextlib.contextmanager
def two_hosts(directory, mbit):
    """Yields what makes a command of one rank a command of two, one a host; takes everything down at the end."""
    hosts = [f"temper{os.getpid()}{letter}" for letter in "ab"]
    made = []
    try:
        for host in hosts:
            sh("ip", "netns", "add", host)
            made.append(host)
            sh("ip", "-n", host, "link", "set", "lo", "up")
        sh("ip", "link", "add", "eth0", "netns", hosts[0], "type", "veth", "peer", "name", "eth0", "netns", hosts[1])
        for number, host in enumerate(hosts, 1):
            sh("ip", "-n", host, "address", "add", f"10.99.0.{number}/24", "dev", "eth0")
            sh("ip", "-n", host, "link", "set", "eth0", "up")
            sh("tc", "-n", host, "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", f"{mbit}mbit", "burst", "256kb", "latency", "20ms")
        agent = directory / "agent.sh"
        agent.write_text('#!/bin/sh\nhost=$1; shift\nexec ip netns exec "$host" unshare --uts sh -c "hostname $host; $*"\n')
        agent.chmod(agent.stat().st_mode | stat.S_IXUSR)
        yield lambda words: launched(hosts, agent, words)
    finally:
        for host in made:  # the devices go with them
            subprocess.run(["ip", "netns", "del", host], capture_output=True)


def launched(hosts, agent, words):
    # mpirun itself runs on the first host, under its name.
    inside = ["ip", "netns", "exec", hosts[0], "unshare", "--uts", "sh", "-c", 'hostname "$0"; exec "$@"', hosts[0]]
    link = ["--mca", "btl", "self,tcp", "--mca", "btl_tcp_if_include", "eth0", "--mca", "oob_tcp_if_include", "eth0"]
    ranks = [[":", "--host", host, "-n", "1", "-x", f"TEMPER_CORES={core}", *words] for host, core in zip(hosts, CORES)]
    return [*inside, "mpirun", "--bind-to", "none", "--mca", "plm_rsh_agent", agent, *link, *ranks[0][1:], *ranks[1]]
