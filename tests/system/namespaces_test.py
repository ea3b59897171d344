"""Two hosts on this machine, each a network namespace with a host name and mounts of its own: what a run does across them, when one of
them is lost, and when they do not see the same files.

Needs root and iproute2, and a kernel that allows namespaces; else it is skipped (exit code 77, which ctest shows). TEMPER_LONG=1 runs all.
"""

import contextlib
import json
import os
import shutil
import subprocess
import time
import unittest
import unittest.mock

from harness import ENVIRONMENT, KILL, LONG, PROGRAM, SOURCE, SystemTest, run_tests_unless, wait_for_step

STEPS = 30
NODES = ("node1", "node2")
LOST_HOST = 205  # mpirun's exit code when it has lost a host: ORTE_ERR_COMM_FAILURE
SECONDS = 5  # for the others to end when a host dies
KEEPALIVE = 10 + 4 * 5  # launch/run.sh: seconds until mpirun knows that a silent host is lost
MARGIN = 15  # on top, on a busy machine


class Hosts:
    """Namespaces joined by one link; `agent` starts a command on one of them, as ssh does. `remove` leaves no process."""

    def __init__(self, directory):
        self.directory = directory
        self.agent = directory / "agent"
        self.namespaces = {node: f"temper-{os.getpid()}-{node}" for node in NODES}
        (directory / "hosts").write_text("127.0.0.1 localhost\n" + "".join(f"10.77.0.{i} {node}\n" for i, node in enumerate(NODES, 1)))
        # What blind() hides lies under an empty file system there. mpirun gives host and words of a command line.
        self.agent.write_text(
            f"""#!/bin/sh
node=$1
shift
exec ip netns exec temper-{os.getpid()}-$node unshare --uts --mount sh -c '
  hostname "$0"
  mount --bind {directory}/hosts /etc/hosts
  while read -r hidden; do mount -t tmpfs none "$hidden"; done < {directory}/hidden.$0
  eval "exec $*"' "$node" "$@"
"""
        )
        self.agent.chmod(0o755)
        first, second = self.namespaces.values()
        try:
            for node, namespace in self.namespaces.items():
                (directory / f"hidden.{node}").touch()
                ip("netns", "add", namespace)
            ip("link", "add", "eth0", "netns", first, "type", "veth", "peer", "name", "eth0", "netns", second)
            for i, namespace in enumerate(self.namespaces.values(), 1):
                ip("-n", namespace, "addr", "add", f"10.77.0.{i}/24", "dev", "eth0")
                ip("-n", namespace, "link", "set", "lo", "up")
                ip("-n", namespace, "link", "set", "eth0", "up")
        except BaseException:
            self.remove()
            raise

    def command(self, *words):
        """`words` are run by mpirun, one rank a host; mpirun itself is on node1."""
        return [str(self.agent), "node1", *self.mpirun(), *words]

    def mpirun(self):
        return ["mpirun", "-n", "2", "-H", ",".join(NODES), "--mca", "plm_rsh_agent", str(self.agent), "--mca", "btl", "self,tcp",
                "--mca", "btl_tcp_if_include", "eth0", "--mca", "oob_tcp_if_include", "eth0"]  # fmt: skip

    def blind(self, node, path):
        """`node` sees nothing of what the others have at `path`."""
        (self.directory / f"hidden.{node}").write_text(f"{path}\n")

    def processes(self, node):
        return [int(process) for process in ip("netns", "pids", self.namespaces[node]).split()]

    def kill(self, node):
        for process in self.processes(node):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, KILL)

    def set_link(self, state):
        ip("-n", self.namespaces["node2"], "link", "set", "eth0", state)

    def remove(self):
        for node, namespace in self.namespaces.items():
            with contextlib.suppress(subprocess.CalledProcessError):
                self.kill(node)
                ip("netns", "del", namespace)


def ip(*arguments):
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


