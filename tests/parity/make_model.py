"""Golden values of small decoders: transformers' loss, hidden states and gradients for every architecture, rope scaling
and option that trainer/models reads. Weights are bfloat16 values (small files), all computing is float32 on the CPU; the loss and
hidden states once more in float16.

usage: make_model.py --out DIR [--seed N]       writes DIR/model/<case>/{config.json, model.safetensors, expected.json}
"""

import argparse
import copy
import json
import pathlib

import torch
import torch.nn.functional as F
import transformers
import trl
from safetensors.torch import save_file
from trl.trainer.utils import entropy_from_logits

BASE = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            head_dim=8, vocab_size=96, max_position_embeddings=64, initializer_range=0.3, rms_norm_eps=1e-5)
ROWS = [[7, 20, 13], [40]]  # documents packed in rows

ARCHITECTURES = {
    "llama": transformers.LlamaForCausalLM,
    "mistral": transformers.MistralForCausalLM,
    "qwen2": transformers.Qwen2ForCausalLM,
    "qwen3": transformers.Qwen3ForCausalLM,
    "gpt2": transformers.GPT2LMHeadModel,
}
BASES = {"gpt2": dict(n_embd=32, n_layer=2, n_head=4, vocab_size=96, n_positions=40, initializer_range=0.3)}


def rope(kind, **keys):
    return dict(rope_parameters=dict(rope_type=kind, rope_theta=10000.0, **keys))


LONG = dict(short_factor=[1.0, 1.1, 1.3, 1.5], long_factor=[1.0, 2.0, 3.5, 6.0])
CASES = {
    "llama": ("llama", {}),
    "llama-old-names": ("llama", dict(old_names=True, **rope("linear", factor=2.0))),
    "llama-tied-biases": ("llama", dict(tie_word_embeddings=True, attention_bias=True, mlp_bias=True)),
    "llama-multi-head": ("llama", dict(num_key_value_heads=4, head_dim=6, num_hidden_layers=1)),
    "llama-dynamic": ("llama", dict(max_position_embeddings=16, num_hidden_layers=1, **rope("dynamic", factor=4.0))),
    "llama-yarn": ("llama", dict(num_hidden_layers=1,
                                 **rope("yarn", factor=4.0, original_max_position_embeddings=16, beta_fast=4.0))),
    "llama-yarn-mscale": ("llama", dict(num_hidden_layers=1,
                                        **rope("yarn", factor=4.0, original_max_position_embeddings=16, mscale=0.7,
                                               mscale_all_dim=1.1, truncate=False))),
    "llama-longrope": ("llama", dict(num_hidden_layers=1,
                                     **rope("longrope", original_max_position_embeddings=16, factor=4.0, **LONG))),
    "llama3": ("llama", dict(num_hidden_layers=1,
                             **rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                    original_max_position_embeddings=32))),
    "mistral": ("mistral", dict(sliding_window=6)),
    "mistral-no-window": ("mistral", dict(sliding_window=None, num_hidden_layers=1)),
    "qwen2": ("qwen2", {}),
    "qwen2-window-tied": ("qwen2", dict(use_sliding_window=True, sliding_window=5, max_window_layers=1,
                                        tie_word_embeddings=True)),
    "qwen3": ("qwen3", dict(head_dim=16)),
    "qwen3-layer-types": ("qwen3", dict(use_sliding_window=True, sliding_window=9, attention_bias=True,
                                        layer_types=["sliding_attention", "full_attention"])),
    "gpt2": ("gpt2", {}),
    "gpt2-without-prefix": ("gpt2", dict(without_prefix=True, n_layer=1, n_inner=48, activation_function="gelu")),
    "gpt2-untied": ("gpt2", dict(n_layer=1, n_inner=48, activation_function="gelu_pytorch_tanh", layer_norm_epsilon=1e-3,
                                 tie_word_embeddings=False)),
}


