"""What `temper plan` predicts beside what the same recipe reaches: three sizes, full, LoRA and QLoRA, with and without activation
checkpointing.

    python tests/bench/plan_accuracy.py PROGRAM                            the peak of memory
    python tests/bench/plan_accuracy.py PROGRAM --time [--threads 1 2] [--steps 4]    seconds a step

Time is predicted from what `temper doctor` measures first, in the same run with as many threads; what a step takes is the least of
its steps but the first (other work on the machine only slows one). Ends with 1 when a peak is more than 10 % off, or a step more than
15 %. Models are drawn, rows are made up; needs no reference package.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]
SIZES = {
    "small": {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 6},
    "medium": {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8},
    "large": {"hidden_size": 768, "intermediate_size": 2304, "num_hidden_layers": 12},
}
LORA = "peft.r=16 peft.target_modules=all-linear"
FULL_CHECKPOINTING = "train.activation_checkpointing=full"
RECIPES = [
    ("small", "train.precision=fp32 model.dtype=fp32"),
    ("small", f"{LORA} model.quantize=nf4"),
    ("medium", ""),
    ("medium", FULL_CHECKPOINTING),
    ("medium", LORA),
    ("medium", f"{LORA} {FULL_CHECKPOINTING}"),
    ("medium", f"{LORA} model.quantize=nf4"),
    ("medium", f"{LORA} model.quantize=int8 train.activation_checkpointing=selective"),
    ("large", LORA),
    ("large", f"{LORA} model.quantize=nf4 {FULL_CHECKPOINTING}"),
]
FP32 = "train.precision=fp32 model.dtype=fp32"
TIMED = [
    ("small", FP32),
    ("small", ""),
    ("small", f"{LORA} model.quantize=nf4"),
    ("medium", FP32),
    ("medium", ""),
    ("medium", FULL_CHECKPOINTING),
    ("medium", f"{LORA} {FP32}"),
    ("medium", LORA),
    ("medium", f"{LORA} model.quantize=nf4"),
    ("large", FP32),
    ("large", ""),
    ("large", LORA),
    ("large", f"{LORA} model.quantize=nf4 {FULL_CHECKPOINTING}"),
]


def write_inputs(directory):
    for name, size in SIZES.items():
        model = directory / name
        model.mkdir()
        config = {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 32000, "num_attention_heads": 8,
            "num_key_value_heads": 4, "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "tie_word_embeddings": False, **size,
        }  # fmt: skip
        (model / "config.json").write_text(json.dumps(config))
        for file in (SOURCE / "configs/quickstart").glob("tokenizer*.json"):
            (model / file.name).write_bytes(file.read_bytes())
    draw = random.Random(1)
    words = "return const auto vector string template class inline namespace static".split()
    with open(directory / "rows.jsonl", "w", encoding="utf-8") as file:
        for _ in range(64):
            file.write(json.dumps({"text": " ".join(draw.choices(words, k=700))}) + "\n")
    (directory / "recipe.toml").write_text(
        f"""
[run]
name = "plan"
output = "{directory}/runs"
overwrite = true
[model]
path = ""
init = "random"
[data]
max_length = 512
packing = "none"
on_long_row = "truncate"
cache = "{directory}/cache"
[[data.train]]
path = "{directory}/rows.jsonl"
[batch]
global = 8
micro = 8
[train]
steps = 3
[checkpoint]
async = false
[log]
every = 1
tensorboard = false
"""
    )


class Bench:
    def __init__(self, program, directory):
        self.program = program
        self.directory = directory
        write_inputs(directory)

    def temper(self, command, *arguments, threads=None):
        environment = dict(os.environ, HOME=str(self.directory))  # where doctor keeps its rates
        if threads:
            environment["TEMPER_CORES"] = f"0-{threads - 1}"
        done = subprocess.run([self.program, command, *arguments], check=True, capture_output=True, text=True, env=environment)
        return done.stdout

    def arguments(self, size, settings):
        return [str(self.directory / "recipe.toml"), f"model.path={self.directory / size}", "train.device=cpu", *settings.split()]

    def plan(self, arguments, threads=None):
        plan = self.temper("plan", *arguments, "--json", threads=threads)
        return json.loads(plan[plan.index("{") :])

    def train(self, arguments, threads=None):
        self.temper("train", *arguments, threads=threads)
        return [json.loads(line) for line in open(self.directory / "runs/plan/metrics.jsonl", encoding="utf-8")]


def report(size, settings, unit, planned, reached):
    off = planned / reached - 1
    print(f"{size:7s} {settings or 'full fine-tuning, bf16':88s} planned {planned:7.4g} {unit}  reached {reached:7.4g} {unit}  {100 * off:+6.1f} %", flush=True)
    return abs(off)


def compare_memory(bench):
    for size, settings in RECIPES:
        arguments = bench.arguments(size, settings)
        planned = bench.plan(arguments)["memory"]["total"] / 2**20
        yield report(size, settings, "MiB", planned, max(line["memory/peak_mib"] for line in bench.train(arguments)))


def compare_time(bench, threads, steps):
    bench.temper("doctor", threads=threads)
    print(f"{threads} threads", flush=True)
    for size, settings in TIMED:
        arguments = [*bench.arguments(size, settings), f"train.steps={steps}"]
        planned = bench.plan(arguments, threads)["time"]["step_seconds"]
        yield report(size, settings, "s", planned, min(line["step_time"] for line in bench.train(arguments, threads)[1:]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=os.path.abspath)
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=4)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="temper-plan-") as folder:
        bench = Bench(given.program, Path(folder))
        if given.time:
            errors = [error for threads in given.threads for error in compare_time(bench, threads, given.steps)]
        else:
            errors = list(compare_memory(bench))
    print(f"largest error {100 * max(errors):.1f} %")
    return 1 if max(errors) > (0.15 if given.time else 0.1) else 0


if __name__ == "__main__":
    sys.exit(main())