def reason_to_skip():
    missing = [name for name in ("ip", "unshare", "mpirun") if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not found: apt-get install iproute2 util-linux openmpi-bin"
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    name = f"temper-{os.getpid()}-probe"
    try:
        ip("netns", "add", name)
        subprocess.run(["ip", "netns", "exec", name, "unshare", "--uts", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"],
                       check=True, capture_output=True, text=True)  # fmt: skip
    except subprocess.CalledProcessError as error:
        return f"namespaces are not allowed here: {error.stderr.strip()}"
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return None


class TwoHosts(SystemTest):
    def setUp(self):
        super().setUp()
        self.hosts = Hosts(self.directory)
        self.addCleanup(self.hosts.remove)

    def recipe(self, steps=STEPS):
        return self.write_recipe(train={"steps": steps, "threads": 1}, checkpoint={"every": 5}, eval={"every": 10})

    def run_on_hosts(self, *arguments, directory="", timeout=120):
        return subprocess.run(self.hosts.command(PROGRAM, *arguments), cwd=self.directory / directory, env=ENVIRONMENT, timeout=timeout,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True)  # fmt: skip

    def start_on_hosts(self, command):
        return subprocess.Popen(command, cwd=self.directory, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, start_new_session=True)  # fmt: skip

    def whole(self):
        """The run on one host that nothing happens to."""
        self.assert_done(self.run_temper("train", self.recipe(), "run.name=whole", ranks=2))
        return self.numbers("runs/whole"), self.weights("runs/whole")

    def assert_same(self, whole):
        self.assertEqual(self.numbers(), whole[0])
        self.assertEqual(self.weights(), whole[1])

    def goes_on(self, whole):
        result = self.run_on_hosts("train", self.recipe())
        self.assert_done(result)
        self.assertIn("resuming from", result.stdout)
        self.assert_same(whole)

    def none_left(self, seconds):
        end = time.monotonic() + seconds
        while any(self.hosts.processes(node) for node in NODES):
            self.assertLess(time.monotonic(), end, {node: self.hosts.processes(node) for node in NODES})
            time.sleep(0.05)

    def test_two_hosts_give_the_bits_of_one_and_lose_nothing_when_one_dies(self):
        whole = self.whole()
        self.assert_done(self.run_on_hosts("train", self.recipe()))
        ranks = json.loads((self.directory / "runs/test/environment.json").read_text())
        self.assertIn('"size": 2', json.dumps(ranks))
        self.assert_same(whole)
        for node in NODES if LONG else NODES[1:]:
            with self.subTest(killed=node):
                shutil.rmtree(self.directory / "runs/test")
                process = self.start_on_hosts(self.hosts.command(PROGRAM, "train", self.recipe()))
                wait_for_step(self, 12, process=process)
                start = time.monotonic()
                self.hosts.kill(node)
                _, errors = process.communicate(timeout=60)
                self.none_left(start + SECONDS - time.monotonic())
                if node == "node2":  # mpirun is on the other
                    self.assertEqual(process.returncode, LOST_HOST, errors)
                    self.assertRegex(errors, r"lost communication with a remote daemon[^$]* on node node2\n")
                self.goes_on(whole)

    @unittest.skipUnless(LONG, "takes long: TEMPER_LONG=1 runs it")
    def test_a_lost_link_ends_all_and_loses_nothing(self):
        whole = self.whole()
        launcher = [str(self.hosts.agent), "node1", str(SOURCE / "launch/run.sh"), *self.hosts.mpirun()]
        process = self.start_on_hosts([*launcher, PROGRAM, "train", self.recipe(), "parallel.timeout=600"])
        wait_for_step(self, 12, process=process)
        self.hosts.set_link("down")
        _, errors = process.communicate(timeout=KEEPALIVE + MARGIN)
        self.assertEqual(process.returncode, LOST_HOST, errors)
        self.assertRegex(errors, r"lost communication with a remote daemon[^$]* on node node2\n")
        self.none_left(MARGIN)  # the other host has noticed too
        self.hosts.set_link("up")
        self.goes_on(whole)

    @unittest.skipUnless(LONG, "takes long: TEMPER_LONG=1 runs it")
    def test_a_lost_link_is_a_time_out_that_names_rank_and_host(self):
        process = self.start_on_hosts(self.hosts.command(PROGRAM, "train", self.recipe(steps=4000), "parallel.timeout=3"))
        wait_for_step(self, 12, process=process)
        self.hosts.set_link("down")
        end = time.monotonic() + 3 + MARGIN
        said = process.stderr.readline()
        self.assertLess(time.monotonic(), end)
        self.assertRegex(said, r"rank 0 on node1: all_reduce \d+ in group 'world' waited 3 s \(parallel\.timeout\); "
                               r"no answer from rank 1 on node2: lost, stuck or doing something else; step \d+")  # fmt: skip
        # mpirun waits for the lost host as long as TCP does.
        for node in NODES:
            self.hosts.kill(node)
        process.communicate()

    @unittest.skipUnless(LONG, "takes long: TEMPER_LONG=1 runs it")
    def test_a_host_that_does_not_see_a_directory_is_named(self):
        for hidden, seen in (("cache", "cache"), ("runs", "runs/test")):
            (self.directory / hidden).mkdir(exist_ok=True)
            self.hosts.blind("node2", self.directory / hidden)
            with self.subTest(hidden):
                result = self.run_on_hosts("train", self.recipe())
                self.assertEqual(result.returncode, 2, result.stderr)
                said = f"node2 does not see {self.directory}/{seen} as rank 0 does: all hosts need it on a shared file system"
                self.assertEqual(result.stderr.count(said), 1, result.stderr)
                self.assertFalse(list((self.directory / seen).glob(".temper-sees*")))
        # Nor do they part over a run that goes on, or is done, which one of them does not see.
        self.hosts.blind("node2", self.directory / "elsewhere")
        (self.directory / "elsewhere").mkdir()
        shutil.rmtree(self.directory / "runs")
        self.assert_done(self.run_on_hosts("train", self.recipe(steps=10)))
        self.hosts.blind("node2", self.directory / "runs")
        for steps in (10, 20):
            with self.subTest(steps=steps):
                result = self.run_on_hosts("train", self.recipe(steps))
                self.assertEqual(result.returncode, 2, result.stderr)
                self.assertEqual(result.stderr.count(f"node2 does not see {self.directory}/runs/test"), 1, result.stderr)

    @unittest.skipUnless(LONG, "takes long: TEMPER_LONG=1 runs it")
    def test_doctor_names_the_hosts_the_slow_link_and_who_is_blind(self):
        (self.directory / "here").mkdir()
        self.hosts.blind("node2", self.directory / "here")
        for namespace in self.hosts.namespaces.values():
            subprocess.run(["tc", "-n", namespace, "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "200mbit", "burst", "256kb", "latency", "20ms"],
                           check=True)  # fmt: skip
        with unittest.mock.patch.dict(ENVIRONMENT, HOME=str(self.directory)):  # where its peaks are stored
            result = self.run_on_hosts("doctor", "--json", directory="here")
        self.assert_done(result)
        report = json.loads(result.stdout)
        self.assertEqual(report["mpi"]["hosts"], {"node1": [0], "node2": [1]})
        self.assertEqual([(r["host"], r["local_rank"]) for r in report["ranks"]], [("node1", 0), ("node2", 0)])
        self.assertEqual([(axis["name"], axis["size"]) for axis in report["axes"]], [("replicate", 2)])
        self.assertLess(report["axes"][0]["all_reduce_gb_per_s"], 0.03)
        odd = [each["what"] for each in report["odd"]]
        self.assertIn("rank 1 on node2 does not see the working directory as rank 0 does", odd)
        self.assertTrue([each for each in odd if each.startswith("axis 'replicate': all-reduce of 0.0")], odd)


if __name__ == "__main__":
    run_tests_unless(reason_to_skip())
