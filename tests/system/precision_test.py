"""train.precision = "fp16": what is trained follows float32, and steps that overflow are skipped, counted and leave no trace.

Only Python's standard library.
"""

import json
import unittest

from harness import TINY, SystemTest

FP16 = {"model": {"dtype": "fp16"}, "train": {"precision": "fp16"}}
LORA = {"method": "lora", "r": 4, "target_modules": "all-linear"}
ADALORA = {"method": "adalora", "init_r": 6, "target_r": 3, "total_step": 20, "tinit": 2, "tfinal": 5, "target_modules": ["q_proj", "v_proj"]}
# Float16 has 11 bits: an operator's result is within 2^-11 = 5e-4 of float32's, and a loss is a mean over many of them. (bfloat16: 4e-3.)
TOLERANCE = 5e-4


class Precision(SystemTest):
    def write_fp16(self, steps, initializer_range=0.02, **tables):
        (self.directory / "model/config.json").write_text(json.dumps(TINY | {"initializer_range": initializer_range}))
        train = {"steps": steps, "threads": 1} | FP16["train"] | tables.pop("train", {})
        return self.write_recipe(**{"eval": {"every": 100}} | tables | {"model": FP16["model"], "train": train})

    def write_overflowing(self, steps, rows=1, **tables):
        """One token a step, whose probability is next to nothing: its gradient is the scale, which is too large, and so is that times
        the head's rows."""
        (self.directory / "eval.jsonl").write_text('{"text": "int auto"}\n')
        return self.write_fp16(steps, 2.0, data={"max_length": 2}, batch={"global": rows, "micro": 1}, **tables)

    def train(self, recipe, *arguments, code=0):
        result = self.run_temper("train", recipe, *arguments)
        self.assert_done(result, code)
        return result

    def test_losses_follow_float32s(self):
        for name, tables, learnt in (("full", {}, 1), ("lora", {"peft": LORA}, 0.1), ("adalora", {"peft": ADALORA}, 0.001)):
            with self.subTest(name):
                lines = {}
                for precision in ("fp32", "fp16"):
                    keys = {"model": {"dtype": precision}, "train": {"precision": precision, "steps": 20, "threads": 1}}
                    recipe = self.write_recipe(**tables, **keys, optimizer={"lr": 1e-2}, checkpoint={"every": 100}, eval={"every": 10})
                    self.train(recipe, f"run.name={name}-{precision}")
                    lines[precision] = self.numbers(f"runs/{name}-{precision}")
                self.assertGreater(lines["fp32"][0]["loss"] - lines["fp32"][-1]["loss"], learnt)
                for ours, theirs in zip(lines["fp16"], lines["fp32"], strict=True):
                    self.assertAlmostEqual(ours["loss"], theirs["loss"], delta=TOLERANCE * theirs["loss"])
                    self.assertEqual("eval_loss" in ours, "eval_loss" in theirs)
                    if "eval_loss" in ours:
                        self.assertAlmostEqual(ours["eval_loss"], theirs["eval_loss"], delta=TOLERANCE * theirs["eval_loss"])
                    self.assertEqual(ours["loss_scale"], 65536)
                    self.assertNotIn("skipped_steps", ours)
                    self.assertNotIn("loss_scale", theirs)

    def test_evaluation_generation_and_plans_take_fp16(self):
        recipe = self.write_recipe(train={"steps": 20, "threads": 1}, optimizer={"lr": 1e-2}, checkpoint={"every": 100}, eval={"every": 100})
        self.train(recipe)
        losses, texts = [], []
        for precision in ("fp32", "fp16"):
            keys = ("model.path=runs/test/export", "model.init=pretrained", f"model.dtype={precision}", f"train.precision={precision}")
            result = self.run_temper("eval", recipe, *keys)
            self.assert_done(result)
            losses.append(json.loads(result.stdout.splitlines()[-1])["eval_loss"])
            result = self.run_temper("generate", "runs/test/export", "--prompt", "int auto", "--max-new-tokens", 12, "--dtype", precision)
            self.assert_done(result)
            texts.append(result.stdout)
            self.assert_done(self.run_temper("plan", recipe, *keys))
        self.assertAlmostEqual(losses[0], losses[1], delta=TOLERANCE * losses[0])
        self.assertNotEqual(losses[0], losses[1])
        self.assertEqual(texts[0], texts[1])

    def test_a_step_that_overflows_is_skipped_and_halves_the_scale(self):
        recipe = self.write_overflowing(12, checkpoint={"every": 100})
        self.train(recipe)
        lines = self.metrics()
        skipped = [step for step, line in enumerate(lines, start=1) if "loss" not in line]
        for step, line in enumerate(lines, start=1):
            before = sum(each <= step for each in skipped)
            self.assertEqual((line["step"], line["skipped_steps"], line["loss_scale"]), (step, before, 65536 / 2**before))
        self.assertEqual(skipped[:2], [1, 2])
        self.assertLess(len(skipped), 12)
        # Skipped steps change no weight.
        first = next(step for step in range(1, 13) if step not in skipped)
        exports = []
        for steps in (1, first - 1, first):
            self.train(recipe, "run.name=part", "run.overwrite=true", f"train.steps={steps}", "optimizer.weight_decay=0.1")
            exports.append(self.weights("runs/part"))
        self.assertEqual(exports[0], exports[1])
        self.assertNotEqual(exports[1], exports[2])

    def test_ranks_skip_the_same_steps(self):
        recipe = self.write_overflowing(8, rows=2, run={"deterministic": "layout"})
        self.train(recipe, "run.name=alone")
        self.assert_done(self.run_temper("train", recipe, "parallel.shard=2", "parallel.zero=2", ranks=2))
        self.assertEqual(self.numbers(), self.numbers("runs/alone"))
        self.assertEqual(self.weights(), self.weights("runs/alone"))
        self.assertTrue(1 < self.metrics()[-1]["skipped_steps"] < 8)

    def test_a_resumed_run_has_the_same_bits_among_and_after_overflows(self):
        recipe = self.write_overflowing(12, eval={"every": 2}, schedule={"kind": "constant", "warmup": 0})
        self.train(recipe, "run.name=whole")
        for steps in (2, 10, 12):
            self.train(recipe, "run.resume=auto", f"train.steps={steps}")
        self.assertEqual(self.numbers(), self.numbers("runs/whole"))
        self.assertEqual(self.weights(), self.weights("runs/whole"))
        # Good steps count on towards the next growth.
        last = max(line["step"] for line in self.metrics() if "loss" not in line)
        self.assertTrue(2 < last < 10, last)
        for run in ("test", "whole"):
            saved = json.loads((self.directory / f"runs/{run}/checkpoints/step-000012/state.json").read_text())["loss_scaler"]
            self.assertEqual(saved, {"scale": self.metrics()[-1]["loss_scale"], "good_steps": 12 - last, "overflows": 0})

    def test_a_run_that_overflows_at_every_scale_stops_or_skips_on(self):
        recipe = self.write_fp16(22, initializer_range=1000.0, checkpoint={"every": 100})
        result = self.train(recipe, code=1)
        self.assertIn("20 steps in a row have overflowed in fp16", result.stderr)
        self.assertIn('train.precision = "bf16"', result.stderr)
        self.assertEqual(len(self.metrics()), 19)
        text = (self.directory / recipe).read_text().replace("every = 100", "", 1).partition("[[data.eval]]")[0]
        (self.directory / "trains.toml").write_text(text.replace("[eval]\nevery = 100", "[eval]"))
        self.train("trains.toml", "run.name=on", "train.on_nan=skip")
        self.assertEqual(self.metrics("runs/on")[-1]["skipped_steps"], 22)


if __name__ == "__main__":
    unittest.main(verbosity=2)
