"""Goldens of gkd and distill: TRL's own divergences of a small student and a wider teacher, with gradients and entropy.

Writes distillation/{student, teacher}/{config.json, model.safetensors} (bfloat16 values; computing is float32 on the CPU) and
distillation/expected.json: rows with their supervised tokens, and one setting of beta and temperature a case.
"""

import argparse
import json
import pathlib

import torch
import transformers
import trl
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM
from trl.experimental.gkd import GKDTrainer
from trl.trainer.distillation_trainer import _chunked_divergence_loss

SHAPES = {
    "student": {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 1},
    "teacher": {"hidden_size": 48, "intermediate_size": 64, "num_attention_heads": 6, "num_key_value_heads": 3, "num_hidden_layers": 2},
}
VOCABULARY = 96
PROMPTS, COMPLETIONS = [4, 1, 7], [9, 5, 3]
BETAS, TEMPERATURES = [0.0, 0.1, 0.5, 1.0], [1.0, 0.9]


def make_model(name, directory):
    config = LlamaConfig(**SHAPES[name], vocab_size=VOCABULARY, max_position_embeddings=64, initializer_range=0.3,
                         tie_word_embeddings=name == "teacher", attn_implementation="eager")
    model = LlamaForCausalLM(config).float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16().float())
    folder = directory / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config.to_dict() | {"architectures": ["LlamaForCausalLM"]}, indent=1) + "\n")
    save_file({k: p.detach().bfloat16().contiguous() for k, p in model.named_parameters()}, folder / "model.safetensors",
              metadata={"format": "pt"})
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--seed", default=1, type=int)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    out = arguments.out / "distillation"
    student, teacher = make_model("student", out), make_model("teacher", out)

    width = max(p + c for p, c in zip(PROMPTS, COMPLETIONS))
    ids = torch.zeros(len(PROMPTS), width, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    mask = torch.zeros_like(ids)
    rows = []
    for r, (prompt, completion) in enumerate(zip(PROMPTS, COMPLETIONS)):
        row = torch.randint(VOCABULARY, (prompt + completion,))
        ids[r, : len(row)] = row
        labels[r, prompt : len(row)] = row[prompt:]
        mask[r, : len(row)] = 1
        rows.append({"ids": row.tolist(), "prompt": prompt})
    targets = sum(COMPLETIONS)

    cases = []
    for beta in BETAS:
        for temperature in TEMPERATURES:
            student.zero_grad()
            inputs = {"input_ids": ids, "attention_mask": mask}
            with torch.no_grad():
                taught = teacher(**inputs).logits[:, :-1]
            gkd = GKDTrainer.generalized_jsd_loss(student(**inputs).logits[:, :-1], taught, labels[:, 1:], beta, temperature,
                                                  num_items_in_batch=targets)
            gkd.backward()
            norms = {k: p.grad.double().norm().item() for k, p in student.named_parameters()}
            student.zero_grad()
            with torch.no_grad():
                taught = teacher.model(**inputs).last_hidden_state[:, :-1]
            distill, entropy, count = _chunked_divergence_loss(
                student.model(**inputs).last_hidden_state[:, :-1], taught, student.lm_head.weight, teacher.lm_head.weight,
                (labels[:, 1:] != -100).long(), beta, num_items_in_batch=targets, temperature=temperature)
            distill.backward()
            assert count == targets
            cases.append({
                "beta": beta, "temperature": temperature, "gkd": gkd.item(), "distill": distill.item(), "entropy": entropy.item(),
                "gkd_gradient_norm": norms,
                "distill_gradient_norm": {k: p.grad.double().norm().item() for k, p in student.named_parameters()},
            })
    made_by = f"trl {trl.__version__}, transformers {transformers.__version__}, torch {torch.__version__}"
    document = f'{{"made_by": {json.dumps(made_by)}, "rows": {json.dumps(rows)},\n"cases": [\n'
    (out / "expected.json").write_text(document + ",\n".join(map(json.dumps, cases)) + "\n]}\n")


if __name__ == "__main__":
    main()
