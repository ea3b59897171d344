"""Reinforcement learning as a user runs it: rewards rise, samples are shown, layouts agree, a resumed run gives the same bits."""

import json
import math
import subprocess
import sys
import unittest

from harness import LONG, SOURCE, SystemTest

# Half of the draws of a random model begin with a digit below 5: something to learn within a few steps.
REWARDS = """
[[objective.rewards]]
kind = "regex"
pattern = "^[0-4]"
name = "small"
[[objective.rewards]]
kind = "length"
max = 5
soft = 4
weight = 0.5
"""


class Rollouts(SystemTest):
    """Sums to answer, and a recipe that samples answers from a random model."""

    def setUp(self):
        super().setUp()
        make = SOURCE / "configs/grpo_arithmetic/make_data.py"
        subprocess.run([sys.executable, make, self.directory / "arithmetic"], check=True)

    def recipe(self, kind="grpo", rewards=REWARDS, **objective):
        keys = {"kind": kind, "num_generations": 4, "max_completion_length": 5} | objective
        keys = {key: value for key, value in keys.items() if value is not None}
        lines = [
            '[run]\nname = "test"',
            f'[model]\npath = "{SOURCE}/configs/grpo_arithmetic"\ninit = "random"\ndtype = "fp32"',
            "[data]\nmax_length = 16",
            '[[data.train]]\npath = "arithmetic/prompts.jsonl"',
            '[[data.eval]]\npath = "arithmetic/eval.jsonl"',
            "[objective]",
            *(f"{key} = {json.dumps(value)}" for key, value in keys.items()),
            rewards,
            "[generation]\nexact = true",
            '[optimizer]\nlr = 1e-3\n[schedule]\nkind = "constant"\nwarmup = 0',
            "[batch]\nglobal = 16\nmicro = 4",
            '[train]\nsteps = 6\nprecision = "fp32"\nthreads = 1',
            "[eval]\nevery = 0\n[checkpoint]\nevery = 3\n[log]\nevery = 1",
        ]
        (self.directory / "recipe.toml").write_text("\n".join(lines) + "\n")
        return "recipe.toml"

    def timeless(self, run="runs/test"):
        # The run that ends early evaluates at its last step.
        return [{k: v for k, v in line.items() if k != "generation_time" and not k.startswith("eval_")} for line in self.numbers(run)]


