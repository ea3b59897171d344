"""Preference and reinforcement steps of `temper train` beside TRL's trainers, in one run: same model, same rows, same machine.

    python tests/bench/preference_throughput.py PROGRAM [--threads 1] [--dtypes fp32 bf16] [--kinds dpo grpo] [--steps 3]

The model is sft_throughput.py's 58M Llama. `dpo`: 8 pairs a step, real ragged text (prompts of 8 to 128 tokens, completions of 8 to 384), the
start weights as the reference; counted in pairs. `grpo`: 4 prompts of 64 tokens a step with 8 completions of up to 128 tokens each, a reward
that counts a letter; counted in generated tokens, for the whole step and for generation alone. Every contestant runs in a process of its own,
in turn; the median step counts.

Needs the reference packages (launch/setup.sh --peers) and the quick start's text (launch/gather_headers.py).
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sft_throughput import SOURCE, make_model

PAIRS, PROMPTS, GROUP = 8, 4, 8
PROMPT_TOKENS, COMPLETION_TOKENS = 64, 128


def pieces():
    """Paragraphs of real headers."""
    with open(SOURCE / "quickstart/data/train.jsonl", encoding="utf-8") as file:
        for line in file:
            yield from json.loads(line)["text"].split("\n\n")


def make_rows(directory, kind, steps):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory / "model")
    draw, rows, fitting = random.Random(0), [], []
    wanted = (PAIRS if kind == "dpo" else PROMPTS) * (steps + 2)
    for piece in pieces():
        ids = tokenizer(piece)["input_ids"]
        if kind == "grpo":
            if len(ids) >= PROMPT_TOKENS:
                rows.append({"prompt": tokenizer.decode(ids[:PROMPT_TOKENS])})
        elif 8 <= len(ids) <= 384:
            fitting.append((len(ids), piece))
            if len(fitting) == 3:
                prompt = tokenizer.decode(tokenizer(fitting[0][1])["input_ids"][: draw.randint(8, 128)])
                rows.append({"prompt": prompt, "chosen": fitting[1][1], "rejected": fitting[2][1]})
                fitting = []
        if len(rows) == wanted:
            break
    with open(directory / "rows.jsonl", "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")


def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Clock:
    """Wall time of every optimizer step, and of generation where a trainer has it."""

    def __init__(self):
        from transformers import TrainerCallback

        clock, self.steps, self.generation, self.tokens = self, [], [], []

        class Callback(TrainerCallback):
            def on_step_begin(self, *_, **__):
                clock.start = time.perf_counter()

            def on_step_end(self, *_, **__):
                clock.steps.append(time.perf_counter() - clock.start)

        self.callback = Callback()


def trl_arguments(args, **more):
    return dict(
        output_dir=str(args.directory / "trl"), max_steps=args.steps + 1, learning_rate=1e-6, gradient_checkpointing=False,
        bf16=args.dtype == "bf16", use_cpu=True, report_to=[], save_strategy="no", logging_steps=1, dataloader_pin_memory=False, **more,
    )  # fmt: skip


def trl_parts(args):
    import torch
    from datasets import load_dataset
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    return {
        "model": AutoModelForCausalLM.from_pretrained(args.directory / "weights", dtype=torch.float32),
        "train_dataset": load_dataset("json", data_files=str(args.directory / "rows.jsonl"), split="train"),
        "processing_class": AutoTokenizer.from_pretrained(args.directory / "model", pad_token="<|endoftext|>"),
    }


def trl_dpo(args):
    from trl import DPOConfig, DPOTrainer

    clock = Clock()
    config = DPOConfig(**trl_arguments(args, per_device_train_batch_size=PAIRS, max_length=512, train_sampling_strategy="sequential"))
    DPOTrainer(args=config, callbacks=[clock.callback], **trl_parts(args)).train()
    return {"rate": PAIRS / statistics.median(clock.steps[1:]), "peak_mib": peak_mib()}


def letters(completions, **_):
    return [completion.count("e") / 10 for completion in completions]


def trl_grpo(args):
    from trl import GRPOConfig, GRPOTrainer

    clock = Clock()

    class Timed(GRPOTrainer):
        def _generate(self, *arguments, **named):
            start = time.perf_counter()
            generated = super()._generate(*arguments, **named)
            clock.generation.append(time.perf_counter() - start)
            clock.tokens.append(sum(len(ids) for ids in generated[1]))
            return generated

    config = GRPOConfig(
        **trl_arguments(args, per_device_train_batch_size=GROUP, gradient_accumulation_steps=PROMPTS, num_generations=GROUP,
                        max_completion_length=COMPLETION_TOKENS, shuffle_dataset=False, temperature=1.0)  # fmt: skip
    )
    Timed(args=config, reward_funcs=letters, callbacks=[clock.callback], **trl_parts(args)).train()
    return {
        "rate": statistics.median(n / t for n, t in zip(clock.tokens[1:], clock.steps[1:])),
        "generation": statistics.median(n / t for n, t in zip(clock.tokens[1:], clock.generation[1:])),
        "step_seconds": statistics.median(clock.steps[1:]),
        "peak_mib": peak_mib(),
    }


OBJECTIVES = {
    "dpo": '[objective]\nkind = "dpo"\n',
    "grpo": f"""[objective]
