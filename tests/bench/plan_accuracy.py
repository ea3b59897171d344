"""What `temper plan` predicts beside the peak that the same recipe reaches: ten recipes, three sizes, full, LoRA and QLoRA, with and
without activation checkpointing.

    python tests/bench/plan_accuracy.py PROGRAM

Ends with 1 when a prediction is more than 10 % off. Models are drawn, rows are made up; needs no reference package.
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=os.path.abspath)
    program = parser.parse_args().program
    worst = 0.0
    with tempfile.TemporaryDirectory(prefix="temper-plan-") as folder:
        directory = Path(folder)
        write_inputs(directory)
        for size, settings in RECIPES:
            arguments = [str(directory / "recipe.toml"), f"model.path={directory / size}", *settings.split()]
            plan = subprocess.run([program, "plan", *arguments, "--json"], check=True, capture_output=True, text=True).stdout
            planned = json.loads(plan[plan.index("{") :])["memory"]["total"] / 2**20
            subprocess.run([program, "train", *arguments], check=True, stdout=subprocess.DEVNULL)
            lines = [json.loads(line) for line in open(directory / "runs/plan/metrics.jsonl", encoding="utf-8")]
            peak = max(line["memory/peak_mib"] for line in lines)
            worst = max(worst, abs(planned / peak - 1))
            print(f"{size:7s} {settings or 'full fine-tuning, bf16':88s} planned {planned:7.0f} MiB  peak {peak:7.0f} MiB  {100 * (planned / peak - 1):+6.1f} %", flush=True)
    print(f"largest error {100 * worst:.1f} %")
    return 1 if worst > 0.1 else 0


if __name__ == "__main__":
    sys.exit(main())
