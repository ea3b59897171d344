"""Sums for configs/grpo_arithmetic_sft.toml and configs/grpo_arithmetic.toml.

    python3 configs/grpo_arithmetic/make_data.py quickstart/arithmetic

Writes sft.jsonl and sft-eval.jsonl ({"prompt": "17+25=", "completion": "42"}), prompts.jsonl and eval.jsonl ({"prompt", "answer"}).
All are sums of two numbers below 50; the sums of eval.jsonl are in no other file. Every third completion of sft.jsonl is off by a
little, so that what fine-tuning learns is right at times only: the rest is left to rewards.
"""

import json
import pathlib
import random
import sys

LARGEST = 49


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def main(directory):
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    random.seed(7)
    sums = [(a, b) for a in range(LARGEST + 1) for b in range(LARGEST + 1)]
    random.shuffle(sums)
    held_out, rest = sums[:200], sums[200:]

    def shown(a, b):
        value = a + b if random.random() < 2 / 3 else max(0, a + b + random.choice([-10, -2, -1, 1, 2, 10]))
        return {"prompt": f"{a}+{b}=", "completion": str(value)}

    def asked(a, b):
        return {"prompt": f"{a}+{b}=", "answer": str(a + b)}

    write(directory / "sft.jsonl", [shown(a, b) for _ in range(4) for a, b in rest])
    write(directory / "sft-eval.jsonl", [shown(a, b) for a, b in held_out])
    write(directory / "prompts.jsonl", [asked(a, b) for a, b in rest])
    write(directory / "eval.jsonl", [asked(a, b) for a, b in held_out])


if __name__ == "__main__":
    main(sys.argv[1])
