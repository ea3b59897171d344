"""check.sh in a tree of stand-ins: what it makes of programs that pass, fail, skip and hang. What the programs themselves do is
tested elsewhere."""

import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROGRAMS = {
    "nvidia-smi": "echo 'GPU 0: stand-in'",
    # Asked where torch is, whether modules are there, and to run the program's test and the peers.
    "python3": 'case "$*" in *origin*) echo "$TREE/torch" ;; *peers.py*) echo "transformers 100 tokens/s, $LD_LIBRARY_PATH" ;; esac',
    "temper": "echo cuda: one device",
    "gpu_test": "echo '[       OK ] Some.test'; echo '[  PASSED  ] 1 test.'",
    "gpu_bench": 'echo "first line"; echo "figures of $*"',
    "mpirun": "echo '[       OK ] Nccl.test'",
    "compute-sanitizer": "echo '========= ERROR SUMMARY: 0 errors'",
}


class Check(unittest.TestCase):
    def setUp(self):
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)
        self.tree = self.directory / "tree"
        for folder in ("bin", "torch/lib", "here"):
            (self.tree / folder).mkdir(parents=True)
        (self.tree / "torch/lib/libtorch_cuda.so").touch()
        (self.tree / "VERSION").write_text("temper 1\n")
        shutil.copy(HERE / "check.sh", self.tree)
        shutil.copy(HERE / "env.sh", self.tree)
        for name, text in PROGRAMS.items():
            self.stand_in(name, text)

    def stand_in(self, name, text):
        path = self.tree / "here" / name if name in ("nvidia-smi", "python3", "compute-sanitizer") else self.tree / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def check(self, *steps):
        environment = {"PATH": f"{self.tree}/here:/usr/bin:/bin", "TREE": str(self.tree), "LD_LIBRARY_PATH": "/driver"}
        self.result = subprocess.run(["bash", self.tree / "check.sh", self.directory / "logs", *steps], env=environment,
                                     capture_output=True, text=True, timeout=120)  # fmt: skip
        text = (self.directory / "logs/table.txt").read_text() if self.result.returncode < 2 else ""
        self.assertTrue(self.result.stdout.endswith(text))  # all of what a caller sees who keeps the end alone
        return dict(re.findall(r"^(\w+) +(ok|failed|timeout|skipped) ", text, re.MULTILINE))

    def test_all_that_passes(self):
        verdicts = self.check()
        self.assertEqual(self.result.returncode, 0, self.result.stdout)
        self.assertGreater(len(verdicts), 25)
        self.assertEqual(set(verdicts.values()), {"ok"})
        table = (self.directory / "logs/table.txt").read_text()
        self.assertIn("figures of --what step --shape 8b --method lora --tokens 4096 [", table)
        self.assertIn("    first line\n", table)  # of the kernels all
        self.assertRegex(table, r"peer_1b +ok +transformers 100 tokens/s, /driver \[")  # not with the tree's libraries
        self.assertLess(len(self.result.stdout), 12000)
        log = (self.directory / "logs/all.log").read_text()
        self.assertEqual(re.findall(r"^== (\w+)$", log, re.MULTILINE), list(verdicts))
        self.assertEqual({path.name for path in (self.directory / "logs").iterdir()}, {"table.txt", "all.log"})

    def test_steps_by_name(self):
        self.assertEqual(self.check("peer_1b", "kernels"), {"kernels": "ok", "peer_1b": "ok"})
        self.check("kernel")
        self.assertEqual(self.result.returncode, 2)
        self.assertEqual(self.result.stderr, "check.sh: there is no step 'kernel'\n")

    def test_what_fails_is_told_and_the_rest_goes_on(self):
        self.stand_in("gpu_test", "echo '[  FAILED  ] Some.test'; for i in $(seq 90); do echo and so on; done; exit 1")
        self.stand_in("mpirun", "echo '[  SKIPPED ] Nccl.test'; echo '[  PASSED  ] 0 tests.'")
        self.stand_in("compute-sanitizer", "echo '========= Error: Device not supported'; exit 1")
        verdicts = self.check("operators", "two_ranks_one_gpu", "memcheck", "step_1b")
        self.assertEqual(verdicts, {"operators": "failed", "two_ranks_one_gpu": "failed", "memcheck": "skipped", "step_1b": "ok"})
        self.assertEqual(self.result.returncode, 1)
        self.assertRegex(self.result.stdout, r"-- operators\n\[  FAILED  \] Some.test\n")

    def test_what_tests_nothing_is_no_success(self):
        self.stand_in("compute-sanitizer", "echo '[==========] 0 tests from 0 test suites ran.'; echo '[  PASSED  ] 0 tests.'; echo '========= ERROR SUMMARY: 0 errors'")
        self.assertEqual(self.check("racecheck"), {"racecheck": "failed"})

    def test_what_hangs_is_ended(self):
        text = (self.tree / "check.sh").read_text()
        self.assertIn("run doctor 60 ", text)
        (self.tree / "check.sh").write_text(text.replace("run doctor 60 ", "run doctor 1 ").replace('"$limit" -lt 10', '"$limit" -lt 1'))
        self.stand_in("temper", "echo so far; sleep 3")
        verdicts = self.check()
        self.assertEqual(verdicts.pop("doctor"), "timeout")
        self.assertEqual(set(verdicts.values()), {"ok"})
        self.assertIn("so far", (self.directory / "logs/all.log").read_text())
        self.assertEqual(self.check("doctor"), {"doctor": "ok"})  # by its name it has all the time that there is

    def test_peers_that_are_not_there(self):
        self.stand_in("python3", 'case "$*" in *origin*) echo "$TREE/torch" ;; *transformers*) exit 1 ;; esac')
        self.assertEqual(self.check("step_1b", "peer_1b"), {"step_1b": "ok", "peer_1b": "skipped"})
        self.assertEqual(self.result.returncode, 0)

    def test_nothing_to_check_with(self):
        (self.tree / "torch/lib/libtorch_cuda.so").unlink()
        self.check()
        self.assertEqual(self.result.returncode, 3)
        self.stand_in("nvidia-smi", "exit 9")
        self.check()
        self.assertIn("no GPU here", self.result.stderr)
        self.assertFalse((self.directory / "logs").exists())


if __name__ == "__main__":
    unittest.main(verbosity=2)
