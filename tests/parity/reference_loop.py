"""The plain PyTorch + transformers training loop that `temper train` must follow: full fine-tuning in float32, rows or TRL's packed rows
in order, gradient accumulation, clipping, cosine schedule, the loss normalised by the supervised tokens of the whole step."""

import json

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, get_scheduler
from trl.data_utils import pack_dataset


def encode(tokenizer, path, max_length):
    """Prompt-completion rows as TRL tokenizes them: the loss is on the completion, which ends with eos."""
    rows = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            prompt = tokenizer(row["prompt"])["input_ids"]
            ids = tokenizer(row["prompt"] + row["completion"])["input_ids"]
            if ids[-1] != tokenizer.eos_token_id:
                ids.append(tokenizer.eos_token_id)
            common = 0
            while common < min(len(prompt), len(ids)) and prompt[common] == ids[common]:
                common += 1
            labels = [-100] * common + ids[common:]
            rows.append((ids[:max_length], labels[:max_length]))
    return rows


def packed(rows, max_length):
    """TRL's bfd packing: the documents (ids, labels) of each packed row, in TRL's order of rows."""
    table = Dataset.from_dict({"input_ids": [ids for ids, _ in rows], "labels": [labels for _, labels in rows]})
    sequences = []
    for row in pack_dataset(table, max_length, "bfd"):
        documents, begin = [], 0
        for length in row["seq_lengths"]:
            documents.append((row["input_ids"][begin : begin + length], row["labels"][begin : begin + length]))
            begin += length
        sequences.append(documents)
    return sequences


def row_loss(model, ids, labels):
    """Sum of the negative log-likelihoods of one row, and how many there are. (Virtual tokens of PEFT stand before the row's own.)"""
    logits = model(input_ids=torch.tensor([ids])).logits[0, -len(ids) : -1]
    targets = torch.tensor(labels[1:])
    return torch.nn.functional.cross_entropy(logits.float(), targets, ignore_index=-100, reduction="sum"), int((targets != -100).sum())


def train(model_directory, path, *, packing, steps, batch, lr, warmup, max_norm, max_length):
    """Losses and gradient norms of every step. `batch`: rows, or packed rows (packing = "bfd"). Documents see nothing of each other, for
    each has a forward pass of its own."""
    tokenizer = AutoTokenizer.from_pretrained(model_directory)
    model = AutoModelForCausalLM.from_pretrained(model_directory, dtype=torch.float32)
    rows = encode(tokenizer, path, max_length)
    sequences = packed(rows, max_length) if packing == "bfd" else [[row] for row in rows]
    return train_model(model, sequences, steps=steps, batch=batch, lr=lr, warmup=warmup, max_norm=max_norm)


def train_model(model, sequences, *, steps, batch, lr, warmup, max_norm):
    """The same for a model and sequences (lists of documents) at hand; parameters that need no gradient stay."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    schedule = get_scheduler("cosine", optimizer, num_warmup_steps=warmup, num_training_steps=steps)
    per_epoch = -(-len(sequences) // batch)
    history = []
    for step in range(steps):
        start = (step % per_epoch) * batch
        chosen = [document for sequence in sequences[start : start + batch] for document in sequence]
        count = sum(sum(label != -100 for label in labels[1:]) for _, labels in chosen)
        total = 0.0
        optimizer.zero_grad()
        for ids, labels in chosen:
            loss, _ = row_loss(model, ids, labels)
            (loss / count).backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm).item()
        optimizer.step()
        schedule.step()
        history.append((total / count, norm))
    return history


def evaluation_loss(model_directory, rows):
    """Mean loss over all supervised tokens of `rows` (ids, labels), float32."""
    return loss_of(AutoModelForCausalLM.from_pretrained(model_directory, dtype=torch.float32), rows)


@torch.no_grad()
def loss_of(model, rows):
    """The same for a model at hand."""
    model.eval()
    total, count = 0.0, 0
    for ids, labels in rows:
        loss, n = row_loss(model, ids, labels)
        total += loss.item()
        count += n
    return total / count
