"""The program on a device against the program on the CPU: every way of training, checkpoints, resume, export, evaluation, generation.

On CUDA where there is a GPU; with TEMPER_PLUGIN on the emulated device (emulator/), anywhere. The cheapest cases of each family in every
run of the tests; all of them with TEMPER_LONG=1.
"""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "system"))
import sharding_test  # noqa: E402
from harness import LONG, PROGRAM, run_tests_unless  # noqa: E402

EMULATED = "TEMPER_PLUGIN" in os.environ
# Relative, of losses near 0 absolute. What is drawn on a device of another arithmetic may be another token.
TOLERANCE = {"fp32": 1e-3, "bf16": 2e-2, "fp16": 2.5e-3}
# One of a family each.
OFTEN = {"full", "bf16", "fp16", "lora", "nf4", "prefix", "dpo-lora", "grpo"}


class OnDevice(sharding_test.Sharding):
    test_what_is_trained_on_one_rank_is_trained_sharded = None
    test_what_is_frozen_or_quantised_resumes_on_another_layout = None

    def trained_on(self, device, case, name, **more):
        generation = {"exact": False} if case.sampled() or case.rows == "completion" else {}
        more["train"] = case.tables.get("train", {}) | more.get("train", {}) | {"device": device}
        return self.trained(dataclasses.replace(case, exact=False), name, generation=generation, **more)

    def assert_follows_cpu(self, case, **more):
        self.without_runs()
        lines, weights = self.trained_on("cpu", case, "cpu", **more)
        found_lines, found = self.trained_on("cuda", case, "device", **more)
        self.assertEqual({n: t[:2] for n, t in found.items()}, {n: t[:2] for n, t in weights.items()})
        self.assertEqual([line["step"] for line in found_lines], [line["step"] for line in lines])
        tolerance = TOLERANCE[case.tables.get("train", {}).get("precision", "fp32")]
        for ours, theirs in zip(found_lines, lines):
            for name in ("loss", "eval_loss", "reward"):
                self.assertEqual(name in ours, name in theirs, name)
                if name in ours:
                    self.assertAlmostEqual(ours[name], theirs[name], delta=tolerance * max(1, abs(theirs[name])),
                                           msg=f"step {ours['step']}: {name}")  # fmt: skip

    def without_runs(self):
        """Of the case before, which may have failed."""
        shutil.rmtree(self.directory / "runs", ignore_errors=True)

    def case(self, name):
        return next(case for case in sharding_test.cases() if case.name == name)

    def test_losses_follow_the_cpus(self):
        for case in sharding_test.cases():
            if LONG or case.name in OFTEN:
                with self.subTest(case.name):
                    steps = 6 if EMULATED and not LONG else 20
                    more = {"train": {"steps": steps}} if case.name in ("full", "lora") else {}
                    self.assert_follows_cpu(case, **more)

    def test_a_resumed_run_goes_on_with_the_same_bits(self):
        for name in ("lora", "eight-bit"):
            with self.subTest(name):
                self.without_runs()
                constant = {"kind": "constant", "warmup": 0}
                whole = self.trained_on("cuda", self.case(name), "whole", schedule=constant, train={"steps": 4})
                self.trained_on("cuda", self.case(name), "parts", schedule=constant, train={"steps": 2})
                parts = self.trained_on("cuda", self.case(name), "parts", schedule=constant, train={"steps": 4})
                self.assertEqual(parts[1], whole[1])
                self.assertEqual([line["loss"] for line in parts[0]], [line["loss"] for line in whole[0]])

    def test_a_checkpoint_of_the_device_goes_on_on_the_cpu(self):
        constant = {"kind": "constant", "warmup": 0}
        whole = self.trained_on("cpu", self.case("full"), "whole", schedule=constant, train={"steps": 4})
        self.trained_on("cuda", self.case("full"), "moving", schedule=constant, train={"steps": 2})
        moved = self.trained_on("cpu", self.case("full"), "moving", schedule=constant, train={"steps": 4})
        for ours, theirs in zip(moved[0], whole[0], strict=True):
            self.assertAlmostEqual(ours["loss"], theirs["loss"], delta=TOLERANCE["fp32"])

    def test_ranks_share_a_copy_at_every_stage(self):
        if not EMULATED and device_count() < 2:
            self.skipTest("one device: nothing to share between two")
        case = self.case("full")
        lines, _ = self.trained_on("cpu", case, "alone")
        for shard, zero in ((1, None), (2, 1), (2, 2), (2, 3)):
            with self.subTest(shard=shard, zero=zero):
                parallel = {"shard": shard, "zero": zero} if zero else {}
                found, _ = self.trained_on("cuda", case, f"zero-{zero}", ranks=2, parallel=parallel)
                for ours, theirs in zip(found, lines, strict=True):
                    self.assertAlmostEqual(ours["loss"], theirs["loss"], delta=TOLERANCE["fp32"])

    def test_evaluation_and_generation_find_what_they_find_on_the_cpu(self):
        recipe = self.recipe(self.case("full"))
        evaluated, texts = [], []
        for device in ("cpu", "cuda"):
            result = self.run_temper("eval", recipe, f"train.device={device}")
            self.assert_done(result)
            evaluated.append(json.loads(result.stdout.splitlines()[-1]))
            result = self.run_temper("generate", "base", "--prompt", "int auto", "--max-new-tokens", 12, "--device", device)
            self.assert_done(result)
            texts.append(result.stdout)
        self.assertAlmostEqual(evaluated[0]["eval_loss"], evaluated[1]["eval_loss"], delta=TOLERANCE["fp32"])
        self.assertEqual(texts[0], texts[1])

    def test_what_a_device_does_not_do_is_refused_in_a_line(self):
        recipe = self.recipe(self.case("full"))
        for key, value, mend in (
            ("run.deterministic", "layout", "use true"),
            ("generation.exact", "true", "use false"),
            ("optimizer.kind", "paged_adamw_8bit", "adamw_8bit"),
            ("parallel.offload", "optimizer", "leave it out"),
        ):
            with self.subTest(key):
                result = self.run_temper("train", recipe, f"{key}={value}", "train.device=cuda")
                self.assert_done(result, code=2)
                (line,) = result.stderr.strip().splitlines()
                self.assertTrue(line.startswith(key), line)
                self.assertIn("not on a CUDA device", line)
                self.assertIn(mend, line)

    def test_more_ranks_than_devices_are_refused_in_a_line(self):
        ranks = device_count() + 1
        result = self.run_temper("train", self.recipe(self.case("full")), "train.device=cuda", f"batch.global={4 * ranks}", ranks=ranks)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertIn("several processes have device 0", result.stderr)


def device_count():
    if EMULATED:
        return 4
    found = subprocess.run([PROGRAM, "doctor", "--json"], capture_output=True, text=True)
    return json.loads(found.stdout)["cuda"]["devices"] if found.returncode == 0 else 0


if __name__ == "__main__":
    run_tests_unless(None if EMULATED or device_count() > 0 else "there is no GPU here")
