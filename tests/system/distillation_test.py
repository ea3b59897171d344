"""Distillation as a user runs it: a student nears its teacher, on rows as they stand and on answers that are sampled in each step; layouts
agree, a resumed run gives the same bits, and what does not fit together is refused."""

import json
import random
import shutil
import unittest

from harness import TINY, SystemTest, made_up_text, write_rows

TEACHER = dict(TINY, hidden_size=48, num_attention_heads=6, num_key_value_heads=2, num_hidden_layers=1)


class Distillation(SystemTest):
    def setUp(self):
        super().setUp()
        write_rows(self.directory / "train.jsonl", 60, seed=1, kind="completion")
        write_rows(self.directory / "eval.jsonl", 12, seed=2, kind="completion")
        rng = random.Random(3)
        for name, rows in (("asked", 40), ("asked-eval", 10)):
            lines = [json.dumps({"prompt": made_up_text(rng, rng.randint(2, 12))}) for _ in range(rows)]
            (self.directory / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
        # The teacher is another shape that has learnt the rows for a few steps.
        self.teach("teacher", TEACHER)

    def teach(self, name, config):
        base = self.directory / f"{name}-base"
        shutil.copytree(self.directory / "model", base)
        (base / "config.json").write_text(json.dumps(config))
        recipe = self.write_recipe(f"{name}.toml", run={"name": name}, model={"path": f"{name}-base"}, optimizer={"lr": 1e-2},
                                   train={"steps": 8, "threads": 1}, eval={"every": 0}, checkpoint={"every": 0})
        self.assert_done(self.run_temper("train", recipe))

    def recipe(self, kind="gkd", steps=6, **objective):
        keys = {"kind": kind, "teacher": "runs/teacher/export"} | objective
        if keys.get("lmbda", 0.5 if kind == "gkd" else 0) > 0 or keys.get("seq_kd"):
            keys.setdefault("max_completion_length", 12)
        return self.write_recipe(objective=keys, train={"steps": steps, "threads": 1}, schedule={"kind": "constant", "warmup": 0},
                                 checkpoint={"every": 3}, eval={"every": 0}, generation={"exact": True})

    def timeless(self, run="runs/test"):
        # The run that ends early evaluates at its last step.
        return [{k: v for k, v in line.items() if not k.startswith("eval_")} for line in self.numbers(run)]

    def samples(self, step, run="runs/test"):
        path = self.directory / run / f"samples/step-{step:06}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def test_rows_as_they_stand_bring_the_student_nearer(self):
        for kind in ("gkd", "distill"):
            with self.subTest(kind):
                recipe = self.recipe(kind, steps=15, lmbda=0)
                self.assert_done(self.run_temper("train", recipe, "run.overwrite=true", "run.resume=never", "optimizer.lr=1e-2"))
                lines = self.metrics()
                self.assertLess(lines[-1]["loss"], 0.7 * lines[0]["loss"])
                for line in lines:
                    self.assertIn("entropy", line)
                    self.assertIn("mean_token_accuracy", line)
                    self.assertNotIn("completions/mean_length", line)
                self.assertGreater(lines[-1]["eval_loss"], 0)

    def test_two_ranks_follow_one(self):
        for kind, options in (("distill", {}), ("gkd", {"lmbda": 0}), ("gkd", {"lmbda": 0.5, "seq_kd": True})):
            with self.subTest(kind, **options):
                recipe = self.recipe(kind, **options)
                self.assert_done(self.run_temper("train", recipe, "run.name=one", "run.overwrite=true", "run.resume=never"))
                self.assert_done(self.run_temper("train", recipe, "run.overwrite=true", "run.resume=never", ranks=2))
                for one, two in zip(self.metrics("runs/one"), self.metrics(), strict=True):
                    for name in {"loss", "entropy", "grad_norm", "eval_loss", "completions/mean_length"} & one.keys():
                        self.assertAlmostEqual(one[name], two[name], delta=1e-5 * max(1, abs(one[name])), msg=f"{one['step']} {name}")

    def test_a_share_of_the_rows_is_answered_anew(self):
        self.assert_done(self.run_temper("train", self.recipe(lmbda=0.5)))
        counts = [len(self.samples(step)) for step in range(1, 7)]
        self.assertTrue(all(count < 8 for count in counts) and 12 < sum(counts) < 36, counts)
        for sample in self.samples(1):
            self.assertEqual(set(sample) & {"advantage", "rewards"}, set())
            self.assertTrue(sample["prompt"])
        lines = self.metrics()
        for line in lines:
            for name in ("entropy", "completions/mean_length", "completions/clipped_ratio", "completions/mean_terminated_length"):
                self.assertIn(name, line)
        # The evaluation set is taken as it stands.
        self.assertNotIn("eval_completions/mean_length", lines[-1])

    def test_the_teacher_answers_what_the_student_does_not(self):
        self.assert_done(self.run_temper("train", self.recipe(lmbda=0.25, seq_kd=True)))
        self.assertEqual([len(self.samples(step)) for step in range(1, 7)], [8] * 6)

    def test_prompts_alone_are_answered_in_training_and_evaluation(self):
        recipe = self.recipe("distill", lmbda=1)
        prompts = ("data.train.0.path=asked.jsonl", "data.eval.0.path=asked-eval.jsonl", "eval.every=3")
        self.assert_done(self.run_temper("train", recipe, *prompts))
        lines = self.metrics()
        self.assertIn("eval_completions/mean_length", lines[-1])
        self.assertEqual(len(self.samples(6)), 8)
        # The same draws at every evaluation.
        first, again = (json.loads(self.run_temper("eval", recipe, *prompts).stdout.splitlines()[-1]) for _ in range(2))
        self.assertEqual(first["eval_loss"], again["eval_loss"])

    def test_a_resumed_run_gives_the_same_bits(self):
        for options in ({"lmbda": 0}, {"lmbda": 0.5, "seq_kd": True}):
            with self.subTest(**options):
                recipe = self.recipe(**options)
                self.assert_done(self.run_temper("train", recipe, "run.name=whole", "run.overwrite=true", "run.resume=never"))
                self.assert_done(self.run_temper("train", recipe, "train.steps=3", "run.overwrite=true", "run.resume=never"))
                self.assert_done(self.run_temper("train", recipe))
                self.assertEqual(self.weights(), self.weights("runs/whole"))
                self.assertEqual(self.timeless(), self.timeless("runs/whole"))

    def test_an_adapter_learns_from_a_teacher(self):
        peft = ("peft.method=lora", "peft.r=4", "peft.target_modules=all-linear", "model.path=runs/teacher/export", "model.init=pretrained")
        self.assert_done(self.run_temper("train", self.recipe(lmbda=0.5), *peft, "train.precision=bf16",
                                         "train.activation_checkpointing=full"))
        # A student that is its teacher, until the adapter moves it.
        self.assertLess(self.metrics()[0]["loss"], 1e-3)

    def test_what_does_not_fit_together_is_refused(self):
        wider = dict(TEACHER, vocab_size=4100)
        self.teach("wider", wider)
        renamed = self.directory / "renamed"
        shutil.copytree(self.directory / "runs/teacher/export", renamed)
        tokenizer = json.loads((renamed / "tokenizer.json").read_text())
        vocabulary = tokenizer["model"]["vocab"]
        first, second = sorted(vocabulary, key=vocabulary.get)[1000:1002]
        vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
        (renamed / "tokenizer.json").write_text(json.dumps(tokenizer))
        asked = ("data.train.0.path=asked.jsonl",)
        for overrides, expected in (
            (("objective.teacher=nowhere",), r'objective\.teacher = "nowhere": no such directory'),
            (("objective.teacher=runs/wider/export",), r"vocab_size = 4100, but model has 4096"),
            (("objective.teacher=renamed",), r"its tokenizer\.json calls token \d+ .*, that of model "),
            (asked, r"asked\.jsonl.*objective\.lmbda = 1 .*objective\.seq_kd = true"),
            ((*asked, "objective.lmbda=0.9"), r"asked\.jsonl.*objective\.lmbda = 1 .*objective\.seq_kd = true"),
            ((*asked, "objective.lmbda=1", "data.on_long_row=truncate"), r"one without its end is another prompt"),
            (("objective.lmbda=1", "objective.max_completion_length=500"), r"max_position_embeddings = 512"),
        ):
            with self.subTest(overrides):
                result = self.run_temper("train", self.recipe("distill"), *overrides)
                self.assertEqual(result.returncode, 2, result.stderr)
                self.assertRegex(result.stderr, expected)
                self.assertEqual(len(result.stderr.strip().splitlines()), 1, result.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
