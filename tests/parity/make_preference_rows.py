#!/usr/bin/env python3
"""Golden files for rows whose completions are compared or sampled, from TRL 1.16.0.

    make_preference_rows.py --out tests/parity/golden [--seed 0]

With the tokenizer and templates of golden/chat: rows as users have them, and what the train_dataset (and collator, where that cuts) of TRL's DPO, KTO, ORPO, CPO, Reward and GRPO
trainers makes of them: ids, which of them are the completion, labels and margins, in TRL's order. Rows that TRL leaves without a completion are left out. Equality is exact.
"""
import argparse
import json
import pathlib
import random
import tempfile

import datasets
import torch
import transformers
import trl
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from make_chat import TEMPLATES, text

CHAT = pathlib.Path(__file__).resolve().parent / "golden" / "chat"


def turn(role, content):
    return {"role": role, "content": content}


def texts(rng, count):
    """Prompts and answers that share beginnings, end in spaces, and end inside what a tokenizer would merge."""
    rows = []
    for i in range(count):
        prompt = text(rng, 6) + ["", " ", "\n", " th"][i % 4]
        shared = text(rng, 2) if i % 3 == 0 else ""
        rows.append({"prompt": prompt, "chosen": shared + text(rng), "rejected": shared + text(rng) + ["", "</s>"][i % 2]})
    return rows


def without_prompt(rows):
    return [{"chosen": row["prompt"] + row["chosen"], "rejected": row["prompt"] + row["rejected"]} for row in rows]


def chats(rng, count):
    rows = []
    for i in range(count):
        prompt = [turn("system", text(rng, 3))] if i % 2 else []
        if i % 3 == 0:
            prompt += [turn("user", text(rng, 3)), turn("assistant", text(rng, 3))]
        prompt.append(turn("user", text(rng)))
        rows.append({"prompt": prompt, "chosen": [turn("assistant", text(rng))], "rejected": [turn("assistant", text(rng, 3))]})
    return rows


def unpaired(rows, rng):
    return [{"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"} for row in rows for side in rng.sample(["chosen", "rejected"], 1)]


def tokenizer_of(template):
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(CHAT / "tokenizer" / "tokenizer.json"), bos_token="<s>", eos_token="</s>", pad_token="</s>")
    tokenizer.chat_template = TEMPLATES[template] if template else None
    return tokenizer


def tiny_model(tokenizer, classes=None):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, pad_token_id=tokenizer.pad_token_id)
    if classes:
        config.num_labels = classes
        return transformers.LlamaForSequenceClassification(config)
    return transformers.LlamaForCausalLM(config)


TRAINERS = {"dpo": (trl.DPOTrainer, trl.DPOConfig), "kto": (trl.KTOTrainer, trl.KTOConfig), "orpo": (ORPOTrainer, ORPOConfig), "cpo": (CPOTrainer, CPOConfig),
            "reward": (trl.RewardTrainer, trl.RewardConfig), "grpo": (trl.GRPOTrainer, trl.GRPOConfig)}


def trainer_of(kind, rows, template, max_length, scratch):
    trainer, config = TRAINERS[kind]
    tokenizer = tokenizer_of(template)
    settings = dict(output_dir=scratch, use_cpu=True, bf16=False, report_to=[], per_device_train_batch_size=2)
    extra = {}
    if kind in ("dpo", "kto"):
        extra["ref_model"] = tiny_model(tokenizer)
    if kind == "grpo":
        settings["num_generations"] = 2
        extra["reward_funcs"] = lambda completions, **_: [0.0] * len(completions)
    else:
        settings["max_length"] = max_length
    return trainer(model=tiny_model(tokenizer, 1 if kind == "reward" else None), args=config(**settings), train_dataset=datasets.Dataset.from_list(rows),
                   processing_class=tokenizer, **extra)


def document(ids, begin):
    return {"ids": list(ids), "mask": "0" * min(begin, len(ids)) + "1" * max(0, len(ids) - begin)}


def prepared(kind, trainer, rows, max_length):
    """What the loss sees of each row: documents, and what is kept beside them."""
    if kind == "grpo":
        ids = trainer._tokenize_prompts([row["prompt"] for row in rows])[0]
        return [{"documents": [document(each, len(each))], "columns": {}} for each in ids]
    result = []
    for row in trainer.train_dataset:
        columns = {}
        if kind == "dpo":
            begin = len(row["prompt_ids"])
            documents = [document((row["prompt_ids"] + row[side])[:max_length], begin) for side in ("chosen_ids", "rejected_ids")]
        elif kind == "kto":
            documents = [document((row["prompt_ids"] + row["completion_ids"])[:max_length], len(row["prompt_ids"]))]
            columns = {"label": bool(row["label"])}
        elif kind == "reward":
            documents = [{"ids": list(row[side])} for side in ("chosen_ids", "rejected_ids")]
            columns = {"margin": row["margin"]} if "margin" in row else {}
        else:
            documents = []
            for side in ("chosen", "rejected"):
                labels = row[side + "_labels"]
                documents.append(document(row[side + "_input_ids"], sum(label == -100 for label in labels)))
        if kind == "reward" or all("1" in each["mask"] for each in documents):
            result.append({"documents": documents, "columns": columns})
    return result


def cases(rng, scratch):
    def case(kind, rows, template=None, max_length=512):
        trainer = trainer_of(kind, rows, template, max_length, scratch)
        return {"kind": kind, "template": template, "max_length": max_length, "rows": rows, "prepared": prepared(kind, trainer, rows, max_length)}

    for kind in ("dpo", "kto", "orpo", "cpo", "reward"):
        yield case(kind, texts(rng, 6))
        yield case(kind, texts(rng, 6), max_length=24)
        yield case(kind, without_prompt(texts(rng, 6)))
        yield case(kind, chats(rng, 4), "chatml")
        yield case(kind, chats(rng, 3), "llama3", 40)
        yield case(kind, without_prompt(chats(rng, 3)), "llama3")
    yield case("reward", [{**row, "margin": round(rng.random(), 3)} for row in texts(rng, 3)])
    yield case("kto", unpaired(texts(rng, 5), rng))
    yield case("kto", unpaired(chats(rng, 3), rng), "chatml")
    yield case("grpo", [{"prompt": row["prompt"]} for row in texts(rng, 4)])
    yield case("grpo", [{"prompt": row["prompt"]} for row in chats(rng, 3)], "llama3")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    out = pathlib.Path(arguments.out) / "preference_rows"
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, open(out / "cases.jsonl", "w", encoding="utf-8") as stream:
        for case in cases(random.Random(arguments.seed), scratch):
            print(case["kind"], case["template"], case["max_length"], len(case["prepared"]), flush=True)
            if not case["prepared"]:
                continue  # nothing is left of the rows
            stream.write(json.dumps(case, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