class Grpo(Rollouts):
    def test_metrics_and_samples_are_those_that_trl_users_know(self):
        self.assert_done(self.run_temper("train", self.recipe()))
        lines = self.metrics()
        self.assertEqual([line["step"] for line in lines], [1, 2, 3, 4, 5, 6])
        for line in lines:
            for name in (
                "reward", "reward_std", "frac_reward_zero_std", "rewards/small/mean", "rewards/small/std",
                "rewards/length/mean", "entropy", "clip_ratio/region_mean", "completions/mean_length",
                "completions/clipped_ratio", "completions/mean_terminated_length", "generation_time", "num_tokens",
            ):  # fmt: skip
                self.assertIn(name, line)
            # Sampling and training compute the same numbers in exact mode.
            for part in ("min", "mean", "max"):
                self.assertEqual(line[f"sampling/importance_sampling_ratio/{part}"], 1)
            self.assertEqual(line["sampling/sampling_logp_difference/max"], 0)
        samples = [json.loads(line) for line in (self.directory / "runs/test/samples/step-000001.jsonl").read_text().splitlines()]
        self.assertEqual(len(samples), 16)
        first = lines[0]
        self.assertAlmostEqual(sum(s["rewards/small"] for s in samples) / 16, first["rewards/small/mean"], places=5)
        for s in samples:
            self.assertEqual(s["rewards/small"], float(s["completion"][:1] in tuple("01234")), s)
        for group in range(4):
            self.assertAlmostEqual(sum(s["advantage"] for s in samples[4 * group : 4 * group + 4]), 0, places=4)
        self.assertIn("advantage", (self.directory / "runs/test/report.html").read_text())

    def test_a_resumed_run_gives_the_same_bits_in_the_middle_of_a_generation_batch(self):
        recipe = self.recipe(num_iterations=2, steps_per_generation=8, beta=0.02)
        self.assert_done(self.run_temper("train", recipe, "run.name=whole"))
        self.assert_done(self.run_temper("train", recipe, "train.steps=3"))
        self.assert_done(self.run_temper("train", recipe))
        self.assertEqual(self.weights(), self.weights("runs/whole"))
        self.assertEqual(self.timeless(), self.timeless("runs/whole"))

    def test_online_dpo_prefers_what_scores_higher(self):
        recipe = self.recipe("online_dpo", beta=0.1, num_generations=None)
        self.assert_done(self.run_temper("train", recipe, "batch.global=8", "batch.micro=4", "optimizer.lr=5e-3", "train.steps=12"))
        lines = self.numbers()
        for name in ("objective/scores_margin", "val/contain_eos_token", "objective/rlhf_reward", "rewards/accuracies", "reward"):
            self.assertIn(name, lines[0])
        # At first the policy is the reference: every reward is 0 and the loss log 2.
        self.assertAlmostEqual(lines[0]["loss"], math.log(2), places=5)
        self.assertAlmostEqual(lines[0]["objective/kl"], 0, places=5)
        half = len(lines) // 2
        mean = lambda part: sum(line["rewards/small/mean"] for line in part) / len(part)
        self.assertGreater(mean(lines[half:]), mean(lines[:half]))
        samples = [json.loads(line) for line in (self.directory / "runs/test/samples/step-000001.jsonl").read_text().splitlines()]
        self.assertEqual(len(samples), 16)
        for chosen, rejected in zip(samples[::2], samples[1::2]):
            self.assertEqual(chosen["prompt"], rejected["prompt"])
            self.assertGreaterEqual(chosen["reward"], rejected["reward"])

    def test_two_ranks_follow_one(self):
        for kind, options in (("grpo", {}), ("rloo", {"beta": 0.05}), ("online_dpo", {"num_generations": None}), ("grpo", {"num_iterations": 2, "zero_variance": "skip"})):
            with self.subTest(kind, **options):
                recipe = self.recipe(kind, **options)
                self.assert_done(self.run_temper("train", recipe, "run.name=one", "run.overwrite=true", "run.resume=never"))
                self.assert_done(self.run_temper("train", recipe, "run.overwrite=true", "run.resume=never", ranks=2))
                for one, two in zip(self.metrics("runs/one"), self.metrics(), strict=True):
                    # mfu is there where `temper doctor` has measured that many threads.
                    self.assertEqual(set(one) - {"mfu"}, set(two) - {"mfu", "exchange_time"})
                    for name in {"loss", "reward", "completions/mean_length", "grad_norm"} & one.keys():
                        self.assertAlmostEqual(one[name], two[name], delta=1e-5 * max(1, abs(one[name])), msg=f"{one['step']} {name}")

    def test_evaluation_says_the_mean_reward(self):
        result = self.run_temper("eval", self.recipe())
        self.assert_done(result)
        line = json.loads(result.stdout.splitlines()[-1])
        self.assertIn("eval_reward", line)
        self.assertIn("eval_rewards/small/mean", line)
        self.assertTrue(0 < line["eval_rewards/small/mean"] < 1, line)

    def test_rewards_that_say_nothing_leave_the_weights_alone(self):
        rewards = '[[objective.rewards]]\nkind = "regex"\npattern = "never"\n'
        recipe = self.recipe(rewards=rewards, zero_variance="skip")
        result = self.run_temper("train", recipe, "train.steps=12")
        self.assert_done(result)
        self.assertIn("have all been equal for 10 generation batches", result.stdout)
        self.assertEqual({line["grad_norm"] for line in self.metrics()}, {0})
        self.assertEqual({line["frac_reward_zero_std"] for line in self.metrics()}, {1})

    def first_groups(self, zero_variance):
        """Samples of step 1, a list a prompt, and its metrics; a reward that is often the same for all four."""
        rewards = '[[objective.rewards]]\nkind = "regex"\npattern = "^[0-2]"\nname = "small"\n'
        run = {"run.name": zero_variance, "train.steps": 1}
        self.assert_done(self.run_temper("train", self.recipe(rewards=rewards, zero_variance=zero_variance), *(f"{k}={v}" for k, v in run.items())))
        lines = (self.directory / f"runs/{zero_variance}/samples/step-000001.jsonl").read_text().splitlines()
        samples = [json.loads(line) for line in lines]
        return [samples[i : i + 4] for i in range(0, 16, 4)], self.metrics(f"runs/{zero_variance}")[0]

    def test_groups_of_equal_rewards_are_left_out_or_sampled_anew(self):
        equal = lambda group: len({sample["rewards/small"] for sample in group}) == 1  # noqa: E731
        kept, of_kept = self.first_groups("keep")
        out = [group for group in kept if equal(group)]
        self.assertTrue(0 < len(out) < 4, "a step with groups of both kinds")
        self.assertEqual(of_kept["frac_reward_zero_std"], len(out) / 4)

        skipped, of_skipped = self.first_groups("skip")
        self.assertEqual(skipped, kept)
        self.assertEqual(of_skipped["reward"], of_kept["reward"])  # of all that was sampled
        # Characters are tokens, and what is shorter than the longest has ended in one more.
        tokens = sum(len(s["prompt"]) + min(5, len(s["completion"]) + 1) for group in out for s in group)
        self.assertEqual(of_kept["num_tokens"] - of_skipped["num_tokens"], tokens)
        self.assertNotEqual(of_skipped["loss"], of_kept["loss"])

        anew, of_anew = self.first_groups("resample")
        self.assertEqual(of_anew["frac_reward_zero_std"], 0)
        for group, before in zip(anew, kept, strict=True):
            if equal(before):
                self.assertFalse(equal(group))
                self.assertNotEqual(group[0]["prompt"], before[0]["prompt"])
            else:
                self.assertEqual(group, before)

    def test_the_entropy_bonus_adapts_and_resumes_to_the_same_bits(self):
        # Above any entropy of 13 tokens, so that the coefficient rises with every step until it is at its highest.
        recipe = self.recipe(use_adaptive_entropy=True, entropy_target=3.0, entropy_coef_delta=0.25, entropy_coef_max=1.0)
        whole = (recipe, "batch.micro=16")
        self.assert_done(self.run_temper("train", *whole, "run.name=whole"))
        used = 0
        for line, coefficient in zip(self.metrics("runs/whole"), (0.25, 0.5, 0.75, 1, 1, 1), strict=True):
            self.assertEqual(line["entropy_coef"], coefficient)  # of the next step
            self.assertAlmostEqual(line["loss"], line["policy_loss"] - used * line["policy_entropy"], places=5)
            used = coefficient
        self.assert_done(self.run_temper("train", *whole, "train.steps=3"))
        self.assert_done(self.run_temper("train", *whole))
        self.assertEqual(self.weights(), self.weights("runs/whole"))
        self.assertEqual(self.timeless(), self.timeless("runs/whole"))
        # From above the aim it falls.
        falling = (recipe, "run.name=falling", "train.steps=2", "objective.entropy_target=0.1", "objective.entropy_coef=0.3")
        self.assert_done(self.run_temper("train", *falling))
        for line, coefficient in zip(self.metrics("runs/falling"), (0.05, 0), strict=True):
            self.assertAlmostEqual(line["entropy_coef"], coefficient)
            self.assertAlmostEqual(line["loss"], line["policy_loss"], places=6)  # above the aim there is no bonus

    def test_a_program_scores_completions(self):
        script = self.directory / "score.py"
        script.write_text(
            "import json, sys\n"
            "for line in sys.stdin:\n"
            "    row = json.loads(line)\n"
            "    print(row['completion'].count('1') + (row['answer'] == ''), flush=True)\n"
        )
        rewards = f'[[objective.rewards]]\nkind = "program"\ncommand = {json.dumps([sys.executable, str(script)])}\n'
        self.assert_done(self.run_temper("train", self.recipe(rewards=rewards)))
        text = (self.directory / "runs/test/samples/step-000002.jsonl").read_text()
        for sample in map(json.loads, text.splitlines()):
            self.assertEqual(sample["rewards/program"], sample["completion"].count("1"))

    def test_the_arithmetic_example_learns(self):
        # Half a minute of one core a seed.
        (self.directory / "quickstart").mkdir()
        (self.directory / "arithmetic").rename(self.directory / "quickstart/arithmetic")
        (self.directory / "configs").symlink_to(SOURCE / "configs")
        for seed in (1, 2, 3) if LONG else (1,):
            with self.subTest(seed=seed):
                # Matrices so small gain nothing from a second thread, and lose much where the machine is busy.
                options = (f"run.seed={seed}", "run.overwrite=true", "run.resume=never", "train.threads=1")
                self.assert_done(self.run_temper("train", "configs/grpo_arithmetic_sft.toml", *options, timeout=600))
                self.assert_done(self.run_temper("train", "configs/grpo_arithmetic.toml", *options, timeout=900))
                rewards = [line["reward"] for line in self.metrics("runs/grpo-arithmetic") if "reward" in line]
                self.assertLess(rewards[0], 0.6)
                self.assertGreater(rewards[-1], 0.8)


if __name__ == "__main__":
    unittest.main(verbosity=2)
