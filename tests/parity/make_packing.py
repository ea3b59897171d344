"""Packed rows as TRL 1.16.0 makes them: trl.data_utils.pack_dataset, strategies bfd and bfd_split.

Each token is a number of its own, so that the packed rows tell which tokens of which row they hold.
"""

import argparse
import json
import pathlib
import random

from datasets import Dataset
from trl.data_utils import pack_dataset


def case(rng: random.Random, strategy: str) -> dict:
    capacity = rng.randint(1, 64)
    longest = capacity * rng.choice([1, 1, 3])
    lengths = [rng.randint(1, longest) for _ in range(rng.randint(1, 120))]
    rows, first = [], 0
    for length in lengths:
        rows.append(list(range(first, first + length)))
        first += length
    packed = pack_dataset(Dataset.from_dict({"input_ids": rows}), capacity, strategy)
    starts = {row[0]: number for number, row in enumerate(rows)}
    bins = []
    for ids, seq_lengths in zip(packed["input_ids"], packed["seq_lengths"]):
        segments, at = [], 0
        for length in seq_lengths:
            token = ids[at]
            start = max(s for s in starts if s <= token)
            segments.append([starts[start], token - start, token - start + length])
            at += length
        bins.append(segments)
    return {"strategy": strategy, "capacity": capacity, "lengths": lengths, "bins": bins}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    cases = [case(rng, strategy) for strategy in ("bfd", "bfd_split") for _ in range(8)]
    folder = arguments.out / "packing"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "packing.json", "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]\n")


if __name__ == "__main__":
    main()
