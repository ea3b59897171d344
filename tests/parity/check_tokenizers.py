#!/usr/bin/env python3
"""Fuzzed texts through `temper tokenize` and through PyPI's tokenizers: ids and decoded texts must be equal, and of texts and pairs,
whole, cut and filled, all that is known of each token.

    python tests/parity/check_tokenizers.py build-release/bin/temper [--seed N] [--texts N] [DIRECTORY ...]

Every tokenizer.json in the directories (default: those that make_tokenizer.py makes, and ../shared/data/tokenizers where it is).
10,000 texts a tokenizer with TEMPER_LONG, else 300; a twentieth as many pairs for each of some settings of truncation and padding.
"""

import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

from tokenizers import Tokenizer

import make_tokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = pathlib.Path(os.environ.get("TEMPER_SHARED", ROOT / ".." / "shared")) / "data" / "tokenizers"
# Where scripts, marks and newly assigned characters live.
BLOCKS = [(0x20, 0x7E), (0, 0x1F), (0x80, 0xFF), (0x100, 0x24F), (0x250, 0x36F), (0x370, 0x52F), (0x590, 0x7FF), (0x900, 0xDFF),
          (0xE00, 0xFFF), (0x1000, 0x10FF), (0x1100, 0x11FF), (0x1680, 0x18AF), (0x1AB0, 0x1AFF), (0x1C80, 0x1DFF), (0x1E00, 0x1FFF),
          (0x2000, 0x206F), (0x2070, 0x2BFF), (0x2C00, 0x2FDF), (0x3000, 0x33FF), (0x4E00, 0x4FFF), (0xA640, 0xABFF), (0xAC00, 0xD7FF),
          (0xE000, 0xE0FF), (0xF900, 0xFDFF), (0xFE00, 0xFFFD), (0x10000, 0x10FFF), (0x11000, 0x12FFF), (0x16800, 0x18FFF),
          (0x1B000, 0x1BCFF), (0x1D000, 0x1D7FF), (0x1E000, 0x1EFFF), (0x1F000, 0x1FBFF), (0x20000, 0x200FF), (0x30000, 0x300FF),
          (0xE0000, 0xE01EF), (0x10FF00, 0x10FFFF)]


def fuzzed(rng, specials):
    parts = []
    for _ in range(rng.randint(0, 12)):
        kind = rng.random()
        if kind < 0.35:
            parts.append(make_tokenizer.text(rng, rng.randint(1, 4)))
        elif kind < 0.7:
            first, last = rng.choice(BLOCKS)
            parts.append("".join(chr(rng.randint(first, last)) for _ in range(rng.randint(1, 6))))
        elif kind < 0.8 and specials:
            parts.append(rng.choice(["", " ", "a", "  "]) + rng.choice(specials) + rng.choice(["", " ", "b", "\n"]))
        elif kind < 0.9:
            parts.append(rng.choice([" ", "\t", "\n", "\r\n", "\u00a0", "\u3000"]) * rng.randint(1, 5))
        else:
            parts.append(rng.choice("aeiocnAEIOKÅ가か1①\u2764") + "".join(chr(rng.randint(0x300, 0x36F)) for _ in range(rng.randint(1, 3))))
    return "".join(parts).encode("utf-8", "ignore").decode()


