"""LoRA adapters combined by PEFT, for tests/parity/combine_test.cpp.

    make_combine.py --out tests/parity/golden [--seed N]

Made with peft 0.21.2's add_weighted_adapter on a tiny model of two linear layers; the second adapter sits on the first layer alone.
"""

import argparse
import json
import warnings
from pathlib import Path

import peft
import torch
from safetensors.torch import save_file

CASES = [
    {"type": "linear", "weights": [0.7, 0.4, -0.3], "ranks": [4, 4, 4]},
    {"type": "cat", "weights": [0.7, 0.4, -0.3], "ranks": [4, 2, 3]},
    {"type": "svd", "weights": [0.7, 0.4, -0.3], "ranks": [4, 2, 3]},
    {"type": "ties", "weights": [0.7, 0.4, -0.3], "ranks": [4, 4, 4], "density": 0.6},
    {"type": "ties", "weights": [1.0, 1.0, 1.0], "ranks": [3, 3, 3], "density": 0.25},
    {"type": "ties", "weights": [0.5, 2.0, 1.0], "ranks": [2, 2, 2], "density": 1.0},
    {"type": "svd", "weights": [2.5], "ranks": [3]},
]


class Layers(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(10, 7)
        self.second = torch.nn.Linear(7, 12)

    def forward(self, x):
        return self.second(self.first(x))


def factors(module, adapter):
    return {"a": module.lora_A[adapter].weight, "b": module.lora_B[adapter].weight}


def case(number, setting, tensors):
    names = [f"adapter{i}" for i in range(len(setting["weights"]))]
    model = None
    scalings = []
    for i, (name, rank) in enumerate(zip(names, setting["ranks"])):
        config = peft.LoraConfig(r=rank, lora_alpha=2 * i + 3, target_modules=["first"] if i == 1 else ["first", "second"], init_lora_weights=False)
        scalings.append(config.lora_alpha / rank)
        if model is None:
            model = peft.get_peft_model(Layers(), config, adapter_name=name)
        else:
            model.add_adapter(name, config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    model.add_weighted_adapter(names, setting["weights"], "all", combination_type=setting["type"], density=setting.get("density"))
    modules = {"first": model.base_model.model.first, "second": model.base_model.model.second}
    for layer, module in modules.items():
        for i, name in enumerate(names):
            if name in module.lora_A:
                for side, tensor in factors(module, name).items():
                    tensors[f"{number}.{i}.{layer}.{side}"] = tensor.detach().clone().contiguous()
        for side, tensor in factors(module, "all").items():
            tensors[f"{number}.all.{layer}.{side}"] = tensor.detach().clone().contiguous()
    config = model.peft_config["all"]
    return {**setting, "scalings": scalings, "r": config.r, "lora_alpha": config.lora_alpha}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(arguments.seed)
    directory = arguments.out / "combine"
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {}
    cases = [case(number, setting, tensors) for number, setting in enumerate(CASES)]
    save_file(tensors, directory / "tensors.safetensors")
    made_with = {"peft": peft.__version__, "torch": torch.__version__, "seed": arguments.seed}
    (directory / "cases.json").write_text(json.dumps({"made_with": made_with, "cases": cases}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
