"""The program on a device against the program on the CPU: every way of training, checkpoints, resume, export, evaluation, generation.

On CUDA where there is a GPU; with TEMPER_PLUGIN on the emulated device (emulator/), anywhere. The cheapest cases of each family in every
run of the tests; all of them with TEMPER_LONG=1.
"""

import dataclasses
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import unittest
import unittest.mock
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "system"))
import sharding_test  # noqa: E402
from harness import ENVIRONMENT, LONG, PROGRAM, run_tests_unless  # noqa: E402

EMULATED = "TEMPER_PLUGIN" in os.environ
# Relative, of losses near 0 absolute. What is drawn on a device of another arithmetic may be another token.
TOLERANCE = {"fp32": 1e-3, "bf16": 2e-2, "fp16": 2.5e-3}
# One of a family each.
OFTEN = {"full", "bf16", "fp16", "float8", "lora", "nf4", "prefix", "dpo-lora", "grpo"}


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

    def device_peak(self, run):
        return self.metrics(f"runs/{run}")[-1]["memory/device_peak_mib"]

    def case(self, name):
        return next(case for case in sharding_test.cases() if case.name == name)

    def assert_losses_follow_the_cpus(self, cases):
        peaks = self.directory / ".cache/temper/peaks.json"
        peaks.parent.mkdir(parents=True)
        peaks.write_text(json.dumps({"emulated device": {"fp32_flops": 1e9}}))
        for case in cases:
            if LONG or case.name in OFTEN:
                with self.subTest(case.name), unittest.mock.patch.dict(ENVIRONMENT, HOME=str(self.directory)):
                    steps = 6 if EMULATED and not LONG else 20
                    more = {"train": {"steps": steps}} if case.name in ("full", "lora") else {}
                    self.assert_follows_cpu(case, **more)
                    if EMULATED and more:  # a GPU's peak is its data sheet's, if it has one
                        self.assertGreater(self.metrics("runs/device")[-1]["mfu"], 0)


class Objectives(OnDevice):
    def test_losses_follow_the_cpus(self):
        self.assert_losses_follow_the_cpus(case for case in sharding_test.cases() if "objective" in case.tables)


