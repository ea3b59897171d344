#!/usr/bin/env python3
"""Golden files for rows whose texts are taken whole, from transformers 5.23.0 and sentence-transformers 6.2.0.

    make_whole_texts.py --out tests/parity/golden [--seed 0]

With the tokenizers of golden/chat and golden/tokenizer/bert: rows of classification, pairs and triplets, and the input ids that transformers' tokenizer (classification) and the
Transformer modules of a SentenceTransformer (embed) and a CrossEncoder make of them, whole and cut to a length. Equality is exact.
"""
import argparse
import json
import pathlib
import random
import tempfile

import transformers
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

from make_chat import text

GOLDEN = pathlib.Path(__file__).resolve().parent / "golden"
SPECIAL = {"chat": dict(bos_token="<s>", eos_token="</s>", pad_token="</s>"),
           "bert": dict(cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]", pad_token="[PAD]")}
FILES = {"chat": GOLDEN / "chat" / "tokenizer" / "tokenizer.json", "bert": GOLDEN / "tokenizer" / "bert" / "tokenizer.json"}
LABELS = [0, 1, 0.25, "good", ["good", "long"], True]


def texts(rng):
    return text(rng, rng.choice([1, 3, 20]))


def rows_of(kind, rng, count):
    rows = []
    for i in range(count):
        if kind == "classify":
            row = {"text": texts(rng), "label": LABELS[i % len(LABELS)]}
            if i % 2:
                row["text_pair"] = texts(rng)
        else:
            row = {"anchor": texts(rng), "positive": texts(rng)}
            if count > 4:
                row["negative"] = texts(rng)
            if i % 2:
                row["score"] = 0.5
        rows.append(row)
    return rows


def ids_of(kind, row, tokenizer, embedder, scorer):
    """The documents of a row."""
    def module(model, value):
        return model.preprocess([value])["input_ids"][0].tolist()

    others = [row[name] for name in ("positive", "negative") if name in row]
    if kind == "classify":
        return [tokenizer(row["text"], row.get("text_pair"), truncation=True)["input_ids"]]
    if kind == "embed":
        return [module(embedder, each) for each in (row["anchor"], *others)]
    return [module(scorer, (row["anchor"], other)) for other in others]


def cases(rng, scratch):
    for name in FILES:
        for side in ("right", "left"):
            tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(FILES[name]), truncation_side=side, **SPECIAL[name])
            directory = pathlib.Path(scratch) / f"{name}_{side}"
            config = transformers.BertConfig(vocab_size=len(tokenizer), hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, num_labels=1)
            transformers.BertForSequenceClassification(config).save_pretrained(directory)
            tokenizer.save_pretrained(directory)
            for max_length in (512, 12, 7):
                tokenizer.model_max_length = max_length
                base = Transformer(str(directory), max_seq_length=max_length)
                embedder = SentenceTransformer(modules=[base, Pooling(8)], device="cpu")
                scorer = CrossEncoder(str(directory), max_length=max_length, device="cpu")
                for kind, count in (("classify", 6), ("embed", 4), ("embed", 5), ("cross_encoder", 4), ("cross_encoder", 5)):
                    rows = rows_of(kind, rng, count)
                    yield {"kind": kind, "tokenizer": name, "side": side, "max_length": max_length, "rows": rows,
                           "documents": [ids_of(kind, row, tokenizer, embedder, scorer) for row in rows]}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    out = pathlib.Path(arguments.out) / "whole_texts"
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, open(out / "cases.jsonl", "w", encoding="utf-8") as stream:
        for case in cases(random.Random(arguments.seed), scratch):
            stream.write(json.dumps(case, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
