"""GRPO of the whole program against TRL, live: both are given the same completions, and rewards, advantages, losses, gradients and
weights of a whole run are the same.

    python tests/parity/check_grpo.py PROGRAM

Temper samples; TRL's GRPOTrainer, whose generation is replaced by what samples/ holds of the same step, scores and learns for itself. The
tokenizer of configs/grpo_arithmetic has a token for each character, so that text says which tokens were sampled.

Needs the reference packages (launch/setup.sh --peers), no network and no data: the model is random and tiny.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import torch
from datasets import load_dataset
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer
from trl.rewards import get_soft_overlong_punishment

import check_adapters
from check_adapters import SOURCE, temper, toml_table

STEPS = 5
GROUP = 4
GLOBAL = 16
MICRO = 8
LONGEST = 6
PATTERN = "^[0-4]"
REWARDS = f"""
[[objective.rewards]]
kind = "regex"
name = "small"
pattern = "{PATTERN}"
[[objective.rewards]]
kind = "length"
name = "soft_overlong_punishment_reward"
weight = 0.5
max = {LONGEST - 1}
soft = 3
"""
NUMBERS = (
    "loss grad_norm reward reward_std frac_reward_zero_std rewards/small/mean rewards/small/std rewards/soft_overlong_punishment_reward/mean "
    "rewards/soft_overlong_punishment_reward/std completions/mean_length completions/clipped_ratio completions/mean_terminated_length"
).split()
OF_TOKENS = ["kl", "entropy"]  # TRL: a mean of the micro-batches' means, so only of a step that is not cut
# Float32 sums in another order, over five steps: ten times the largest difference measured, 1e-6 (of a gradient's norm).
CURVES = 1e-5
# AdamW divides a gradient by its own size: where that is near zero rounding decides about a part of a step, which is LR long. A tenth of
# one step; measured 2.5e-5 in a few elements, 1e-6 in the others.
LR = 1e-3
WEIGHTS = LR / 10


def small(completions, **_):
    return [1.0 if re.search(PATTERN, completion) else 0.0 for completion in completions]


class Replayed(GRPOTrainer):
    """Says what has been said before, step by step: `recorded` holds lines of samples/."""

    recorded = []

    def _generate_single_turn(self, prompt_ids, *_, **__):
        lines = self.recorded[self.state.global_step]
        prompts = self.processing_class.batch_decode(prompt_ids)
        assert prompts == [line["prompt"] for line in lines], "both take the prompts in the order of the file"
        completions = []
        for line in lines:
            ids = self.processing_class(line["completion"])["input_ids"]
            ended = [] if len(ids) == LONGEST else [self.processing_class.eos_token_id]
            completions.append(ids + ended)
        return completions, None


class Grpo(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="temper-grpo-")
        cls.directory = Path(cls.folder.name)
        torch.set_num_threads(1)
        torch.manual_seed(1)
        example = SOURCE / "configs/grpo_arithmetic"
        subprocess.run([sys.executable, example / "make_data.py", cls.directory], check=True)
        cls.model = cls.directory / "model"
        AutoTokenizer.from_pretrained(example).save_pretrained(cls.model)
        AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(example), dtype=torch.float32).save_pretrained(cls.model)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def run_temper(self, name, options):
        tables = {
            "run": {"name": name},
            "model": {"path": str(self.model), "dtype": "fp32"},
            "data": {"max_length": 16, "shuffle": False},
            "objective": {"kind": "grpo", "num_generations": GROUP, "max_completion_length": LONGEST, **options},
            "optimizer": {"lr": LR},
            "schedule": {"kind": "constant", "warmup": 0},
            "batch": {"global": GLOBAL, "micro": MICRO},
            "train": {"steps": STEPS, "precision": "fp32", "threads": 1},
            "log": {"every": 1, "tensorboard": False},
        }
        text = "\n".join(toml_table(key, values) for key, values in tables.items() if key != "data")
        text += toml_table("data", tables["data"]) + f'[[data.train]]\npath = "{self.directory / "prompts.jsonl"}"\n' + REWARDS
        (self.directory / "recipe.toml").write_text(text, encoding="utf-8")
        temper("train", "recipe.toml", cwd=self.directory)
        return self.directory / "runs" / name

    def run_trl(self, options, recorded, micro):
        args = GRPOConfig(
            output_dir=str(self.directory / "trl"), per_device_train_batch_size=micro, gradient_accumulation_steps=GLOBAL // micro,
            num_generations=GROUP, max_completion_length=LONGEST, max_steps=STEPS, learning_rate=LR, lr_scheduler_type="constant",
            shuffle_dataset=False, reward_weights=[1.0, 0.5], model_init_kwargs={"dtype": "float32"}, bf16=False, use_cpu=True,
            gradient_checkpointing=False, logging_steps=1, save_strategy="no", report_to=[], disable_tqdm=True, **options,
        )  # fmt: skip
        data = load_dataset("json", data_files=str(self.directory / "prompts.jsonl"), split="train", cache_dir=str(self.directory / "cache"))
        tokenizer = AutoTokenizer.from_pretrained(self.model)
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        trainer = Replayed(model=str(self.model), reward_funcs=[small, get_soft_overlong_punishment(LONGEST - 1, 3)], args=args,
                           train_dataset=data, processing_class=tokenizer)  # fmt: skip
        trainer.recorded = recorded
        trainer.train()
        return trainer

    def check(self, **options):
        run = self.run_temper(options["loss_type"], options)
        samples = sorted((run / "samples").glob("step-*.jsonl"))
        recorded = [[json.loads(line) for line in file.read_text().splitlines()] for file in samples]
        ours = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        self.assertEqual((len(recorded), len(ours)), (STEPS, STEPS))
        self.assertGreater(max(line["kl"] for line in ours), 1e-2, "the policy has not moved")
        self.assertGreater(min(line["reward_std"] for line in ours), 0.1, "there is nothing to learn from")
        exported = load_file(run / "export/model.safetensors")
        for micro in (GLOBAL, MICRO):
            with self.subTest(micro=micro, **options):
                trainer = self.run_trl(options, recorded, micro)
                theirs = [line for line in trainer.state.log_history if "loss" in line]
                self.assert_curves(ours, theirs, NUMBERS + (OF_TOKENS if micro == GLOBAL else []))
                weights = trainer.model.state_dict()
                apart = {name: (values - weights[name]).abs().max().item() for name, values in exported.items()}
                self.assertLess(max(apart.values()), WEIGHTS, apart)

    def assert_curves(self, ours, theirs, names):
        for step, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            for name in names:
                self.assertAlmostEqual(mine[name], other[name], delta=CURVES * max(1, abs(other[name])), msg=f"{name} of step {step + 1}")

    def test_dapo(self):
        self.check(loss_type="dapo", beta=0.04)

    def test_grpo(self):
        self.check(loss_type="grpo", beta=0.04)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", type=Path)
    check_adapters.PROGRAM = str(parser.parse_args().program.resolve())
    unittest.main(argv=["check_grpo.py"], verbosity=2)
