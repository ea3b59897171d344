"""Preparing data beside its peers, in one run: JSONL to packed rows, memory of a large file, and the first step of a stream.

    python tests/bench/prepare_throughput.py PROGRAM [--parts speed memory stream] [--mib 64] [--workers 2] [--repeats 3]
        [--memory-mib 2048] [--stream-mib 1024 4096]

speed: `temper prepare` and then `temper plan` (which packs) of a JSONL file, whole processes from start to end, beside `datasets` map with
the same tokenizer and TRL's pack_dataset, bfd, both with `workers` processes or threads; of the peer only loading, map and packing count, not
its imports. memory: resident memory of `temper prepare`. stream: the start of `temper train` to its first finished step with
data.streaming = true, a tiny model. Files are made in a temporary folder, of paragraphs of LibTorch's headers, again and again.

The part speed needs the reference packages (launch/setup.sh --peers).
"""

import argparse
import importlib.util
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from runs import ENVIRONMENT

SOURCE = Path(__file__).resolve().parents[2]
LENGTH = 1024
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "hidden_act": "silu", "max_position_embeddings": LENGTH,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "vocab_size": 32000, "tie_word_embeddings": False, "eos_token_id": 0,
}  # fmt: skip
RECIPE = f"""
[run]
name = "bench"
output = "runs"
overwrite = true
[model]
path = "model"
init = "random"
dtype = "fp32"
[data]
max_length = {LENGTH}
on_long_row = "truncate"
packing_window = 1000
[batch]
global = 4
micro = 4
[train]
precision = "fp32"
[checkpoint]
every = 0
[log]
every = 1
tensorboard = false
"""


def header_paragraphs():
    """Lines of JSON, about 40 MB of text: runs of a header's paragraphs of up to 2000 letters."""
    spec = importlib.util.find_spec("torch")
    include = Path(spec.origin).parent / "include" if spec else Path.home() / ".cache/temper/libtorch-2.11.0/torch/include"
    for header in sorted(include.rglob("*.h")):
        row = ""
        for paragraph in header.read_text(encoding="utf-8", errors="ignore").split("\n\n"):
            if row and len(row) + len(paragraph) > 2000:
                yield json.dumps({"text": row}, ensure_ascii=False) + "\n"
                row = ""
            row += ("\n\n" if row else "") + paragraph
        if row.strip():
            yield json.dumps({"text": row}, ensure_ascii=False) + "\n"


def write_inputs(directory):
    model = directory / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(CONFIG))
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(SOURCE / "configs/quickstart" / name, model / name)
    (directory / "recipe.toml").write_text(RECIPE)
    return "".join(header_paragraphs()).encode()


