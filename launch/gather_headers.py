"""Gathers the quick start's text: the C++ headers of the LibTorch that the set-up has just installed.

    python3 launch/gather_headers.py INCLUDE_DIR OUT_DIR

Writes OUT_DIR/train.jsonl and OUT_DIR/eval.jsonl, one {"text": ...} a header. Which header goes where depends on its path alone,
so that the same LibTorch gives the same files. Needs nothing but Python's standard library.
"""

import hashlib
import json
import os
import sys


def headers(include_dir):
    for folder, folders, files in os.walk(include_dir):
        folders.sort()
        for name in sorted(files):
            if name.endswith((".h", ".hpp", ".cuh")):
                yield os.path.join(folder, name)


def main(include_dir, out_dir):
    os.makedirs(out_dir, exist_ok=True)
    seen = set()
    size = {"train": 0, "eval": 0}
    count = {"train": 0, "eval": 0}
    parts = {name: open(os.path.join(out_dir, name + ".jsonl.part"), "w", encoding="utf-8") for name in size}
    for path in headers(include_dir):
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
        except UnicodeDecodeError:
            continue
        digest = hashlib.sha256(text.encode()).hexdigest()
        # Long tables of constants and copies of a file teach nothing; a header of a few lines is only its licence.
        if digest in seen or not 500 <= len(text) <= 200_000:
            continue
        seen.add(digest)
        relative = os.path.relpath(path, include_dir)
        part = "eval" if int(hashlib.sha256(relative.encode()).hexdigest(), 16) % 389 == 0 else "train"
        parts[part].write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
        size[part] += len(text)
        count[part] += 1
    for name, file in parts.items():
        file.close()
        os.replace(file.name, os.path.join(out_dir, name + ".jsonl"))
        print(f"{os.path.join(out_dir, name)}.jsonl: {count[name]} headers, {size[name] / 1e6:.1f} MB")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
