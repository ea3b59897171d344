"""Tokens a second of Temper's sampling engine beside transformers' generate, in one run: same model, prompts, numbers of tokens.

    python tests/bench/generation.py PROGRAM [--threads 2] [--dtypes fp32 bf16] [--sequences 8 32 64] [--prompt 64] [--new 64]

PROGRAM is generation_bench (cmake --build BUILD --target generation_bench). The model is a 58M Llama (hidden 512, 8 layers, 8 heads,
4 kv heads, MLP 1536, vocabulary 32000 untied) with random weights; all sequences are sampled at temperature 1 as one batch,
and none ends early. Both are measured with everything that a call needs: prefill, decoding and sampling. Each contestant runs in a
process of its own, in turn, after a short call that warms it.

Needs the reference packages (launch/setup.sh --peers).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]


def make_model(directory):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=32000, hidden_size=512, intermediate_size=1536, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=4,
        max_position_embeddings=512, tie_word_embeddings=False, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(directory)


def run_transformers(directory, dtype, threads, sequences, prompt, new):
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16 if dtype == "bf16" else torch.float32)
    ids = torch.tensor([[(i * 131 + t * 17) % 32000 for t in range(prompt)] for i in range(sequences)])
    settings = dict(do_sample=True, temperature=1.0, top_k=0, pad_token_id=0, attention_mask=torch.ones_like(ids))
    model.generate(ids, max_new_tokens=4, min_new_tokens=4, **settings)
    start = time.perf_counter()
    out = model.generate(ids, max_new_tokens=new, **settings)
    seconds = time.perf_counter() - start
    assert out.shape == (sequences, prompt + new)
    print(json.dumps({"tokens_per_second": sequences * new / seconds}))


def last_line(command):
    environment = dict(os.environ, PYTHONPATH="")
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(result.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtypes", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--sequences", nargs="+", type=int, default=[8, 32, 64])
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--inside", nargs=3, help=argparse.SUPPRESS)  # transformers' own process: directory, dtype, sequences
    given = parser.parse_args()
    if given.inside:
        directory, dtype, sequences = given.inside
        run_transformers(directory, dtype, given.threads, int(sequences), given.prompt, given.new)
        return
    with tempfile.TemporaryDirectory() as directory:
        make_model(directory)
        common = ["--threads", given.threads, "--prompt", given.prompt, "--new", given.new]
        for dtype in given.dtypes:
            for sequences in given.sequences:
                theirs = last_line([sys.executable, __file__, given.program, *map(str, common), "--inside", directory, dtype, str(sequences)])
                line = f"{dtype}, {sequences} sequences: transformers {theirs['tokens_per_second']:.0f} tokens/s"
                for exact in ("0", "1"):
                    ours = last_line([given.program, "--model", directory, "--tokenizer", SOURCE / "configs/quickstart", "--dtype", dtype,
                                      "--sequences", str(sequences), "--exact", exact, *map(str, common)])  # fmt: skip
                    ratio = ours["tokens_per_second"] / theirs["tokens_per_second"]
                    line += f"; {'exact' if exact == '1' else 'temper'} {ours['tokens_per_second']:.0f} ({ratio:.1f} x)"
                print(line, flush=True)


if __name__ == "__main__":
    main()
