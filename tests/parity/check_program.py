"""The whole program against transformers, live: training, export, evaluation, generation.

    python tests/parity/check_program.py PROGRAM

Needs the reference packages (launch/setup.sh --peers). With shared/ beside the checkout the real tiny Llama is used too; without it
that part is skipped, visibly.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import check_tensorboard
import reference_loop

SOURCE = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("TEMPER_SHARED", SOURCE.parent / "shared"))
STORIES = SHARED / "models/stories260K"
PROGRAM = "temper"
ENVIRONMENT = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
WORDS = "int auto const size_t return std vector string for while if else struct class template typename void".split()


def temper(*arguments, ranks=1, cwd):
    launcher = ["mpirun", "-n", str(ranks), "--oversubscribe"] if ranks > 1 else []
    result = subprocess.run([*launcher, PROGRAM, *map(str, arguments)], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
    if result.returncode != 0:
        raise AssertionError(f"{arguments} ended with {result.returncode}:\n{result.stdout}\n{result.stderr}")
    return result.stdout


class Program(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="temper-parity-")
        self.addCleanup(folder.cleanup)
        self.directory = Path(folder.name)
        torch.set_num_threads(1)  # two threads of small products wait for each other more than they compute
        torch.manual_seed(int(os.environ.get("TEMPER_SEED", "1")))

    def random_model(self, **changes):
        config = AutoConfig.from_pretrained(SOURCE / "configs/quickstart")
        for key, value in {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
                           "num_key_value_heads": 2, "head_dim": 12, "tie_word_embeddings": False, **changes}.items():  # fmt: skip
            setattr(config, key, value)
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(self.directory / "model")
        AutoTokenizer.from_pretrained(SOURCE / "configs/quickstart").save_pretrained(self.directory / "model")
        return self.directory / "model"

    def metrics(self, run):
        with open(self.directory / "runs" / run / "metrics.jsonl", encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def rows(self, count):
        """GSM8K's short questions where it is at hand, else made-up prompts and completions."""
        path = self.directory / "rows.jsonl"
        gsm8k = SHARED / "data/sft/gsm8k_train.jsonl"
        with open(path, "w", encoding="utf-8") as file:
            if gsm8k.exists():
                rows = [json.loads(line) for line in gsm8k.read_text(encoding="utf-8").splitlines()]
                for row in [row for row in rows if len(row["question"]) < 150][:count]:
                    file.write(json.dumps({"prompt": row["question"] + "\n", "completion": row["answer"]}) + "\n")
            else:
                rng = random.Random(1)
                for _ in range(count):
                    text = [" ".join(rng.choice(WORDS) for _ in range(rng.randint(3, 60))) for _ in range(2)]
                    file.write(json.dumps({"prompt": text[0], "completion": " " + text[1]}) + "\n")
        return path

    def test_fifty_steps_follow_the_reference_on_1_2_and_4_ranks_packed_and_unpacked(self):
        # Several epochs with a short last step each, two micro-batches a rank and step.
        settings = dict(steps=50, batch=8, lr=1e-3, max_norm=1.0, max_length=384, warmup=2)
        for model in [self.random_model()] + ([STORIES] if STORIES.exists() else []):
            rows = self.rows(60)
            for packing in ("none", "bfd"):
                expected = reference_loop.train(model, rows, packing=packing, **settings)
                for ranks in (1, 2, 4):
                    with self.subTest(model=model.name, ranks=ranks, packing=packing):
                        self.follow(expected, model, rows, settings, ranks, packing)

    def follow(self, expected, model, rows, settings, ranks, packing):
        (self.directory / "recipe.toml").write_text(
            f"""
[run]
name = "parity"
[model]
dtype = "fp32"
[data]
max_length = {settings["max_length"]}
packing = "{packing}"
shuffle = false
[[data.train]]
path = "{rows}"
[optimizer]
lr = {settings["lr"]}
max_grad_norm = {settings["max_norm"]}
[schedule]
kind = "cosine"
warmup = {settings["warmup"]}
[batch]
global = {settings["batch"]}
micro = {settings["batch"] // (2 * ranks)}
[train]
steps = {settings["steps"]}
precision = "fp32"
[checkpoint]
every = 0
[log]
every = 1
samples = false
"""
        )
        temper("train", "recipe.toml", f"model.path={model}", "run.overwrite=true", ranks=ranks, cwd=self.directory)
        lines = self.metrics("parity")
        self.assertEqual(len(lines), len(expected))
        for line, (loss, norm) in zip(lines, expected):
            # 1e-4 relative: 50 AdamW steps amplify the last places of float32 sums taken in another order.
            self.assertAlmostEqual(line["loss"] / loss, 1, delta=1e-4, msg=f"step {line['step']}")
            self.assertAlmostEqual(line["grad_norm"] / norm, 1, delta=2e-3, msg=f"step {line['step']}")
        worst = max(abs(line["loss"] / loss - 1) for line, (loss, _) in zip(lines, expected))
        print(f"{model.name}, {packing}, {ranks} ranks: {lines[-1]['epoch']:.1f} epochs, largest relative difference of a loss {worst:.1e}")

    def test_the_export_loads_and_gives_the_same_loss(self):
        model = self.random_model(tie_word_embeddings=True)
        rows = self.rows(24)
        (self.directory / "recipe.toml").write_text(
            f"""
[run]
name = "export"
[model]
path = "{model}"
dtype = "fp32"
[data]
max_length = 256
[[data.train]]
path = "{rows}"
[[data.eval]]
path = "{rows}"
[batch]
global = 4
micro = 2
[train]
steps = 5
precision = "fp32"
"""
        )
        temper("train", "recipe.toml", ranks=2, cwd=self.directory)
        ours = self.metrics("export")[-1]["eval_loss"]
        self.assertGreater(check_tensorboard.check(self.directory / "runs/export"), 0)
        exported = self.directory / "runs/export/export"
        tokenizer = AutoTokenizer.from_pretrained(exported)
        theirs = reference_loop.evaluation_loss(exported, reference_loop.encode(tokenizer, rows, 256))
        self.assertAlmostEqual(ours / theirs, 1, delta=1e-5)

    @unittest.skipUnless(STORIES.exists(), "shared/models is not there")
    def test_greedy_generation_equals_transformers_for_200_tokens(self):
        tokenizer = AutoTokenizer.from_pretrained(STORIES)
        model = AutoModelForCausalLM.from_pretrained(STORIES, dtype=torch.float32)
        for prompt in ("Once upon a time", "The dog", "Lily and Tom went to the park."):
            with self.subTest(prompt):
                ids = tokenizer(prompt, return_tensors="pt")
                theirs = model.generate(**ids, max_new_tokens=200, do_sample=False)[0, ids["input_ids"].shape[1] :]
                text = tokenizer.decode(theirs, skip_special_tokens=True)
                ours = temper("generate", STORIES, "--prompt", prompt, "--max-new-tokens", 200, "--dtype", "fp32", cwd=self.directory)
                self.assertEqual(ours.removesuffix("\n").strip(), text.strip())

    @unittest.skipUnless(STORIES.exists() and (SHARED / "data/lm").exists(), "shared/models or shared/data is not there")
    def test_evaluation_on_tinyshakespeare_equals_transformers(self):
        text = (SHARED / "data/lm/tinyshakespeare.txt").read_text()[:60000]
        (self.directory / "text.txt").write_text(text)
        (self.directory / "recipe.toml").write_text(
            f"""
[model]
path = "{STORIES}"
dtype = "fp32"
[data]
max_length = 256
[[data.eval]]
path = "text.txt"
[train]
precision = "fp32"
"""
        )
        ours = json.loads(temper("eval", "recipe.toml", cwd=self.directory).splitlines()[-1])
        tokenizer = AutoTokenizer.from_pretrained(STORIES)
        ids = tokenizer(text)["input_ids"] + [tokenizer.eos_token_id]
        pieces = [ids[i : i + 256] for i in range(0, len(ids), 256)]
        theirs = reference_loop.evaluation_loss(STORIES, [(piece, piece) for piece in pieces if len(piece) > 1])
        self.assertEqual(ours["eval_num_tokens"], len(ids))
        self.assertAlmostEqual(ours["eval_loss"] / theirs, 1, delta=1e-5)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    PROGRAM = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=2)
