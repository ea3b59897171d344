"""PPO as a user runs it: rewards rise, the value head is trained and kept but not exported, layouts agree, a resumed run gives the same bits."""

import json
import struct
import unittest

import grpo_test

SMALL = """
[[objective.rewards]]
kind = "regex"
pattern = "^[0-4]"
name = "small"
"""


def tensors_of(path):
    """Names of a safetensors file."""
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    return {name: entry for name, entry in header.items() if name != "__metadata__"}


class Ppo(grpo_test.Rollouts):
    def recipe(self, kind="ppo", rewards=SMALL, **objective):
        return super().recipe(kind, rewards, **{"num_generations": None} | objective)

    def kept(self, run="runs/test"):
        """The tensors of a run's newest checkpoint."""
        newest = max((self.directory / run / "checkpoints").glob("step-*"))
        return {name: entry for file in newest.glob("*.safetensors") for name, entry in tensors_of(file).items()}

    def test_rewards_rise_and_values_follow(self):
        recipe = self.recipe()
        self.assert_done(self.run_temper("train", recipe, "train.steps=60", "batch.global=64", "batch.micro=64"))
        lines = self.metrics()
        for name in (
            "objective/kl", "objective/entropy", "objective/non_score_reward", "objective/rlhf_reward", "objective/scores",
            "policy/approxkl_avg", "policy/clipfrac_avg", "loss/policy_avg", "loss/value_avg", "val/clipfrac_avg",
            "policy/entropy_avg", "val/ratio", "val/num_eos_tokens", "reward", "rewards/small/mean", "completions/mean_length",
            "sampling/importance_sampling_ratio/mean",
        ):  # fmt: skip
            self.assertIn(name, lines[0])
        # Before the first update the policy is its own reference, and the one that has sampled.
        self.assertEqual(lines[0]["objective/kl"], 0)
        self.assertEqual(lines[0]["val/ratio"], 1)
        self.assertEqual(lines[0]["policy/clipfrac_avg"], 0)
        rewards = [line["reward"] for line in lines if "reward" in line]
        self.assertEqual(len(rewards), 15)  # four steps learn from each generation batch
        self.assertGreater(sum(rewards[-3:]) / 3, sum(rewards[:3]) / 3 + 0.2, rewards)
        self.assertLess(lines[-1]["loss/value_avg"], lines[0]["loss/value_avg"])

    def test_the_value_head_is_kept_and_not_exported(self):
        for name, overrides in (("full", []), ("adapter", ["peft.method=lora", "peft.r=2", "peft.target_modules=all-linear"])):
            with self.subTest(name):
                self.assert_done(self.run_temper("train", self.recipe(), *overrides, f"run.name={name}"))
                kept = self.kept(f"runs/{name}")
                for tensor in ("weights/v_head.summary.weight", "weights/v_head.summary.bias"):
                    self.assertEqual(kept[tensor]["dtype"], "F32")
                self.assertTrue(any(tensor.startswith("optimizer/") and "v_head" in tensor for tensor in kept))
                export = self.directory / "runs" / name / "export"
                file = export / ("model.safetensors" if name == "full" else "adapter_model.safetensors")
                self.assertFalse([tensor for tensor in tensors_of(file) if "v_head" in tensor])
        result = self.run_temper("generate", "runs/full", "--prompt", "1+1=", "--max-new-tokens", "3")
        self.assert_done(result)
        # What a checkpoint is exported as.
        newest = max((self.directory / "runs/full/checkpoints").glob("step-*"))
        self.assert_done(self.run_temper("export", newest, "exported"))
        self.assertEqual((self.directory / "exported/model.safetensors").read_bytes(), self.weights("runs/full"))

    def test_a_resumed_run_gives_the_same_bits_in_the_middle_of_a_generation_batch(self):
        lora = ["peft.method=lora", "peft.r=2", "peft.target_modules=all-linear", "export.merge=false"]
        for name, overrides in (("full", []), ("bf16", ["train.precision=bf16", "model.dtype=bf16"]), ("adapter", lora)):
            with self.subTest(name):
                recipe = self.recipe(steps_per_generation=8)
                whole = f"runs/{name}-whole"
                self.assert_done(self.run_temper("train", recipe, *overrides, f"run.name={name}-whole"))
                self.assert_done(self.run_temper("train", recipe, *overrides, f"run.name={name}", "train.steps=3"))
                self.assert_done(self.run_temper("train", recipe, *overrides, f"run.name={name}"))
                self.assertEqual(self.timeless(f"runs/{name}"), self.timeless(whole))
                for file in (self.directory / whole / "export").glob("*.safetensors"):
                    self.assertEqual((self.directory / "runs" / name / "export" / file.name).read_bytes(), file.read_bytes())

    def test_two_ranks_follow_one(self):
        for options in ({}, {"kl_coef": 0.0, "whiten_rewards": True}):
            with self.subTest(**options):
                recipe = self.recipe(**options)
                again = ["run.overwrite=true", "run.resume=never"]
                self.assert_done(self.run_temper("train", recipe, "run.name=one", *again))
                self.assert_done(self.run_temper("train", recipe, *again, ranks=2))
                for one, two in zip(self.metrics("runs/one"), self.metrics(), strict=True):
                    self.assertEqual(set(one) - {"mfu"}, set(two) - {"mfu", "exchange_time"})
                    for name in {"loss", "reward", "loss/value_avg", "objective/kl", "grad_norm"} & one.keys():
                        self.assertAlmostEqual(one[name], two[name], delta=1e-5 * max(1, abs(one[name])), msg=f"{one['step']} {name}")

    def test_evaluation_says_the_mean_reward(self):
        self.assert_done(self.run_temper("train", self.recipe()))
        result = self.run_temper("eval", self.recipe(), "--checkpoint", "last")
        self.assert_done(result)
        line = json.loads(result.stdout.splitlines()[-1])
        for name in ("eval_reward", "eval_loss", "eval_loss/value_avg", "eval_objective/kl"):
            self.assertIn(name, line)

    def test_what_does_not_go_together_is_refused(self):
        for overrides, says in (
            (["objective.num_generations=4"], r"objective\.num_generations.*belongs to grpo and rloo"),
            (["objective.beta=0.1"], r"objective\.beta.*not to objective\.kind = .ppo"),
            (["objective.cliprange=0"], r"objective\.cliprange"),
            (["objective.lam=1.5"], r"objective\.lam"),
            (["objective.missing_eos_penalty=-1"], r"objective\.missing_eos_penalty"),
            (["objective.kl_coef=0", "objective.ref_model=model"], r"objective\.ref_model.*kl_coef = 0"),
            (["objective.value_model=model"], r"objective\.value_model.*value head"),
            (["objective.num_ppo_epochs=2"], r"objective\.num_ppo_epochs.*num_iterations"),
        ):
            with self.subTest(overrides):
                result = self.run_temper("train", self.recipe(), *overrides)
                self.assertEqual(result.returncode, 2, result.stderr)
                self.assertRegex(result.stderr, says)


if __name__ == "__main__":
    unittest.main(verbosity=2)