class Program(OnDevice):
    def test_losses_follow_the_cpus(self):
        self.assert_losses_follow_the_cpus(case for case in sharding_test.cases() if "objective" not in case.tables)

    def test_a_resumed_run_goes_on_with_the_same_bits(self):
        """Wherever its states were: on the host, or on pages that may go there."""
        offloaded = {"parallel": {"offload": "optimizer"}}
        paged = {"optimizer": {"kind": "paged_adamw_8bit"}}
        for name, before, after in (("lora", offloaded, {}), ("eight-bit", paged, paged), *((name, {}, {}) for name in ("lora", "eight-bit") if LONG)):
            with self.subTest(name, before=before):
                self.without_runs()
                constant = {"kind": "constant", "warmup": 0}
                whole = self.trained_on("cuda", self.case(name), "whole", schedule=constant, train={"steps": 4})
                self.trained_on("cuda", self.case(name), "parts", schedule=constant, train={"steps": 2}, **before)
                parts = self.trained_on("cuda", self.case(name), "parts", schedule=constant, train={"steps": 4}, **after)
                self.assertEqual(parts[1], whole[1])
                self.assertEqual([line["loss"] for line in parts[0]], [line["loss"] for line in whole[0]])
                if EMULATED and after is paged:  # on a GPU the driver counts them
                    self.assertLess(self.device_peak("parts"), self.device_peak("whole"))

    def test_recorded_passes_follow_the_cpu_and_go_on_with_the_same_bits(self):
        packed = {"data": {"packing": "bfd", "max_length": 64}, "batch": {"global": 4, "micro": 1}, "schedule": {"kind": "constant", "warmup": 0}}
        cases = (("lora-bf16", {"peft": {"lora_dropout": 0}}), ("full", {}), ("gpt2-bf16", {}))
        last = 4 if LONG else 2
        for name, more in cases if LONG else cases[:1]:
            with self.subTest(name):
                self.without_runs()
                case = self.case(name)
                tolerance = TOLERANCE[case.tables.get("train", {}).get("precision", "fp32")]

                def train(run, device="cuda", graphs=True, steps=last, **ranks):
                    return self.trained_on(device, case, run, train={"steps": steps, "cuda_graphs": graphs}, **packed, **more, **ranks)

                whole = train("whole")
                for run, how in (("cpu", {"device": "cpu", "graphs": False}), *([("ranks", {"ranks": 2})] if LONG else [])):
                    for ours, theirs in zip(train(run, **how)[0], whole[0], strict=True):
                        self.assertAlmostEqual(ours["loss"], theirs["loss"], delta=tolerance, msg=run)
                        self.assertEqual(ours["num_tokens"], theirs["num_tokens"])
                train("parts", steps=last // 2)
                parts = train("parts")
                self.assertEqual([line["loss"] for line in parts[0]], [line["loss"] for line in whole[0]])
                self.assertEqual(parts[1], whole[1])

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

    def test_ranks_that_meet_without_mpi_train_as_one_does(self):
        if not EMULATED and device_count() < 2:
            self.skipTest("one device: no place for a second rank")
        case, more = self.case("full"), {"train": {"steps": 2}, "batch": {"global": 4, "micro": 2}}
        alone, _ = self.trained_on("cuda", case, "alone", **more)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            meeting = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        more["train"] = more["train"] | {"device": "cuda"}
        recipe = self.recipe(case, {"rendezvous": meeting}, **more)
        ranks = [
            subprocess.Popen([PROGRAM, "train", recipe, "run.name=meeting"], cwd=self.directory, stdin=subprocess.DEVNULL,
                             env=ENVIRONMENT | {"TEMPER_RANK": str(rank), "TEMPER_WORLD_SIZE": "2"},
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for rank in (0, 1)
        ]  # fmt: skip
        for process in ranks:
            output, _ = process.communicate(timeout=120)
            self.assertEqual(process.returncode, 0, output)
        found = self.numbers("runs/meeting")
        self.assertEqual([line["step"] for line in found], [1, 2])
        for ours, theirs in zip(found, alone, strict=True):
            for name in ("loss", "eval_loss", "grad_norm"):
                self.assertEqual(name in ours, name in theirs, name)
                self.assertAlmostEqual(ours.get(name, 0), theirs.get(name, 0), delta=TOLERANCE["fp32"], msg=name)

    def test_states_on_the_host_give_the_same_bits(self):
        constant = {"kind": "constant", "warmup": 0}
        layouts = ((1, None), (2, 1), (2, 2), (2, 3)) if LONG else ((2, 3),)
        if not EMULATED and device_count() < 2:
            layouts = ((1, None),)
        for name in ("full", "bf16", "lora-bf16", "eight-bit") if LONG else ("bf16",):
            for ranks, zero in layouts:
                with self.subTest(name, ranks=ranks, zero=zero):
                    self.without_runs()
                    parallel = {"shard": ranks, "zero": zero} if zero else {}

                    def train(run, steps, **more):
                        return self.trained_on("cuda", self.case(name), run, ranks=ranks, parallel=parallel | more, schedule=constant, train={"steps": steps})

                    lines, weights = train("whole", 2)
                    if LONG:
                        train("moving", 1)
                    found_lines, found = train("moving", 2, offload="optimizer")
                    self.assertEqual([line["loss"] for line in found_lines], [line["loss"] for line in lines])
                    self.assertEqual(found, weights)
                    self.assertLess(self.device_peak("moving"), self.device_peak("whole"))

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
        ):
            with self.subTest(key):
                result = self.run_temper("train", recipe, f"{key}={value}", "train.device=cuda")
                self.assert_done(result, code=2)
                (line,) = result.stderr.strip().splitlines()
                self.assertTrue(line.startswith(key), line)
                self.assertIn("not on a CUDA device", line)
                self.assertIn(mend, line)

    def test_doctor_measures_the_device_for_plans(self):
        ranks = 2 if device_count() > 1 and (LONG or not EMULATED) else 1
        with unittest.mock.patch.dict(ENVIRONMENT, HOME=str(self.directory)):
            doctor = self.run_temper("doctor", "--json", ranks=ranks)
            self.assert_done(doctor)
            device = json.loads(doctor.stdout)["device"]
            for dtype in ("fp32", "bf16", "fp16"):
                self.assertGreater(device["rates"][f"gemm_{dtype}_gflops"], 0)
                for rate in ("attention_gflops", "mega_logits_per_s"):
                    self.assertGreater(device["rates"]["training"][dtype][rate], 0)
            self.assertEqual("link" in device, ranks > 1)
            recipe = self.recipe(self.case("full"), train={"steps": 1})
            plan = self.run_temper("plan", recipe, "train.device=cuda", "--json")
            self.assert_done(plan)
            time = json.loads(plan.stdout)["time"]
            self.assertEqual((time["device"], time["measured"]), (device["name"], True))
            self.assertGreater(time["step_seconds"], 0)

    def test_more_ranks_than_devices_are_refused_in_a_line(self):
        ranks = device_count() + 1
        result = self.run_temper("train", self.recipe(self.case("full")), "train.device=cuda", f"batch.global={4 * ranks}", ranks=ranks)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertIn("several processes have device 0", result.stderr)


@functools.cache
def device_count():
    if EMULATED:
        return 4
    found = subprocess.run([PROGRAM, "doctor", "--json"], capture_output=True, text=True)
    return json.loads(found.stdout)["cuda"]["devices"] if found.returncode == 0 else 0


if __name__ == "__main__":
    run_tests_unless(None if EMULATED or device_count() > 0 else "there is no GPU here")
