"""A real Slurm on this machine: two nodes that are two slurmd. srun and sbatch train as mpirun does, and a signal to the job step stops
the run so that it can go on.

Needs root, Debian's slurm-wlm and munge, and TEMPER_LONG=1; else it is skipped (exit code 77, which ctest shows).
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from harness import ENVIRONMENT, LONG, PROGRAM, SOURCE, SystemTest, run_tests_unless, wait_for_step

DAEMONS = ("munged", "slurmctld", "slurmd")
CLIENTS = ("srun", "sbatch", "scancel", "squeue", "sinfo")


def reason_to_skip():
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    missing = [name for name in (*DAEMONS, *CLIENTS, "mpirun") if shutil.which(name, path=path) is None]
    if missing:
        return f"{', '.join(missing)} not found: apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "needs root, to be slurmd"
    if not LONG:
        return "takes long: TEMPER_LONG=1 runs it"
    return None


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Cluster:
    """munged, slurmctld and slurmd of nodes n1 and n2, in a directory of their own; `stop` leaves no process."""

    def __init__(self):
        self.directory = Path(tempfile.mkdtemp(prefix="temper-slurm-"))
        self.environment = dict(ENVIRONMENT, SLURM_CONF=str(self.directory / "slurm.conf"), PATH=os.environ["PATH"] + ":/usr/sbin:/sbin")
        self.daemons = []
        self.directory.chmod(0o755)  # munged wants its socket reachable
        self.write_configuration()
        d = self.directory
        try:
            self.start("munged", "--foreground", "--force", f"--key-file={d}/munge.key", f"--socket={d}/munge.socket", f"--pid-file={d}/munge.pid",
                       f"--log-file={d}/munge.log", f"--seed-file={d}/munge.seed", "--num-threads=2")
            self.wait_until(lambda: (d / "munge.socket").exists(), "munged has no socket")
            self.start("slurmctld", "-D", "-c")
            for node in ("n1", "n2"):
                self.start("slurmd", "-D", "-N", node)
            self.wait_until(lambda: self.call("sinfo", "-h", "-o", "%D %t").stdout.split() == ["2", "idle"], "the nodes are not idle")
        except BaseException:
            self.stop()
            raise

    def write_configuration(self):
        d = self.directory
        (d / "munge.key").write_bytes(os.urandom(128))
        (d / "munge.key").chmod(0o400)
        for name in ("state", "spool.n1", "spool.n2", "tmp.n1", "tmp.n2"):
            (d / name).mkdir()
        controller, n1, n2 = free_ports(3)
        host = socket.gethostname()
        node = f"NodeHostname={host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()} State=UNKNOWN"
        (d / "slurm.conf").write_text(
            f"""
ClusterName=temper
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
# A requeued job waits until its credential is over: two minutes, if not for this.
AuthInfo=socket={d}/munge.socket,cred_expire=10
StateSaveLocation={d}/state
SlurmdSpoolDir={d}/spool.%n
TmpFS={d}/tmp.%n
SlurmctldPidFile={d}/slurmctld.pid
SlurmdPidFile={d}/slurmd.%n.pid
SlurmctldLogFile={d}/slurmctld.log
SlurmdLogFile={d}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=pmix
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
NodeName=n1 Port={n1} {node}
NodeName=n2 Port={n2} {node}
# Jobs of `urgent` take their nodes from those of `all`, which first get their signal and some time.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=n1,n2 MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
"""
        )

    def start(self, *command):
        log = open(self.directory / f"{command[0]}.out", "ab")
        self.daemons.append(subprocess.Popen(command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True))
        log.close()

    def call(self, *command, **options):
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60, **options)

    def wait_until(self, condition, complaint, seconds=60):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end or any(daemon.poll() is not None for daemon in self.daemons):
                raise AssertionError(f"{complaint}:\n{self.logs()}")
            time.sleep(0.1)

    def logs(self):
        files = sorted([*self.directory.glob("*.log"), *self.directory.glob("*.out")])
        return "\n".join(f"-- {file.name}\n" + "\n".join(file.read_text(errors="replace").splitlines()[-20:]) for file in files)

    def stop(self):
        """Jobs first, then the daemons. What still runs with this cluster's configuration is killed and given back."""
        with contextlib.suppress(Exception):
            self.call("scancel", "--user=root")
            self.wait_until(lambda: not self.call("squeue", "-h").stdout.strip(), "jobs are left", seconds=30)
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        left = self.processes()
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)
        return left

    def processes(self):
        """Of daemons, steps and tasks: all have the configuration in their environment or the directory on their command line."""
        mark = str(self.directory).encode()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (process / "environ").read_bytes() or mark in (process / "cmdline").read_bytes():
                    found.append(int(process.name))
        return [process for process in found if process != os.getpid()]


