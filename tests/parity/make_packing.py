"""Packed rows as TRL 1.16.0 makes them: trl.data_utils.pack_dataset, all strategies, also over several batches of 1,000 rows.

Each token is a number of its own, so that the packed rows tell which tokens of which row they hold.
"""

import argparse
import json
import pathlib
import random
from itertools import accumulate

from datasets import Dataset
from trl.data_utils import pack_dataset


def case(rng: random.Random, strategy: str, most_rows: int) -> dict:
    capacity = rng.randint(1, 64)
    longest = capacity * rng.choice([1, 1, 3])
    lengths = [rng.randint(1, longest) for _ in range(rng.randint(most_rows // 2, most_rows))]
    rows, first, row_of = [], 0, []
    for number, length in enumerate(lengths):
        rows.append(list(range(first, first + length)))
        row_of += [number] * length
        first += length
    packed = pack_dataset(Dataset.from_dict({"input_ids": rows}), capacity, strategy)
    bins = []
    for index, ids in enumerate(packed["input_ids"]):
        # Of wrapped rows TRL does not say where documents begin: where another row's tokens do.
        ends = list(accumulate(packed["seq_lengths"][index])) if "seq_lengths" in packed.column_names else [
            at for at in range(1, len(ids) + 1) if at == len(ids) or row_of[ids[at]] != row_of[ids[at - 1]]]  # fmt: skip
        segments = []
        for begin, end in zip([0, *ends], ends):
            row = row_of[ids[begin]]
            segments.append([row, ids[begin] - rows[row][0], ids[begin] - rows[row][0] + end - begin])
        bins.append(segments)
    return {"strategy": strategy, "capacity": capacity, "lengths": lengths, "bins": bins}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    strategies = ("bfd", "bfd_split", "wrapped")
    cases = [case(rng, strategy, 120) for strategy in strategies for _ in range(8)]
    cases += [case(rng, strategy, 3000) for strategy in strategies]
    folder = arguments.out / "packing"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "packing.json", "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]\n")


if __name__ == "__main__":
    main()