def write_rows(path, text, mib):
    """The text's lines as often as they fit into `mib`."""
    size = mib << 20
    with open(path, "wb") as file:
        for _ in range(size // len(text)):
            file.write(text)
        file.write(text[: text.rfind(b"\n", 0, size % len(text)) + 1])


def temper(args, directory, command, rows, *settings):
    words = [args.program, command, "recipe.toml", f"data.train.0.path={rows}", f"data.workers={args.workers}", *settings]
    start = time.perf_counter()
    process = subprocess.Popen(words, cwd=directory, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)  # fmt: skip
    output, errors = process.communicate()
    if process.returncode != 0:
        sys.exit(f"temper {command} failed:\n{output}\n{errors}")
    return time.perf_counter() - start


def temper_packed(args, directory, rows):
    shutil.rmtree(directory / "cache", ignore_errors=True)
    return temper(args, directory, "prepare", rows) + temper(args, directory, "plan", rows)


PEER = """
import json, os, sys, time
import datasets
from transformers import AutoTokenizer
from trl.data_utils import pack_dataset

rows, model, workers, length, cache = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
datasets.disable_progress_bars()
tokenizer = AutoTokenizer.from_pretrained(model)
end = tokenizer.eos_token_id

def tokenize(batch):
    return {"input_ids": [ids + [end] for ids in tokenizer(batch["text"])["input_ids"]]}

start = time.perf_counter()
data = datasets.load_dataset("json", data_files=rows, split="train", cache_dir=cache)
data = data.map(tokenize, batched=True, remove_columns=["text"], num_proc=workers)
data = pack_dataset(data, length, "bfd", map_kwargs={"num_proc": workers})
print("RESULT", time.perf_counter() - start, len(data))
"""


def peer_packed(args, directory, rows):
    cache = directory / "peer-cache"
    shutil.rmtree(cache, ignore_errors=True)
    environment = dict(os.environ, HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", HF_HOME=str(cache))
    done = subprocess.run([sys.executable, "-c", PEER, rows, directory / "model", str(args.workers), str(LENGTH), cache], env=environment,
                          capture_output=True, text=True)  # fmt: skip
    line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT")), None)
    if line is None:
        sys.exit(f"the peer failed:\n{done.stdout}\n{done.stderr}")
    return float(line.split()[1])


def speed(args, directory, text):
    rows = directory / "speed.jsonl"
    write_rows(rows, text, args.mib)
    mib = rows.stat().st_size / 2**20
    pairs = [(temper_packed(args, directory, rows), peer_packed(args, directory, rows)) for _ in range(args.repeats)]
    ours, theirs = (statistics.median(times) for times in zip(*pairs))
    ratio = statistics.median(peer / own for own, peer in pairs)
    print(f"{mib:.0f} MiB of JSONL to packed rows, {args.workers} workers: temper {ours:.2f} s, {mib / ours:.1f} MiB/s; datasets map and "
          f"pack_dataset {theirs:.2f} s, {mib / theirs:.1f} MiB/s; ratio {ratio:.2f}", flush=True)  # fmt: skip
    rows.unlink()


def memory(args, directory, text):
    rows = directory / "memory.jsonl"
    write_rows(rows, text, args.memory_mib)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    seconds = temper(args, directory, "prepare", rows)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    note = " at most (an earlier child had as much)" if peak == before / 1024 else ""
    print(f"preparing {rows.stat().st_size / 2**30:.2f} GiB: {peak:.0f} MiB resident{note}, {seconds:.1f} s", flush=True)
    rows.unlink()
    shutil.rmtree(directory / "cache", ignore_errors=True)


def first_step(args, directory, rows):
    metrics = directory / "runs/bench/metrics.jsonl"
    shutil.rmtree(directory / "runs", ignore_errors=True)
    words = [args.program, "train", "recipe.toml", f"data.train.0.path={rows}", "data.streaming=true", "train.steps=1000000",
             f"data.workers={args.workers}"]  # fmt: skip
    start = time.perf_counter()
    process = subprocess.Popen(words, cwd=directory, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not (metrics.exists() and metrics.stat().st_size > 0):
        if process.poll() is not None:
            sys.exit("the run ended before its first step")
        time.sleep(0.002)
    seconds = time.perf_counter() - start
    process.kill()
    process.wait()
    return seconds


def stream(args, directory, text):
    for mib in args.stream_mib:
        rows = directory / "stream.jsonl"
        write_rows(rows, text, mib)
        times = [first_step(args, directory, rows) for _ in range(args.repeats)]
        print(f"streaming {rows.stat().st_size / 2**30:.2f} GiB: start to first finished step {statistics.median(times):.2f} s "
              f"(median; {min(times):.2f} to {max(times):.2f})", flush=True)  # fmt: skip
        rows.unlink()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=os.path.abspath)
    parser.add_argument("--parts", nargs="+", choices=["memory", "speed", "stream"], default=["memory", "stream", "speed"])
    parser.add_argument("--mib", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory-mib", type=int, default=2048)
    parser.add_argument("--stream-mib", type=int, nargs="+", default=[1024, 4096])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="temper-bench-") as folder:
        directory = Path(folder)
        text = write_inputs(directory)
        for part in args.parts:
            {"speed": speed, "memory": memory, "stream": stream}[part](args, directory, text)


if __name__ == "__main__":
    main()
