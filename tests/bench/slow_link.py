"""What hides of the exchange of gradients when two hosts share a slow link, and what that is worth: the same steps with and without overlap.

    python3 tests/bench/slow_link.py PROGRAM [--mbit 400] [--rows 9] [--steps 4] [--repeats 3] [--size medium]

plan_accuracy.py's 58M Llama in float32 on two ranks of one thread, one in each of two network namespaces whose link tc tbf shapes
(two_hosts.py makes and removes them), `--rows` rows of 512 tokens a rank and step in one micro-batch. Without overlap: parallel.bucket_mib
= 1024, so that all gradients but the embedding's are one bucket, which is complete, and leaves, only when backward is over; the same bytes
in the same pieces. The two take turns, `--repeats` times; figures are medians of the rounds. The time of exchange, and what of it the training
thread waits for, are overlap.py's, from the trace (log.trace). `--rows` should be such that exchange takes about half of the time of
computing, which the last line tells. Of the embedding's gradient both send the rows of tokens that some rank has seen: the text is drawn
evenly from the words of a vocabulary of 4096; a step has about 2400 different tokens, as many as so much English.

Needs root, iproute2 and mpirun; else only Python's standard library.
"""

import argparse
import json
import os
import random
import statistics
import tempfile
from pathlib import Path

from overlap import overlap, read_trace
from plan_accuracy import SIZES, write_inputs
from runs import column, command, run
from two_hosts import two_hosts

BUCKETS = {"overlapped": 25, "in one piece": 1024}  # MiB
HIDDEN_GOAL, SPEED_GOAL = 80, 1.3


def write_rows(directory, count):
    """In place of write_inputs' own, which are of ten words; as many as a run takes, so that no step is short."""
    vocabulary = json.loads((directory / "medium/tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    words = [space + word for token in vocabulary if (word := token.lstrip("Ġ")).isalpha() and word.isascii() for space in " \n"]
    draw = random.Random(1)
    with open(directory / "rows.jsonl", "w", encoding="utf-8") as file:
        for _ in range(count):
            file.write(json.dumps({"text": "".join(draw.choices(words, k=700))}) + "\n")


def measure(args, directory, hosts, bucket_mib):
    """Of a step: tokens per second of both ranks; seconds of the step, of exchange and of that exposed, of the rank that waits longest."""
    words = command(args.program, directory, args.size, "link", "log.trace=true", f"parallel.bucket_mib={bucket_mib}", "parallel.timeout=600",
                    f"batch.global={2 * args.rows}", f"batch.micro={args.rows}", f"train.steps={args.steps + 1}")  # fmt: skip
    lines = run(hosts(words), directory, "link")
    ranks = overlap(read_trace(directory / "runs/link/trace.json")).values()
    return (statistics.median(column(lines, "tokens_per_second")), *max(ranks, key=lambda rank: rank[2]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=os.path.abspath)
    parser.add_argument("--mbit", type=int, default=400)
    parser.add_argument("--rows", type=int, default=9)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", choices=list(SIZES), default="medium")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="temper-link-") as folder:
        directory = Path(folder)
        write_inputs(directory)
        write_rows(directory, 2 * args.rows * (args.steps + 1))
        with two_hosts(directory, args.mbit) as hosts:
            rounds = [[measure(args, directory, hosts, size) for size in BUCKETS.values()] for _ in range(args.repeats)]

    for name, found in zip(BUCKETS, zip(*rounds)):
        speed, step, exchange, exposed = (statistics.median(part) for part in zip(*found))
        hidden = statistics.median(1 - exposed / exchange for _, _, exchange, exposed in found)
        print(f"{name:13s} {speed:7.0f} tokens/s  step {step:6.3f} s  exchange {exchange:6.3f} s, of it exposed {exposed:6.3f} s: {100 * hidden:3.0f} % hidden")
    ratio = statistics.median(ours[0] / theirs[0] for ours, theirs in rounds)
    share = statistics.median(exchange / (step - exposed) for _, (_, step, exchange, exposed) in rounds)
    print(f"overlap makes it {ratio:.2f} times as fast (goals: {SPEED_GOAL} times, {HIDDEN_GOAL} % hidden); exchange in one piece takes "
          f"{share:.2f} of the time of computing (asked for: about 0.5)")  # fmt: skip


if __name__ == "__main__":
    main()
