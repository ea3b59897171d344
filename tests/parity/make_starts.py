"""Goldens of LoRA's starts that look at data or quantise the base: peft 0.21.2's EVA and LoftQ.

Writes starts/model/ (a tiny Llama), starts/eva.json (batches and, for each case, what peft's initialize_lora_eva_weights makes of the ranks)
with the A matrices in starts/eva.safetensors; starts/pca.safetensors: its incremental PCA over some batches of rows;
starts/loftq.safetensors: what its loftq_init makes of a weight. LoftQ insists on CUDA there: the moves to it are left out here, and
bitsandbytes computes on the CPU.
"""

import argparse
import json
import pathlib
from unittest import mock

import bitsandbytes
import peft
import torch
from peft.tuners.lora.eva import initialize_lora_eva_weights
from peft.utils.incremental_pca import IncrementalPCA
from peft.utils.loftq_utils import loftq_init
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY = 48
CASES = {
    "default": {"r": 2, "target_modules": "all-linear"},
    "all_tokens": {"r": 2, "target_modules": "all-linear", "eva_config": {"use_label_mask": False, "tau": 0.95}},
    # Layers that share an input are divided by the deviations once for each of them there, so none do here.
    "whiten": {"r": 3, "lora_alpha": 5, "target_modules": ["v_proj", "o_proj", "down_proj"], "eva_config": {"whiten": True}},
    "keep": {"r": 2, "target_modules": ["k_proj", "o_proj", "up_proj"], "eva_config": {"rho": 1.0}},
    "patterns": {
        "r": 2,
        "target_modules": ["q_proj", "k_proj", "up_proj", "lm_head"],
        "rank_pattern": {"k_proj": 3, "layers.1.mlp.up_proj": 1},
        "alpha_pattern": {"up_proj": 4},
        "eva_config": {"rho": 1.5, "adjust_scaling_factors": False},
    },
}


def tiny_model(directory):
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
        # Directions that differ in their variance, as those of trained models do.
        model.model.embed_tokens.weight.mul_(0.6 ** torch.arange(16))
    model.save_pretrained(directory)
    return model


def make_batches(generator, count=5, rows=3):
    """Padded rows as transformers takes them; a row's first token is never supervised."""
    batches = []
    for _ in range(count):
        lengths = torch.randint(8, 20, (rows,), generator=generator).tolist()
        ids = torch.zeros(rows, max(lengths), dtype=torch.long)
        labels = torch.full_like(ids, -100)
        mask = torch.zeros_like(ids)
        for row, length in enumerate(lengths):
            ids[row, :length] = torch.randint(0, VOCABULARY, (length,), generator=generator)
            start = int(torch.randint(1, 5, (), generator=generator))
            labels[row, start:length] = ids[row, start:length]
            mask[row, :length] = 1
        batches.append({"input_ids": ids, "labels": labels, "attention_mask": mask})
    return batches


def eva(directory, settings, batches):
    eva_config = peft.tuners.lora.config.EvaConfig(**settings.get("eva_config", {}))
    config = peft.LoraConfig(init_lora_weights="eva", **{**settings, "eva_config": eva_config})
    model = peft.get_peft_model(LlamaForCausalLM.from_pretrained(directory, dtype=torch.float32), config)
    passes = []

    def forward(inner, inputs):
        passes.append(1)
        return inner(**inputs)

    initialize_lora_eva_weights(model, batches, forward_fn=forward, show_progress_bar=False)
    found = model.peft_config["default"]
    a = {
        name.removeprefix("base_model.model."): module.lora_A["default"].weight.detach().contiguous()
        for name, module in model.named_modules()
        if hasattr(module, "lora_A")
    }
    assert all(not module.lora_B["default"].weight.any() for module in model.modules() if hasattr(module, "lora_B"))
    scaling = {
        name.removeprefix("base_model.model."): module.scaling["default"] for name, module in model.named_modules() if hasattr(module, "lora_A")
    }
    result = {
        "settings": settings,
        "batches": len(passes) - 1,  # the first only compares the inputs
        "rank_pattern": found.rank_pattern,
        "alpha_pattern": found.alpha_pattern,
        "scaling": scaling,
    }
    return result, a


def pca(generator):
    tensors = {}
    found = IncrementalPCA(n_components=3, copy=True, lowrank=True, lowrank_seed=42)
    for i in range(4):
        rows = torch.randn(9 + i, 12, generator=generator) * 0.7 ** torch.arange(12) + torch.arange(12) * 0.1
        found.partial_fit(rows.clone())
        tensors[f"rows/{i}"] = rows
        tensors[f"components/{i}"] = found.components_.clone()
        tensors[f"singular_values/{i}"] = found.singular_values_.clone()
        tensors[f"explained/{i}"] = found.explained_variance_ratio_.clone()
    return {key: value.contiguous() for key, value in tensors.items()}


def on_the_cpu(method):
    def to(self, *arguments, **keywords):
        arguments = ["cpu" if str(one).startswith("cuda") else one for one in arguments]
        if str(keywords.get("device", "")).startswith("cuda"):
            keywords["device"] = "cpu"
        return method(self, *arguments, **keywords)

    return to


def loftq(generator):
    tensors = {}
    for name, bits, iterations, shape in (("nf4", 4, 1, (24, 40)), ("nf4_often", 4, 4, (40, 24)), ("int8", 8, 1, (24, 40)), ("int8_often", 8, 3, (24, 24))):
        weight = torch.randn(shape, generator=generator) * 0.3
        patches = [
            mock.patch.object(owner, "to", on_the_cpu(owner.to))
            for owner in (torch.Tensor, bitsandbytes.nn.Params4bit, bitsandbytes.nn.Int8Params)
        ]
        for patch in patches:
            patch.start()
        base, a, b = loftq_init(weight, num_bits=bits, reduced_rank=4, num_iter=iterations)
        for patch in patches:
            patch.stop()
        tensors |= {f"{name}/weight": weight, f"{name}/base": base, f"{name}/a": a, f"{name}/b": b}
    return {key: value.detach().contiguous().clone() for key, value in tensors.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(options.seed)
    out = options.out / "starts"
    out.mkdir(parents=True, exist_ok=True)
    tiny_model(out / "model")
    batches = make_batches(generator)
    cases, tensors = {}, {}
    for name, settings in CASES.items():
        cases[name], a = eva(out / "model", settings, batches)
        tensors |= {f"{name}/{module}": value for module, value in a.items()}
    listed = [{key: value.tolist() for key, value in batch.items()} for batch in batches]
    (out / "eva.json").write_text(json.dumps({"peft": peft.__version__, "batches": listed, "cases": cases}) + "\n")
    save_file(tensors, out / "eva.safetensors")
    save_file(pca(generator), out / "pca.safetensors")
    save_file(loftq(generator), out / "loftq.safetensors")


if __name__ == "__main__":
    main()
