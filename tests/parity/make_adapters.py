"""Goldens of the linear adapter methods other than LoRA: peft on one or two linear layers.

Writes adapters/<case>.safetensors, all float32: <module>/{x, weight, bias, dy, y, dx, merged_weight, merged_bias}, every
adapter tensor (random, under its key in adapter_model.safetensors) and grad/<key>; the settings, with names of
adapter_config.json, are in the metadata. adapters/vera_projection: what projection_prng_key gives. adapters/adalora_budget:
AdaLoRA's allocator over some steps. adapters/adalora_orthogonality: its regularisation.
"""

import argparse
import copy
import json
import pathlib
import types
import warnings

import peft
import torch
from peft.tuners.boft import layer as boft_layer
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

ROWS = 5
# (out features, in features) of the layers that a case has
Q, UP = {"q_proj": (12, 8)}, {"up_proj": (8, 16)}

CASES = {
    "ia3": ("IA3", {"feedforward_modules": []}, Q, True),
    "ia3_feedforward": ("IA3", {"feedforward_modules": ["q_proj"]}, Q, True),
    "loha": ("LOHA", {"r": 2, "alpha": 3}, Q, True),
    "loha_wide": ("LOHA", {"r": 4, "alpha": 8}, Q, False),
    "lokr": ("LOKR", {"r": 1, "alpha": 2}, Q, True),
    "lokr_whole": ("LOKR", {"r": 4, "alpha": 2}, Q, False),
    "lokr_both": ("LOKR", {"r": 1, "alpha": 2, "decompose_both": True}, UP, True),
    "lokr_factor": ("LOKR", {"r": 1, "alpha": 1, "decompose_factor": 3}, Q, False),
    "vera": ("VERA", {"r": 6}, Q | UP, True),
    "vera_unsaved": ("VERA", {"r": 3, "save_projection": False, "projection_prng_key": 7}, Q, False),
    "oft": ("OFT", {"oft_block_size": 4}, Q, True),
    "oft_count": ("OFT", {"r": 4, "oft_block_size": 0, "num_cayley_neumann_terms": 3}, Q, False),
    "oft_terms": ("OFT", {"oft_block_size": 4, "num_cayley_neumann_terms": 7}, Q, False),
    "oft_exact": ("OFT", {"oft_block_size": 4, "use_cayley_neumann": False}, UP, True),
    "oft_shared": ("OFT", {"oft_block_size": 2, "block_share": True}, Q, False),
    "oft_constrained": ("OFT", {"oft_block_size": 4, "coft": True, "eps": 0.45}, UP, False),
    "boft": ("BOFT", {"boft_block_size": 4}, Q, True),
    "boft_count": ("BOFT", {"boft_block_size": 0, "boft_block_num": 1}, Q, False),
    "boft_butterfly": ("BOFT", {"boft_block_size": 2, "boft_n_butterfly_factor": 3}, UP, True),
    "adalora": ("ADALORA", {"init_r": 3, "lora_alpha": 8, "total_step": 10}, Q, True),
}


class BlockDiagonal:
    """Stands in for BOFT's CUDA extension, without which peft takes one butterfly factor."""

    @staticmethod
    def forward(blocks):
        return [torch.stack([torch.block_diag(*factor) for factor in blocks])]

    @staticmethod
    def backward(gradient, blocks):
        _, count, size, _ = blocks.shape
        gradient = gradient.view(-1, count, size, count, size)
        return [torch.stack([gradient[:, i, :, i] for i in range(count)], dim=1)]


class Layers(torch.nn.Module):
    """Linear layers side by side; forward takes and gives one tensor for each."""

    def __init__(self, shapes, bias):
        super().__init__()
        for name, (out_features, in_features) in shapes.items():
            self.add_module(name, torch.nn.Linear(in_features, out_features, bias=bias))

    def forward(self, inputs):
        return {name: getattr(self, name)(x) for name, x in inputs.items()}


class WithLoss(Layers):
    def forward(self, inputs):
        return types.SimpleNamespace(loss=sum(y.sum() for y in super().forward(inputs).values()) * 0)


def randomised(model, generator):
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            around = 1.0 if "ia3_l" in name or "boft_s" in name else 0.0
            size = 0.2 if "oft_R" in name or "boft_R" in name else 0.5
            with torch.no_grad():
                parameter.copy_(around + size * torch.randn(parameter.shape, generator=generator))
    return model


CONFIGS = {
    "IA3": peft.IA3Config,
    "LOHA": peft.LoHaConfig,
    "LOKR": peft.LoKrConfig,
    "VERA": peft.VeraConfig,
    "OFT": peft.OFTConfig,
    "BOFT": peft.BOFTConfig,
    "ADALORA": peft.AdaLoraConfig,
}


def adapted(method, options, shapes, bias, model_class=Layers):
    config = CONFIGS[method](target_modules=list(shapes), **options)
    extension = BlockDiagonal if options.get("boft_n_butterfly_factor", 1) > 1 else None
    boft_layer.get_fbd_cuda = lambda: extension
    return peft.get_peft_model(model_class(shapes, bias), config), config