class Slurm(SystemTest):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster()

    @classmethod
    def tearDownClass(cls):
        left = cls.cluster.stop()
        assert not left, f"processes were left: {left}"

    def recipe(self, steps=12):
        # One thread: each rank believes to be alone on its node.
        return self.write_recipe(train={"steps": steps, "threads": 1}, checkpoint={"every": 5}, eval={"every": 6})

    def mpirun(self, steps=12):
        """The same run under plain mpirun: its numbers and weights."""
        self.assert_done(self.run_temper("train", self.recipe(steps), "run.name=whole", ranks=2))
        return self.numbers("runs/whole"), self.weights("runs/whole")

    def srun(self, *arguments):
        return ["srun", "--mpi=pmix", "--kill-on-bad-exit=1", "-N2", "-n2", PROGRAM, *arguments]

    def assert_same(self, whole):
        self.assertEqual(self.numbers(), whole[0])
        self.assertEqual(self.weights(), whole[1])

    def test_srun_gives_the_bits_of_mpirun(self):
        whole = self.mpirun()
        self.assert_done(self.cluster.call(*self.srun("train", self.recipe()), cwd=self.directory))
        self.assertIn('"size": 2', (self.directory / "runs/test/environment.json").read_text())
        self.assert_same(whole)

    def test_sbatch_with_mpirun_inside_gives_the_bits_of_mpirun(self):
        whole = self.mpirun()
        (self.directory / "job.sh").write_text(f"#!/bin/sh\nexec mpirun -n 2 {PROGRAM} train {self.recipe()}\n")
        result = self.cluster.call("sbatch", "--wait", "-N2", "-n2", "--output=job.txt", "job.sh", cwd=self.directory)
        self.assertEqual(result.returncode, 0, result.stderr + (self.directory / "job.txt").read_text())
        self.assert_same(whole)

    def test_usr1_to_the_job_step_stops_with_75_and_the_run_goes_on(self):
        whole = self.mpirun(steps=200)
        process = subprocess.Popen(self.srun("train", self.recipe(steps=200)), cwd=self.directory, env=self.cluster.environment, text=True,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
        wait_for_step(self, 7, process=process)
        job = self.cluster.call("squeue", "-h", "-o", "%A").stdout.strip()
        self.assertEqual(self.cluster.call("scancel", "--signal=USR1", f"{job}.0").returncode, 0)
        _, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 75, errors)
        # The line of a step whose evaluation is due comes with the resumed run, so the checkpoint says where it stopped.
        checkpoints = sorted((self.directory / "runs/test/checkpoints").glob("step-*/manifest.json"))
        self.assertIn(int(checkpoints[-1].parent.name[len("step-"):]) - self.metrics()[-1]["step"], (0, 1))
        self.assertLess(self.metrics()[-1]["step"], 199)
        self.assert_done(self.cluster.call(*self.srun("train", self.recipe(steps=200)), cwd=self.directory))
        self.assert_same(whole)

    def sbatch(self, template, *arguments, tasks=2):
        """Submits a template of launch/slurm with options for this small cluster; returns the job's number."""
        environment = dict(self.cluster.environment, TEMPER=PROGRAM, TEMPER_HOME=str(SOURCE))
        result = subprocess.run(["sbatch", "--parsable", f"--nodes={tasks}", "--ntasks-per-node=1", "--cpus-per-task=1", "--output=job.txt",
                                 SOURCE / f"launch/slurm/{template}.sbatch", *arguments],
                                env=environment, cwd=self.directory, capture_output=True, text=True, timeout=60)  # fmt: skip
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout.strip()

    def job_output(self):
        path = self.directory / "job.txt"
        return path.read_text() if path.exists() else ""

    def wait_for_job(self, job):
        self.cluster.wait_until(lambda: not self.cluster.call("squeue", "-h", "-j", job, "-t", "all", "-o", "%T").stdout.strip()
                                .startswith(("PENDING", "RUNNING", "COMPLETING", "REQUEUED")), f"job {job} goes on: {self.job_output()}", seconds=300)  # fmt: skip

    def test_sbatch_accepts_every_template(self):
        for path in sorted((SOURCE / "launch/slurm").glob("*.sbatch")):
            with self.subTest(path.name):
                result = self.cluster.call("sbatch", "--test-only", "--cpus-per-task=1", "--ntasks-per-node=1", path, "recipe.toml")
                self.assertEqual(result.returncode, 0, result.stderr)

    def test_the_template_of_several_nodes_gives_the_bits_of_mpirun(self):
        whole = self.mpirun()
        self.wait_for_job(self.sbatch("multi_node", self.recipe()))
        self.assertTrue((self.directory / "runs/test/export/model.safetensors").exists(), self.job_output())
        self.assert_same(whole)

    def preempted(self, interrupt):
        """A preemptible job that `interrupt(job)` happens to midway comes back by itself and ends with the bits of the whole run."""
        whole = self.mpirun(steps=200)
        job = self.sbatch("preemptible", self.recipe(steps=200))
        wait_for_step(self, 7)
        interrupt(job)
        self.wait_for_job(job)
        self.assertTrue((self.directory / "runs/test/export/model.safetensors").exists(), self.job_output())
        self.assertIn("resuming from", self.job_output())
        self.assertIn("Restarts=1", self.cluster.call("scontrol", "show", "job", job).stdout)
        self.assert_same(whole)

    def test_a_job_near_its_time_limit_requeues_itself_and_ends_with_the_same_bits(self):
        # What --signal=B:USR1@120 sends: to the batch script alone.
        self.preempted(lambda job: self.assertEqual(self.cluster.call("scancel", "--signal=USR1", "--batch", job).returncode, 0))
        self.assertIn("goes back to the queue", self.job_output())

    def test_a_job_that_gives_way_to_an_urgent_one_requeues_itself_and_ends_with_the_same_bits(self):
        def urgent(_):
            result = self.cluster.call("sbatch", "--wait", "--partition=urgent", "-N2", "--exclusive", "--output=urgent.txt",
                                       "--wrap", "ls runs/test/checkpoints", cwd=self.directory)  # fmt: skip
            self.assertEqual(result.returncode, 0, result.stderr)

        self.preempted(urgent)
        self.assertIn("goes back to the queue", self.job_output())
        # It had the nodes only after the checkpoint that the job goes on from.
        resumed = re.search(r"resuming from \S*(step-\d+)", self.job_output())[1]
        self.assertIn(resumed, (self.directory / "urgent.txt").read_text().split())

    def test_a_job_that_an_administrator_requeues_ends_with_the_same_bits(self):
        self.preempted(lambda job: self.assertEqual(self.cluster.call("scontrol", "requeue", job).returncode, 0))

    def test_doctor_under_srun_shows_the_layout(self):
        self.cluster.environment["HOME"] = str(self.directory)  # where its peaks are stored
        self.addCleanup(self.cluster.environment.update, HOME=os.environ["HOME"])
        result = self.cluster.call("srun", "--mpi=pmix", "-N2", "-n2", PROGRAM, "doctor", "--json", cwd=self.directory)
        self.assert_done(result)
        report = json.loads(result.stdout)
        self.assertEqual([(rank["rank"], rank["local_rank"]) for rank in report["ranks"]], [(0, 0), (1, 0)])
        self.assertEqual([(axis["name"], axis["size"]) for axis in report["axes"]], [("replicate", 2)])

    def test_a_cancelled_job_does_not_come_back(self):
        job = self.sbatch("preemptible", self.recipe(steps=4000))
        wait_for_step(self, 3)
        self.assertEqual(self.cluster.call("scancel", job).returncode, 0)
        self.wait_for_job(job)
        self.assertNotIn("goes back to the queue", self.job_output())

    def test_wrong_input_ends_with_2(self):
        result = self.cluster.call(*self.srun("train", self.recipe(), "optimizer.lrr=1"), cwd=self.directory)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertEqual(result.stderr.count("lrr"), 1, result.stderr)


if __name__ == "__main__":
    run_tests_unless(reason_to_skip())
