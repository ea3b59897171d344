"""Training throughput of `temper train` beside its peers, in one run: same model, same rows, same machine.

    python tests/bench/sft_throughput.py PROGRAM [--threads 1] [--dtypes fp32 bf16] [--rows equal ragged] [--steps 4]

The model is a 58M Llama (hidden 512, 8 layers, 8 heads, 4 kv heads, MLP 1536, vocabulary 32000 untied), a step is 8 rows of 512
tokens. Peers: TRL's SFTTrainer, a plain PyTorch loop over the transformers model, the same loop compiled. Every contestant runs in a process
of its own, in turn; the median step counts. `equal` rows are full; `ragged` rows are real prompts and completions of
all lengths, counted in real tokens; `lora` is LoRA of rank 16 on all linear layers over full rows, beside the same loops over peft's
model (its base loaded in the compute type), and over a base in NF4. The GEMM rate is the median of torch.mm of 2048^3 in the plain loop's process.

Needs the reference packages (launch/setup.sh --peers) and the quick start's text (launch/gather_headers.py).
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from runs import ENVIRONMENT, launcher

SOURCE = Path(__file__).resolve().parents[2]
LENGTH, ROWS = 512, 8
FLOPS_PER_TOKEN = 262e6  # 6 x 41.5M matmul weights + 12.6M of attention


def make_model(directory):
    from transformers import AutoTokenizer, LlamaConfig

    config = LlamaConfig(
        vocab_size=32000, hidden_size=512, intermediate_size=1536, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=4,
        max_position_embeddings=LENGTH, tie_word_embeddings=False, bos_token_id=None, eos_token_id=0,
    )  # fmt: skip
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(directory)
    AutoTokenizer.from_pretrained(SOURCE / "configs/quickstart").save_pretrained(directory)


def make_rows(directory, kind, model_directory, steps):
    """The text that Temper reads (rows.jsonl) and the ids that the peers get (ids.json)."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_directory)
    ids, texts = [], []
    with open(SOURCE / "quickstart/data/train.jsonl", encoding="utf-8") as file:
        for line in file:
            text = json.loads(line)["text"]
            if kind == "ragged":
                # Real pieces of all lengths: a header's paragraphs.
                for piece in text.split("\n\n"):
                    row = tokenizer(piece)["input_ids"] + [tokenizer.eos_token_id]
                    if 8 <= len(row) <= LENGTH:
                        ids.append(row)
                        texts.append(piece)
                enough = len(ids) >= 12 * ROWS * (steps + 2)
            else:
                row = tokenizer(text)["input_ids"][:LENGTH]
                if len(row) == LENGTH:
                    ids.append(row)
                    texts.append(text)
                enough = len(ids) >= ROWS * (steps + 2)
            if enough:
                break
    with open(directory / "rows.jsonl", "w", encoding="utf-8") as file:
        for text in texts:
            file.write(json.dumps({"text": text}) + "\n")
    (directory / "ids.json").write_text(json.dumps(ids))


def result(times, tokens):
    """The first step warms up; the rest count."""
    return {"tokens_per_second": statistics.median(n / t for n, t in zip(tokens[1:], times[1:])),
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}  # fmt: skip


