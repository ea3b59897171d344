"""gkd and distill of the whole program against TRL, live: what `temper eval` says of rows as they stand equals TRL's divergences of the same
models, and training follows GKDTrainer's own loop.

    python tests/parity/check_distillation.py PROGRAM

Needs the reference packages (launch/setup.sh --peers), no network and no data: models are random and tiny.
"""

import argparse
import json
import tempfile
import unittest
from pathlib import Path

import torch
from datasets import load_dataset
from transformers import AutoTokenizer
from trl.experimental.gkd import GKDConfig, GKDTrainer
from trl.trainer.distillation_trainer import _chunked_divergence_loss

import check_adapters
from check_adapters import base_model, make_base, make_rows, temper, toml_table

ROWS = 12
MICRO = 4
STEPS = 12
EVALUATED = [("gkd", 0.0, 1.0), ("gkd", 0.5, 1.0), ("gkd", 1.0, 1.0), ("distill", 0.1, 0.9), ("distill", 1.0, 1.0), ("distill", 0.0, 2.0)]


class Distillation(unittest.TestCase):
    longMessage = True

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="temper-distillation-")
        cls.directory = Path(cls.folder.name)
        torch.set_num_threads(1)
        torch.manual_seed(1)
        cls.student = make_base("llama", cls.directory / "student")
        cls.teacher = make_base("qwen3", cls.directory / "teacher", width=64)
        cls.rows = make_rows(cls.directory / "rows.jsonl", ROWS)
        cls.tokenizer = AutoTokenizer.from_pretrained(cls.student)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def collate(self, rows):
        """Prompts and completions as SFTTrainer makes them, padded at the end."""
        documents = []
        for row in rows:
            prompt = self.tokenizer(row["prompt"])["input_ids"]
            ids = self.tokenizer(row["prompt"] + row["completion"])["input_ids"] + [self.tokenizer.eos_token_id]
            documents.append((ids, [-100] * len(prompt) + ids[len(prompt) :]))
        width = max(len(ids) for ids, _ in documents)
        padded = lambda values, fill: torch.tensor([list(v) + [fill] * (width - len(v)) for v in values])
        return {
            "input_ids": padded([ids for ids, _ in documents], 0),
            "attention_mask": padded([[1] * len(ids) for ids, _ in documents], 0),
            "labels": padded([labels for _, labels in documents], -100),
        }

    def write_recipe(self, name, kind, beta, temperature=1.0, **tables):
        tables = {
            "run": {"name": name, "overwrite": True, "resume": "never"},
            "model": {"path": str(self.student), "dtype": "fp32"},
            "data": {"max_length": 64, "shuffle": False, "packing": "none"},
            "objective": {"kind": kind, "teacher": str(self.teacher), "beta": beta, "lmbda": 0.0},
            **({"generation": {"temperature": temperature}} if kind == "distill" else {}),
            "optimizer": {"lr": 1e-3},
            "schedule": {"kind": "constant"},
            "batch": {"global": MICRO, "micro": MICRO},
            "train": {"steps": STEPS, "precision": "fp32", "threads": 1},
            "log": {"every": 1, "samples": False, "tensorboard": False},
            **tables,
        }
        sources = "".join(f'[[data.{which}]]\npath = "{self.rows}"\n' for which in ("train", "eval"))
        text = "\n".join(toml_table(key, values) for key, values in tables.items()) + sources
        (self.directory / "recipe.toml").write_text(text, encoding="utf-8")

    def assert_close(self, ours, theirs, tolerance, what):
        self.assertLessEqual(abs(ours - theirs), tolerance * max(1.0, abs(theirs)), f"{what}: {ours} against TRL's {theirs}")

    def test_evaluation(self):
        batch = self.collate([json.loads(line) for line in self.rows.read_text().splitlines()])
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        mask = (batch["labels"][:, 1:] != -100).long()
        student, teacher = base_model(self.student), base_model(self.teacher)
        for kind, beta, temperature in EVALUATED:
            for packing in ("none", "bfd"):
                with self.subTest(kind=kind, beta=beta, temperature=temperature, packing=packing), torch.no_grad():
                    loss, entropy, count = _chunked_divergence_loss(
                        student.model(**inputs).last_hidden_state[:, :-1], teacher.model(**inputs).last_hidden_state[:, :-1],
                        student.lm_head.weight, teacher.lm_head.weight, mask, beta, temperature=temperature)
                    self.write_recipe("eval", kind, beta, temperature, data={"max_length": 64, "packing": packing})
                    ours = json.loads(temper("eval", "recipe.toml", cwd=self.directory).splitlines()[-1])
                    self.assert_close(ours["eval_loss"], loss.item(), 1e-5, "eval_loss")
                    self.assert_close(ours["eval_entropy"], (entropy / count).item(), 1e-5, "eval_entropy")

    def test_training_follows_gkd(self):
        for beta in (0.0, 0.5, 1.0):
            with self.subTest(beta=beta):
                args = GKDConfig(output_dir=str(self.directory / "trl"), per_device_train_batch_size=MICRO, bf16=False, use_cpu=True, report_to=[],
                                 gradient_checkpointing=False, save_strategy="no", logging_steps=1, max_length=64, disable_tqdm=True,
                                 train_sampling_strategy="sequential", lmbda=0.0, beta=beta, max_steps=STEPS, learning_rate=1e-3,
                                 lr_scheduler_type="constant", max_grad_norm=1.0)
                data = load_dataset("json", data_files=str(self.rows), split="train", cache_dir=str(self.directory / "datasets"))
                trainer = GKDTrainer(model=base_model(self.student), teacher_model=base_model(self.teacher), args=args, train_dataset=data,
                                     processing_class=self.tokenizer, data_collator=self.collate)
                trainer.train()
                self.write_recipe("train", "gkd", beta)
                temper("train", "recipe.toml", cwd=self.directory)
                lines = (self.directory / "runs/train/metrics.jsonl").read_text().splitlines()
                ours = [line for line in map(json.loads, lines) if "loss" in line]
                theirs = [line for line in trainer.state.log_history if "loss" in line]
                self.assertEqual((len(ours), len(theirs)), (STEPS, STEPS))
                for step, (mine, other) in enumerate(zip(ours, theirs)):
                    # Rounding grows along the steps.
                    tolerance = 1e-5 if step == 0 else 1e-4
                    self.assert_close(mine["loss"], other["loss"], tolerance, f"loss of step {step + 1}")
                    self.assert_close(mine["grad_norm"], other["grad_norm"], 10 * tolerance, f"norm of step {step + 1}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", type=Path)
    arguments = parser.parse_args()
    check_adapters.PROGRAM = arguments.program.resolve()
    unittest.main(argv=["check_distillation.py"], verbosity=2)
