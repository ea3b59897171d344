"""The sbatch templates without Slurm: their options are sbatch's, and what they run gets its arguments, its signals and its requeue.

tests/system/slurm_test.py submits them to a real Slurm.
"""

import os
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from harness import SOURCE

TEMPLATES = sorted((SOURCE / "launch/slurm").glob("*.sbatch"))
# Of sbatch(1), those that the templates use.
OPTIONS = {"job-name", "nodes", "ntasks-per-node", "cpus-per-task", "time", "output", "open-mode", "requeue", "signal"}
FAKES = {
    # The words of its own are checked, the rest is run, as srun does it.
    "srun": 'echo "srun $*" >> "$LOG"; while [[ "$1" == --* ]]; do shift; done; exec "$@"',
    "apptainer": 'echo "apptainer $*" >> "$LOG"; while [[ "$1" != *.sif ]]; do shift; done; shift; exec "$@"',
    "scontrol": 'echo "scontrol $*" >> "$LOG"',
    "temper": 'trap "exit 75" USR1; echo "temper $*" >> "$LOG"; [[ "$*" == *stay* ]] && for _ in $(seq 200); do sleep 0.05; done; exit 0',
}


class Sbatch(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="temper-sbatch-")
        self.addCleanup(scratch.cleanup)
        self.directory = Path(scratch.name)
        for name, body in FAKES.items():
            (self.directory / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
            (self.directory / name).chmod(0o755)

    def start(self, template, *arguments):
        (self.directory / "log").unlink(missing_ok=True)
        environment = dict(os.environ, PATH=f"{self.directory}:{os.environ['PATH']}", LOG=str(self.directory / "log"), SLURM_JOB_ID="7",
                           SLURM_CPUS_PER_TASK="3", SLURM_SUBMIT_DIR=str(SOURCE), TEMPER_IMAGE="some.sif", TEMPER_BINDS="/data")  # fmt: skip
        return subprocess.Popen([template, *arguments], env=environment, cwd=self.directory, stderr=subprocess.DEVNULL, start_new_session=True)

    def log(self):
        log = self.directory / "log"
        return log.read_text().splitlines() if log.exists() else []

    def test_there_are_four(self):
        self.assertEqual([path.stem for path in TEMPLATES], ["container", "multi_node", "preemptible", "single_node"])

    def test_options_are_known_and_stand_before_the_first_command(self):
        for path in TEMPLATES:
            with self.subTest(path.name):
                subprocess.run(["bash", "-n", path], check=True)
                lines = path.read_text().splitlines()
                self.assertEqual(lines[0], "#!/usr/bin/env bash")
                first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
                options = {}
                for i, line in enumerate(lines):
                    if line.startswith("#SBATCH"):
                        self.assertLess(i, first_command, line)
                        name, _, value = line.removeprefix("#SBATCH --").partition("=")
                        options[name] = value
                self.assertLessEqual(set(options), OPTIONS)
                self.assertEqual(options["signal"], "B:USR1@120")
                self.assertRegex(options["time"], r"^\d\d:\d\d:\d\d$")
                self.assertEqual(options["open-mode"], "append")
                self.assertEqual("requeue" in options, path.stem in ("multi_node", "preemptible"))

    def test_the_program_gets_the_arguments(self):
        for path in TEMPLATES:
            with self.subTest(path.name):
                self.assertEqual(self.start(path, "a recipe.toml", "train.steps=3").wait(timeout=20), 0)
                self.assertEqual(self.log()[-1], "temper train a recipe.toml train.steps=3")
                self.assertTrue(self.log()[0].startswith("srun --mpi=pmix --kill-on-bad-exit=1 --cpus-per-task=3 "), self.log())

    def test_the_signal_stops_the_program_and_only_the_preemptible_job_is_requeued(self):
        for path in TEMPLATES:
            for sent in (signal.SIGUSR1, signal.SIGTERM):
                with self.subTest(path.name, signal=sent.name):
                    process = self.start(path, "stay")
                    end = time.monotonic() + 20
                    while not any(line.startswith("temper ") for line in self.log()) and time.monotonic() < end:
                        time.sleep(0.01)
                    process.send_signal(sent)
                    self.assertEqual(process.wait(timeout=20), 75)
                    requeued = path.stem == "preemptible" and sent == signal.SIGUSR1
                    self.assertEqual("scontrol requeue 7" in self.log(), requeued)

    def test_a_container_sees_the_working_directory(self):
        self.start(SOURCE / "launch/slurm/container.sbatch", "recipe.toml").wait(timeout=20)
        self.assertIn(f"apptainer exec --bind {self.directory},/data some.sif temper train recipe.toml", self.log())


if __name__ == "__main__":
    unittest.main(verbosity=2)