def gemm_rate(dtype):
    import torch

    a, b = (torch.randn(2048, 2048, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(9):
        start = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - start)
    return 2 * 2048**3 / statistics.median(times)


def peer_model(args, lora):
    """Random weights; with LoRA a frozen base in the compute type and peft's float32 adapters."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    base = torch.bfloat16 if lora and args.dtype == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(args.model), dtype=base)
    if lora:
        import peft

        model = peft.get_peft_model(model, peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
    return model


def train(args, model, forward, rank=0, ranks=1):
    """Seconds and tokens of each step of a plain loop; on several ranks of this one, which takes its ROWS rows of every batch."""
    import torch

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    ids = json.loads((args.directory / "ids.json").read_text())
    times, tokens = [], []
    for step in range(args.steps + 1):
        first = (step * ranks + rank) * ROWS
        batch = torch.tensor(ids[first : first + ROWS])
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=args.dtype == "bf16"):
            loss = forward(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - start)
        tokens.append(batch.numel())
    return times, tokens


def run_loop(args, compiled=False, lora=False):
    import torch

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = peer_model(args, lora)
    model.train()
    found = result(*train(args, model, torch.compile(model) if compiled else model))
    if not compiled:
        found["gemm"] = gemm_rate(torch.bfloat16 if args.dtype == "bf16" else torch.float32)
    return found


def run_trl(args, packing=False, lora=False):
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = peer_model(args, lora)
    ids = json.loads((args.directory / "ids.json").read_text())
    times, tokens = [], []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_, **__):
            self.start = time.perf_counter()

        def on_step_end(self, *_, **__):
            times.append(time.perf_counter() - self.start)

    config = SFTConfig(
        output_dir=str(args.directory / "trl"), max_length=LENGTH, packing=packing, packing_strategy="bfd",
        per_device_train_batch_size=ROWS, max_steps=args.steps + 1, learning_rate=1e-4, gradient_checkpointing=False,
        bf16=args.dtype == "bf16", use_cpu=True, report_to=[], save_strategy="no", logging_steps=1, dataloader_pin_memory=False,
        train_sampling_strategy="sequential",
    )  # fmt: skip
    trainer = SFTTrainer(
        model=model, args=config, train_dataset=Dataset.from_dict({"input_ids": ids}),
        processing_class=AutoTokenizer.from_pretrained(args.model, pad_token="<|endoftext|>"), callbacks=[Clock()],
    )  # fmt: skip
    trainer.train()
    seen = [entry["num_tokens"] for entry in trainer.state.log_history if "num_tokens" in entry]
    tokens = [now - before for now, before in zip(seen, [0, *seen])]
    return result(times, tokens)


LORA = """[peft]
r = 16
lora_alpha = 32
target_modules = "all-linear"
"""


def run_temper(args, packing=False, peft="", quantize="none", ranks=1):
    recipe = args.directory / "recipe.toml"
    recipe.write_text(
        f"""
[run]
name = "bench"
output = "{args.directory}/runs"
overwrite = true
[model]
path = "{args.model}"
init = "random"
dtype = "{args.dtype}"
quantize = "{quantize}"
{peft}[data]
max_length = {LENGTH}
packing = "{"bfd" if packing else "none"}"
on_long_row = "truncate"
shuffle = false
cache = "{args.directory}/cache"
[[data.train]]
path = "{args.directory}/rows.jsonl"
[optimizer]
lr = 1e-4
[batch]
global = {ROWS * ranks}
micro = {ROWS}
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
    subprocess.run([*launcher(ranks), args.program, "train", recipe], env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
    lines = [json.loads(line) for line in open(args.directory / "runs/bench/metrics.jsonl", encoding="utf-8")]
    return {"tokens_per_second": statistics.median(line["tokens_per_second"] for line in lines[1:]),
            "peak_mib": lines[-2]["memory/peak_mib"]}  # fmt: skip


CONTESTANTS = {
    "equal": {
        "temper": lambda args: run_temper(args),
        "plain loop": lambda args: run_loop(args),
        "compiled loop": lambda args: run_loop(args, compiled=True),
        "TRL": lambda args: run_trl(args),
    },
    "lora": {
        "temper": lambda args: run_temper(args, peft=LORA),
        "temper nf4": lambda args: run_temper(args, peft=LORA, quantize="nf4"),
        "plain loop": lambda args: run_loop(args, lora=True),
        "TRL": lambda args: run_trl(args, lora=True),
    },
    "ragged": {
        "temper bfd": lambda args: run_temper(args, packing=True),
        "TRL bfd": lambda args: run_trl(args, packing=True),
        "TRL unpacked": lambda args: run_trl(args),
    },
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=os.path.abspath)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtypes", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--rows", nargs="+", default=["equal", "ragged"])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--skip", nargs="*", default=[], help="contestants to leave out")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)  # this process is one of them
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--dtype", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contestant:
        print("RESULT " + json.dumps(CONTESTANTS[args.rows[0]][args.contestant](args)))
        return

    os.environ.update(OMP_NUM_THREADS=str(args.threads), HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    with tempfile.TemporaryDirectory(prefix="temper-bench-") as folder:
        for rows in args.rows:
            directory = Path(folder) / rows
            directory.mkdir()
            make_model(directory / "model")
            make_rows(directory, rows, directory / "model", args.steps)
            for dtype in args.dtypes:
                found = {}
                for name in CONTESTANTS[rows]:
                    if name in args.skip:
                        continue
                    command = [sys.executable, __file__, args.program, "--contestant", name, "--directory", directory, "--model",
                               directory / "model", "--dtype", dtype, "--rows", rows, "--threads", args.threads, "--steps", args.steps]  # fmt: skip
                    run = subprocess.run([str(c) for c in command], capture_output=True, text=True)
                    line = next((line for line in run.stdout.splitlines() if line.startswith("RESULT ")), None)
                    if line is None:
                        sys.exit(f"{name} failed:\n{run.stdout}\n{run.stderr}")
                    found[name] = json.loads(line[7:])
                report(rows, dtype, args.threads, found)


def report(rows, dtype, threads, found):
    ours = next(iter(found.values()))
    gemm = found.get("plain loop", {}).get("gemm")
    print(f"\n{rows} rows, {dtype}, {threads} thread{'s' if threads > 1 else ''}" + (f"; GEMM {gemm / 1e9:.0f} GFLOP/s" if gemm else ""))
    for name, numbers in found.items():
        speed = numbers["tokens_per_second"]
        share = f"  {100 * speed * FLOPS_PER_TOKEN / gemm:5.1f} % of GEMM" if gemm and rows != "lora" else ""
        print(f"  {name:14s} {speed:8.0f} tokens/s{share}  {numbers['peak_mib']:7.0f} MiB   temper/this: speed "
              f"{ours['tokens_per_second'] / speed:5.2f}, memory {ours['peak_mib'] / numbers['peak_mib']:4.2f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