def summary(tensor):
    flat = tensor.detach().double().flatten()
    step = max(1, flat.numel() // 5)
    return {"norm": flat.norm().item(), "step": step, "values": flat[::step].tolist()}


def make(name, out, seed):
    architecture, changes = CASES[name]
    changes = dict(changes)
    old_names = changes.pop("old_names", False)
    without_prefix = changes.pop("without_prefix", False)
    torch.manual_seed(seed)
    config_class = ARCHITECTURES[architecture].config_class
    config = config_class(**{**BASES.get(architecture, BASE), **changes}, attn_implementation="eager", bos_token_id=1, eos_token_id=2)
    model = ARCHITECTURES[architecture](config).float()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith(("norm.weight", "ln_1.weight", "ln_2.weight", "ln_f.weight")):
                parameter.uniform_(0.5, 1.5)
            elif key.endswith("bias"):
                parameter.normal_(0, 0.2)
            parameter.copy_(parameter.bfloat16().float())

    ids = torch.randint(0, config.vocab_size, (sum(map(sum, ROWS)),)).tolist()
    expected = {"rows": ROWS, "ids": ids, "labels": []}
    nll = dft = entropy = correct = count = half_nll = 0
    hidden, half_hidden = [], []
    start = 0
    for row in ROWS:
        for length in row:
            document = torch.tensor(ids[start:start + length])[None]
            start += length
            # A copy with the same parameters: dynamic rope remembers the longest sequence it has seen.
            fresh = ARCHITECTURES[architecture](copy.deepcopy(config)).eval()
            for (key, parameter), (_, own) in zip(model.named_parameters(), list(fresh.named_parameters())):
                module = fresh.get_submodule(key.rpartition(".")[0])
                setattr(module, key.rpartition(".")[2], parameter)
            if config.tie_word_embeddings:
                fresh.lm_head.weight = model.get_input_embeddings().weight
            states = fresh.base_model(input_ids=document).last_hidden_state
            hidden.append(states[0])
            logits = fresh.lm_head(states)[0, :-1]
            labels = document[0, 1:].clone()
            labels[::5] = -100
            expected["labels"] += labels.tolist() + [-100]
            keep = labels != -100
            logits, labels = logits[keep], labels[keep]
            logp = -F.cross_entropy(logits, labels, reduction="none")
            nll = nll - logp.sum()
            dft = dft - (logp.exp().detach() * logp).sum()
            entropy += entropy_from_logits(logits).sum().item()
            correct += (logits.argmax(-1) == labels).sum().item()
            count += labels.numel()
            half = copy.deepcopy(fresh).half()
            with torch.no_grad():
                half_states = half.base_model(input_ids=document).last_hidden_state
                half_hidden.append(half_states[0])
                half_nll += F.cross_entropy(half.lm_head(half_states)[0, :-1][keep].float(), labels, reduction="sum").item()
    hidden = torch.cat(hidden)
    expected |= {"nll": nll.item(), "dft": dft.item(), "entropy": entropy, "correct": correct, "count": count,
                 "hidden": summary(hidden), "half_nll": half_nll, "half_hidden": summary(torch.cat(half_hidden))}
    dft.backward(retain_graph=True)
    expected["dft_gradient_norm"] = {k: p.grad.double().norm().item() for k, p in model.named_parameters()}
    model.zero_grad()
    nll.backward()
    expected["gradient"] = {k: summary(p.grad) for k, p in model.named_parameters()}
    expected["made_with"] = {"transformers": transformers.__version__, "torch": torch.__version__, "trl": trl.__version__}

    directory = out / "model" / name
    directory.mkdir(parents=True, exist_ok=True)
    written = config.to_dict()
    if old_names:
        parameters = written.pop("rope_parameters")
        written["rope_theta"] = parameters.pop("rope_theta")
        written["rope_scaling"] = {"type": parameters.pop("rope_type"), **parameters}
        written["torch_dtype"] = written.pop("dtype", None) or "bfloat16"
    written["architectures"] = [ARCHITECTURES[architecture].__name__]
    (directory / "config.json").write_text(json.dumps(written, indent=1) + "\n")
    tensors = {k: p.detach().bfloat16().contiguous() for k, p in model.named_parameters()}
    if without_prefix:  # as the hub's gpt2, buffers of old versions included
        tensors = {k.removeprefix("transformer."): tensor for k, tensor in tensors.items()}
        size = config.n_positions
        tensors["h.0.attn.bias"] = torch.ones(size, size).tril().view(1, 1, size, size).bfloat16()
        tensors["h.0.attn.masked_bias"] = torch.tensor(-1e4).bfloat16()
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "expected.json").write_text(json.dumps(expected) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for index, case in enumerate(CASES):
        make(case, arguments.out, arguments.seed + index)
