#!/usr/bin/env python3
"""Megabytes of text a second to ids: `temper tokenize` and PyPI's tokenizers' encode_batch, one thread each, in turns on the same texts.

    python tests/bench/tokenizer_throughput.py build-release/bin/temper DIRECTORY... [--english FILE] [--rounds N]

DIRECTORY holds a tokenizer.json. English text is FILE (default: ../shared's tinyshakespeare.txt), mixed Unicode text is made here.
temper's time includes reading JSON lines and printing ids, not its start: the clock begins after its answer to a first line. The ratio
is that of the medians.
"""

import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
from tokenizers import Tokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "parity"))
import make_tokenizer


def temper_seconds(program, directory, lines):
    process = subprocess.Popen([program, "tokenize", str(directory), "--json"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdin.write(b'"a"\n')
    process.stdin.flush()
    process.stdout.readline()
    payload = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()

    def feed():
        process.stdin.write(payload)
        process.stdin.close()

    begin = time.perf_counter()
    feeder = threading.Thread(target=feed)
    feeder.start()
    answers = process.stdout.read()
    seconds = time.perf_counter() - begin
    feeder.join()
    if process.wait() != 0:
        sys.exit("temper tokenize failed")
    return seconds, answers


def package_seconds(tokenizer, lines):
    begin = time.perf_counter()
    encodings = tokenizer.encode_batch(lines)
    return time.perf_counter() - begin, [encoding.ids for encoding in encodings]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("directories", nargs="+", type=pathlib.Path)
    parser.add_argument("--english", type=pathlib.Path, default=ROOT / ".." / "shared" / "data" / "lm" / "tinyshakespeare.txt")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rng = random.Random(0)
    english = arguments.english.read_text()
    texts = {"english": [english[at:at + 2000] for at in range(0, len(english), 2000)],
             "mixed": [make_tokenizer.text(rng, 300) for _ in range(400)]}
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
