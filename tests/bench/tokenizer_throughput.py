#!/usr/bin/env python3
"""Megabytes of text a CPU second to ids: `temper tokenize` and PyPI's tokenizers' encode_batch, one thread each, in turns on the same
texts.

    python tests/bench/tokenizer_throughput.py build-release/bin/temper [DIRECTORY...] [--english FILE] [--rounds N]

DIRECTORY holds a tokenizer.json (default: one of each kind in ../shared/data/tokenizers). English text is FILE (default: ../shared's tinyshakespeare.txt), mixed Unicode text is made here.
CPU time, not that of the clock, so that others on the machine change little. temper's includes reading JSON lines and printing ids; that
of a run on a single line is taken off. The ratio is that of the medians.
"""

import argparse
import json
import os
import pathlib
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
from tokenizers import Tokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = pathlib.Path(os.environ.get("TEMPER_SHARED", ROOT / ".." / "shared")) / "data"
KINDS = ["tiny-llama3-like", "phi-3-mini", "roberta-base", "bert-base-uncased", "t5-small"]
sys.path.insert(0, str(ROOT / "tests" / "parity"))
import make_tokenizer


def temper_run(program, directory, lines):
    payload = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([program, "tokenize", str(directory), "--json"], input=payload, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        sys.exit(done.stderr.decode())
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def temper_seconds(program, directory, lines):
    start, _ = temper_run(program, directory, ["a"])
    seconds, answers = temper_run(program, directory, lines)
    return seconds - start, answers


def package_seconds(tokenizer, lines):
    begin = time.process_time()
    encodings = tokenizer.encode_batch(lines)
    return time.process_time() - begin, [encoding.ids for encoding in encodings]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("directories", nargs="*", type=pathlib.Path, default=[SHARED / "tokenizers" / kind for kind in KINDS])
    parser.add_argument("--english", type=pathlib.Path, default=SHARED / "lm" / "tinyshakespeare.txt")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rng = random.Random(0)
    english = arguments.english.read_text()
    texts = {"english": [english[at:at + 2000] for at in range(0, len(english), 2000)] * 4,
             "mixed": [make_tokenizer.text(rng, 300) for _ in range(4000)]}
    for directory in arguments.directories:
        with tempfile.TemporaryDirectory() as alone:  # without what tokenizer_config.json would change
            (pathlib.Path(alone) / "tokenizer.json").symlink_to((directory / "tokenizer.json").resolve())
            tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
            for name, lines in texts.items():
                megabytes = sum(len(line.encode()) for line in lines) / 1e6
                ours, theirs = [], []
                for _ in range(arguments.rounds):
                    seconds, answers = temper_seconds(arguments.program, alone, lines)
                    ours.append(megabytes / seconds)
                    seconds, ids = package_seconds(tokenizer, lines)
                    theirs.append(megabytes / seconds)
                if [json.loads(line) for line in answers.splitlines()] != ids:
                    sys.exit(f"{directory}: the ids differ")
                ours, theirs = statistics.median(ours), statistics.median(theirs)
                print(f"{directory.name:24} {name:8} temper {ours:6.1f} MB/s  tokenizers {theirs:6.1f} MB/s  ratio {ours / theirs:5.1f}",
                      flush=True)


main()
