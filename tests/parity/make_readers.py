"""The same rows as Parquet (pyarrow) and as JSONL (json): nested lists, structs, nulls, two row groups, each codec."""

import argparse
import json
import pathlib

import pyarrow
import pyarrow.parquet

ROWS = [
    {
        "messages": [{"role": "user", "content": f"Grüße {i}"}, {"role": "assistant", "content": None}],
        "label": i if i % 2 else None,
        "score": i / 4,
        "good": i % 3 == 0,
        "tags": ["a", "b"][: i % 3],
        "meta": {"source": "x", "ids": [[1], [2, i]]},
    }
    for i in range(6)
]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    folder = parser.parse_args().out / "readers"
    folder.mkdir(parents=True, exist_ok=True)
    table = pyarrow.Table.from_pylist(ROWS)
    for codec in ("none", "snappy", "zstd", "gzip"):
        pyarrow.parquet.write_table(table, folder / f"{codec}.parquet", row_group_size=4, compression=codec)
    with open(folder / "rows.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


if __name__ == "__main__":
    main()
