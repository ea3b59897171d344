"""The packed tree in an environment with nothing of this machine's build: the program starts, explains itself and trains on the CPU
with the libraries that were packed, alone and as two ranks; check.sh says at once that there is no GPU."""

import json
import os
import shutil
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "system"))
from harness import PROGRAM, SOURCE, SystemTest, run_tests_unless  # noqa: E402

BUILD = Path(PROGRAM).resolve().parents[1]
TORCH = Path(os.environ["LibTorch_ROOT"]) if "LibTorch_ROOT" in os.environ else None
# What every machine has by itself, besides torch's own directory.
OF_THE_MACHINE = ("linux-vdso", "ld-linux", "libc.so", "libm.so", "libdl.so", "libpthread.so", "librt.so", "libutil.so", "libresolv.so",
                  "libstdc++.so", "libgcc_s.so")  # fmt: skip


class Packed(SystemTest):
    def setUp(self):
        super().setUp()
        self.packed = self.directory / "temper-gpu.tar.zst"
        subprocess.run([SOURCE / "tests/gpu/pack.sh", BUILD, self.packed], check=True, capture_output=True)
        subprocess.run(["tar", "--zstd", "-xf", self.packed, "-C", self.directory], check=True)
        self.tree = self.directory / "temper-gpu"

    def in_tree(self, command, path="/usr/bin:/bin"):
        """A shell line with nothing but the tree's own environment."""
        line = f"torch={TORCH}; . {self.tree}/env.sh; {command}"
        return subprocess.run(["env", "-i", f"PATH={path}", f"HOME={self.directory}", "bash", "-c", line],
                              cwd=self.directory, capture_output=True, text=True, timeout=120)  # fmt: skip

    def test_it_is_small_complete_and_relocatable(self):
        self.assertLessEqual(self.packed.stat().st_size, 60 << 20)
        for program in ("temper", "gpu_test", "gpu_bench"):
            found = self.in_tree(f"ldd {self.tree}/bin/{program}").stdout
            self.assertNotIn("not found", found)
            for line in found.splitlines():
                name, _, rest = line.strip().partition(" => ")
                if name.startswith(OF_THE_MACHINE) or "ld-linux" in name:
                    continue
                self.assertTrue(rest.startswith((str(self.tree), str(TORCH), str(TORCH.parent / "nvidia"))), line)
        for program in (*self.tree.glob("bin/*"), *self.tree.glob("lib/*.so*")):
            dynamic = subprocess.run(["readelf", "-d", program], capture_output=True, text=True).stdout
            self.assertNotRegex(dynamic, r"(RPATH|RUNPATH).*\[[^$]", program)

        self.assert_done(self.in_tree("temper --version"))
        report = self.in_tree("temper doctor --json")
        self.assert_done(report)
        self.assertFalse(json.loads(report.stdout)["parquet"])
        recipe = self.write_recipe()
        alone = self.in_tree(f"temper train {recipe} train.device=cpu train.threads=1")
        self.assert_done(alone)
        losses = [line["loss"] for line in self.metrics()]
        shutil.rmtree(self.directory / "runs")
        # (There may be no ssh: nothing but the tree's programs is found.)
        ranks = self.in_tree(f"PATH={self.tree}/bin; mpirun -n 2 --oversubscribe temper train {recipe} train.device=cpu train.threads=1")
        self.assert_done(ranks)
        for a, b in zip(losses, [line["loss"] for line in self.metrics()], strict=True):
            self.assertAlmostEqual(a, b, delta=1e-4 * a)

        program = self.in_tree(f"TEMPER_PROGRAM=$(command -v temper) TEMPER_SOURCE_DIR={self.tree} python3 {self.tree}/tests/gpu/program_test.py")
        self.assertEqual(program.returncode, 77, program.stdout + program.stderr)
        self.assertIn("there is no GPU here", program.stdout)

        check = self.in_tree(f"{self.tree}/check.sh {self.directory}/logs")
        self.assertEqual(check.returncode, 3, check.stdout + check.stderr)
        self.assertIn("no GPU here", check.stderr)
        self.assertFalse((self.directory / "logs").exists())


def reason_not_to():
    if TORCH is None:
        return "LibTorch_ROOT is not set"
    if not (BUILD / "lib/libtemper_cuda.so").exists():
        return "the CUDA plugin is not built"
    if shutil.which("nvidia-smi"):
        return "this machine has a GPU: run check.sh"
    return None


if __name__ == "__main__":
    run_tests_unless(reason_not_to())