def settings(config):
    kept = {}
    for key, value in config.to_dict().items():
        if isinstance(value, (bool, int, float, str)) or key in ("feedforward_modules",):
            kept[key] = sorted(value) if isinstance(value, (set, list)) else value
    kept["peft_type"] = config.peft_type.value
    return kept


def case(method, options, shapes, bias, generator):
    model, config = adapted(method, options, shapes, bias)
    randomised(model, generator)
    tensors = {}
    for name, (out_features, in_features) in shapes.items():
        base = model.base_model.model.get_submodule(name).get_base_layer()
        with torch.no_grad():
            base.weight.copy_(torch.randn(base.weight.shape, generator=generator))
            tensors[f"{name}/weight"] = base.weight.clone()
            if bias:
                base.bias.copy_(torch.randn(base.bias.shape, generator=generator))
                tensors[f"{name}/bias"] = base.bias.clone()
    inputs = {
        name: torch.randn(ROWS, shape[1], generator=generator).requires_grad_() for name, shape in shapes.items()
    }
    # Before forward: the constrained OFT projects its weights there.
    for key, tensor in get_peft_model_state_dict(model).items():
        tensors[key] = tensor.clone().contiguous()
    outputs = model.base_model.model(inputs)
    loss = 0
    for name, y in outputs.items():
        dy = torch.randn(y.shape, generator=generator)
        loss = loss + (y * dy).sum()
        tensors |= {f"{name}/x": inputs[name].detach(), f"{name}/dy": dy, f"{name}/y": y.detach()}
    loss.backward()
    for name, x in inputs.items():
        tensors[f"{name}/dx"] = x.grad
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            tensors["grad/" + name.replace(".default", "")] = parameter.grad
    merged = copy.deepcopy(model).merge_and_unload()
    for name in shapes:
        linear = merged.get_submodule(name)
        tensors[f"{name}/merged_weight"] = linear.weight.detach().contiguous()
        if bias:
            tensors[f"{name}/merged_bias"] = linear.bias.detach()
    return tensors, settings(config)


def vera_projection():
    shapes = {"k_proj": (4, 8), "gate_proj": (20, 8), "down_proj": (8, 20)}
    model, config = adapted("VERA", {"r": 5, "projection_prng_key": 11}, shapes, False)
    state = get_peft_model_state_dict(model)
    return {key: state[key].clone() for key in ("base_model.vera_A", "base_model.vera_B")}, settings(config)


def adalora_budget(generator):
    """Weights before each step's allocation, gradients, and the singular values after it."""
    shapes = {"q_proj": (6, 5), "v_proj": (4, 5)}
    steps = 14
    options = {"init_r": 4, "target_r": 2, "tinit": 2, "tfinal": 3, "deltaT": 2, "total_step": steps}
    model, config = adapted("ADALORA", options, shapes, False)
    trained = {n.replace(".default", ""): p for n, p in model.named_parameters() if p.requires_grad}
    before = {name: torch.zeros(steps, *p.shape) for name, p in trained.items()}
    gradients = {name: torch.zeros(steps, *p.shape) for name, p in trained.items()}
    after = {name: torch.zeros(steps, *p.shape) for name, p in trained.items() if name.endswith("lora_E")}
    for step in range(1, steps + 1):
        for name, parameter in trained.items():
            with torch.no_grad():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
            parameter.grad = torch.randn(parameter.shape, generator=generator)
            before[name][step - 1] = parameter.detach()
            gradients[name][step - 1] = parameter.grad
        model.base_model.update_and_allocate(step)
        for name in after:
            after[name][step - 1] = trained[name].detach()
    tensors = {f"before/{n}": t for n, t in before.items()} | {f"grad/{n}": t for n, t in gradients.items()}
    return tensors | {f"after/{n}": t for n, t in after.items()}, settings(config)


def adalora_orthogonality(generator):
    shapes = {"q_proj": (6, 5), "v_proj": (4, 5)}
    options = {"init_r": 3, "target_r": 2, "total_step": 10, "orth_reg_weight": 0.3}
    model, config = adapted("ADALORA", options, shapes, False, WithLoss)
    randomised(model, generator)
    outputs = model.base_model({name: torch.zeros(1, shape[1]) for name, shape in shapes.items()})
    outputs.loss.backward()
    tensors = {"loss": outputs.loss.detach()}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = name.replace(".default", "")
            tensors |= {key: parameter.detach(), "grad/" + key: parameter.grad}
    return tensors, settings(config)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--seed", default=0, type=int)
    arguments = parser.parse_args()
    out = arguments.out / "adapters"
    out.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    torch.manual_seed(arguments.seed)
    generator = torch.Generator().manual_seed(arguments.seed)

    made = {name: case(*rest, generator) for name, rest in CASES.items()}
    made["vera_projection"] = vera_projection()
    made["adalora_budget"] = adalora_budget(generator)
    made["adalora_orthogonality"] = adalora_orthogonality(generator)
    for name, (tensors, config) in made.items():
        metadata = {
            "made_by": f"peft {peft.__version__}, torch {torch.__version__}",
            "settings": json.dumps(config, sort_keys=True),
        }
        save_file(tensors, out / f"{name}.safetensors", metadata)


if __name__ == "__main__":
    main()