kind = "grpo"
num_generations = {GROUP}
max_completion_length = {COMPLETION_TOKENS}
[[objective.rewards]]
kind = "program"
command = ["{sys.executable}", "-c", '''
import json, sys
for line in sys.stdin:
    print(json.loads(line)["completion"].count("e") / 10, flush=True)
''']
""",
}


def run_temper(args):
    recipe = args.directory / "recipe.toml"
    rows = PAIRS if args.kind == "dpo" else PROMPTS * GROUP
    recipe.write_text(
        f"""
{OBJECTIVES[args.kind]}
[run]
name = "bench"
output = "{args.directory}/runs"
overwrite = true
[model]
path = "{args.directory}/weights"
dtype = "{args.dtype}"
[data]
max_length = {512 if args.kind == "dpo" else PROMPT_TOKENS + 32}
shuffle = false
cache = "{args.directory}/cache"
[[data.train]]
path = "{args.directory}/rows.jsonl"
[batch]
global = {rows}
micro = {PAIRS if args.kind == "dpo" else GROUP}
[train]
steps = {args.steps + 1}
precision = "{args.dtype}"
threads = {args.threads}
[log]
every = 1
tensorboard = false
[checkpoint]
every = 0
"""
    )
    subprocess.run([args.program, "train", recipe], check=True, stdout=subprocess.DEVNULL)
    lines = [json.loads(line) for line in open(args.directory / "runs/bench/metrics.jsonl", encoding="utf-8")][1:]
    found = {"peak_mib": lines[-1]["memory/peak_mib"]}
    if args.kind == "dpo":
        found["rate"] = PAIRS / statistics.median(line["step_time"] for line in lines)
    else:
        tokens = [line["completions/mean_length"] * PROMPTS * GROUP for line in lines]
        found["rate"] = statistics.median(n / line["step_time"] for n, line in zip(tokens, lines))
        found["generation"] = statistics.median(n / line["generation_time"] for n, line in zip(tokens, lines))
        found["step_seconds"] = statistics.median(line["step_time"] for line in lines)
    return found


CONTESTANTS = {"dpo": {"temper": run_temper, "TRL": trl_dpo}, "grpo": {"temper": run_temper, "TRL": trl_grpo}}
UNITS = {"dpo": "pairs/s", "grpo": "generated tokens/s"}


def draw_weights(directory):
    """The same weights for all, so that completions are of the same lengths."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory / "model")).save_pretrained(directory / "weights")
    for path in (directory / "model").iterdir():
        if path.name != "config.json":
            (directory / "weights" / path.name).write_bytes(path.read_bytes())


def report(kind, dtype, threads, found):
    print(f"\n{kind}, {dtype}, {threads} thread{'s' if threads > 1 else ''}")
    ours = found["temper"]
    for name, numbers in found.items():
        line = f"  {name:8s} {numbers['rate']:8.2f} {UNITS[kind]}  {numbers['peak_mib']:7.0f} MiB   temper/this: speed "
        line += f"{ours['rate'] / numbers['rate']:5.2f}, memory {ours['peak_mib'] / numbers['peak_mib']:4.2f}"
        if "generation" in numbers:
            line += f"; step {numbers['step_seconds']:.2f} s, generation alone {numbers['generation']:.0f} tokens/s, "
            line += f"ratio {ours['generation'] / numbers['generation']:.2f}"
        print(line, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=os.path.abspath)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtypes", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--kinds", nargs="+", default=["dpo", "grpo"])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--contestant", help=argparse.SUPPRESS)  # this process is one of them
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--dtype", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contestant:
        args.kind = args.kinds[0]
        print("RESULT " + json.dumps(CONTESTANTS[args.kind][args.contestant](args)))
        return

    os.environ.update(OMP_NUM_THREADS=str(args.threads), HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    with tempfile.TemporaryDirectory(prefix="temper-bench-") as folder:
        for kind in args.kinds:
            directory = Path(folder) / kind
            (directory / "model").mkdir(parents=True)
            make_model(directory / "model")
            draw_weights(directory)
            make_rows(directory, kind, args.steps)
            for dtype in args.dtypes:
                found = {}
                for name in CONTESTANTS[kind]:
                    command = [sys.executable, __file__, args.program, "--contestant", name, "--directory", directory, "--dtype", dtype,
                               "--kinds", kind, "--threads", args.threads, "--steps", args.steps]  # fmt: skip
                    run = subprocess.run([str(c) for c in command], capture_output=True, text=True)
                    line = next((line for line in run.stdout.splitlines() if line.startswith("RESULT ")), None)
                    if line is None:
                        sys.exit(f"{name} failed:\n{run.stdout}\n{run.stderr}")
                    found[name] = json.loads(line[7:])
                report(kind, dtype, args.threads, found)


if __name__ == "__main__":
    main()