def temper(program, directory, options, values):
    lines = "".join(json.dumps(value) + "\n" for value in values)
    done = subprocess.run([program, "tokenize", str(directory), *options], input=lines, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{directory}: temper tokenize {' '.join(options)}: {done.stderr.strip()}")
    return [json.loads(line) for line in done.stdout.split("\n")[:-1]]


def compare(program, name, directory, texts, encode, decode):
    expected = [encode(text) for text in texts]
    for text, want, got in zip(texts, expected, temper(program, directory, ["--json"], texts), strict=True):
        if want != got:
            sys.exit(f"{name}: {text!r}: expected {want}, got {got}")
    for skip, options in ((False, []), (True, ["--skip-special-tokens"])):
        got_texts = temper(program, directory, ["--decode", "--json", *options], expected)
        for ids, got in zip(expected, got_texts, strict=True):
            want = decode(ids, skip)
            if want != got:
                sys.exit(f"{name}: decode {ids}, skipping special tokens: {skip}: expected {want!r}, got {got!r}")
    print(f"{name}: {len(texts)} texts equal")


def settings(rng):
    """Values of tokenizer.json's truncation and padding, and whether pairs may be cut so: with a stride, a text of a pair may become
    shorter than that, at which the package ends in a panic."""
    yield None, None, True
    for pairs in (True, True, False):
        truncation = {"max_length": rng.randint(5, 20), "stride": 0 if pairs else rng.randint(0, 2),
                      "strategy": rng.choice(["LongestFirst", "LongestFirst", "OnlyFirst", "OnlySecond"]) if pairs else "LongestFirst",
                      "direction": rng.choice(["Left", "Right"])}
        padding = {"strategy": rng.choice(["BatchLongest", {"Fixed": rng.randint(1, 24)}]), "direction": rng.choice(["Left", "Right"]),
                   "pad_to_multiple_of": rng.choice([None, 8]), "pad_id": rng.randint(0, 5), "pad_type_id": rng.randint(0, 1),
                   "pad_token": "[PAD]"}
        yield truncation, rng.choice([None, padding, padding]), pairs


def described(encoding, texts, processed, windows=True):
    """As `temper tokenize --encoding` prints it: offsets count bytes. Without a post-processor, the package does not know of a window's
    tokens which text they are from, but their types say it."""
    positions = []
    for text in texts:
        positions.append([0])
        for character in text:
            positions[-1].append(positions[-1][-1] + len(character.encode()))
    sequences = encoding.sequence_ids if processed else encoding.type_ids
    offsets = [[0, 0] if word is None else [positions[sequence][begin], positions[sequence][end]]
               for word, sequence, (begin, end) in zip(encoding.word_ids, sequences, encoding.offsets, strict=True)]
    return {"ids": encoding.ids, "tokens": encoding.tokens, "offsets": offsets, "word_ids": encoding.word_ids,
            "type_ids": encoding.type_ids, "special_tokens_mask": encoding.special_tokens_mask,
            "attention_mask": encoding.attention_mask,
            "overflowing": [described(part, texts, processed, False) for part in encoding.overflowing] if windows else []}


def compare_whole(program, name, scratch, definition, rng, texts, count):
    cut = 0
    for truncation, padding, pairs in settings(rng):
        file = scratch / "tokenizer.json"
        file.write_text(json.dumps({**definition, "truncation": truncation, "padding": padding}))
        reference = Tokenizer.from_file(str(file))
        fitting, refused = [], []
        for _ in range(count):
            first, second = rng.choice(texts), rng.choice(texts) if pairs and rng.random() < 0.7 else None
            value = first if second is None else (first, second)
            try:
                cut += bool(reference.encode(first, second).overflowing)
                fitting.append(value)
            except Exception:  # too short to be cut
                refused.append(value)
        answers = temper(program, scratch, ["--json", "--encoding"], fitting)
        for value, encoding, got in zip(fitting, reference.encode_batch(fitting), answers, strict=True):
            want = described(encoding, (value,) if isinstance(value, str) else value, definition["post_processor"] is not None)
            for key in want:
                if want[key] != got[key]:
                    sys.exit(f"{name}: {truncation}, {padding}: {value!r}: {key}: expected\n{want[key]}\ngot\n{got[key]}")
        for value in refused[:2]:
            done = subprocess.run([program, "tokenize", str(scratch), "--json", "--encoding"], input=json.dumps(value), text=True,
                                  capture_output=True)
            if done.returncode != 2:
                sys.exit(f"{name}: {truncation}: {value!r}: expected a refusal, got {done.stdout}")
    print(f"{name}: {4 * count} texts and pairs equal, {cut} of them cut")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("directories", nargs="*", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("TEMPER_SEED", 2)))
    parser.add_argument("--texts", type=int, default=10000 if os.environ.get("TEMPER_LONG") else 300)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        directories = arguments.directories
        if not directories:
            make_tokenizer.write(scratch / "made", arguments.seed, texts=0)
            directories = sorted((scratch / "made" / "tokenizer").iterdir())
            directories += sorted(SHARED.iterdir()) if SHARED.exists() else []
        for directory in directories:
            if not (directory / "tokenizer.json").exists():
                continue
            alone = scratch / "alone" / directory.parent.name / directory.name  # without what tokenizer_config.json would change
            alone.mkdir(parents=True, exist_ok=True)
            (alone / "tokenizer.json").symlink_to((directory / "tokenizer.json").resolve())
            reference = Tokenizer.from_file(str(directory / "tokenizer.json"))
            rng = random.Random(f"{arguments.seed} {directory.name}")
            specials = [token.content for token in reference.get_added_tokens_decoder().values()][:60]
            texts = [fuzzed(rng, specials) for _ in range(arguments.texts)]
            compare(arguments.program, directory.name, alone, texts, lambda text: reference.encode(text).ids,
                    lambda ids, skip: reference.decode(ids, skip_special_tokens=skip))
            whole = scratch / "whole" / directory.parent.name / directory.name
            whole.mkdir(parents=True)
            definition = json.loads((directory / "tokenizer.json").read_text())
            compare_whole(arguments.program, directory.name, whole, definition, rng, texts, max(arguments.texts // 20, 20))


if __name__ == "__main__":
    main()
