"""Casts to float8 and linear layers in float8 as torchao 0.17.0 computes them (emulated: the operands are rounded, products are float32).

Writes float8/float8.safetensors: "input/<case>" and for each way to cast "<way>/<case>.codes" (bytes) and ".scale"; for each recipe and
type of a layer "layer/<recipe>/<type>/" with x, weight, bias, dy and what comes of them: y, dx, dweight, dbias.
"""

import argparse
import dataclasses
import pathlib

import torch
import torchao
from safetensors.torch import save_file
from torchao.float8 import Float8LinearConfig, convert_to_float8_training
from torchao.float8.config import ScalingGranularity
from torchao.float8.float8_scaling_utils import hp_tensor_to_float8_dynamic

MADE_BY = f"torchao {torchao.__version__}, torch {torch.__version__}"
E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
# Format, dimension of the scales (None: one scale), rounded down to powers of two.
WAYS = {
    "tensorwise": (E4M3, None, False),
    "tensorwise_gradient": (E5M2, None, False),
    "rows": (E4M3, -1, True),
    "columns": (E4M3, 0, True),
}
ROWS, COLUMNS, OUTPUTS = 40, 48, 32  # rows are no multiple of 16


def inputs(generator):
    draw = lambda *shape: torch.randn(shape, generator=generator)
    steps = torch.arange(-480, 480).float() * 0.5 / 960  # values between codes
    cases = {
        "normal": draw(17, 48),
        "bf16": draw(19, 32).bfloat16(),
        "spread": draw(6, 40) * 2.0 ** torch.randint(-30, 30, (6, 40), generator=generator),
        "spread_bf16": (draw(6, 40) * 2.0 ** torch.randint(-12, 12, (6, 40), generator=generator)).bfloat16(),
        "steps": torch.cat([steps, torch.tensor([0.5, -0.5])]).view(2, 481),
        "powers": 2.0 ** torch.arange(-24, 24).float().view(3, 16),
        "zeros": torch.zeros(3, 16),
        "zero_row_and_column": draw(5, 16).bfloat16(),
        "signed_zero": draw(2, 20),
        "tiny": draw(4, 16) * 1e-20,  # below the least amax
        "huge": draw(4, 16) * 1e37,
        "single": torch.tensor([[-0.3]]),
    }
    cases["zero_row_and_column"][2] = 0
    cases["zero_row_and_column"][:, 7] = 0
    cases["signed_zero"][0, ::3] = -0.0
    return cases


def casts(generator):
    tensors = {}
    for case, matrix in inputs(generator).items():
        tensors[f"input/{case}"] = matrix
        for way, (dtype, dim, powers) in WAYS.items():
            granularity = ScalingGranularity.TENSORWISE if dim is None else ScalingGranularity.AXISWISE
            cast = hp_tensor_to_float8_dynamic(
                matrix, dtype, None, scaling_granularity=granularity, axiswise_dim=dim, round_scales_to_power_of_2=powers
            )
            tensors[f"{way}/{case}.codes"] = cast._data.view(torch.uint8).clone()
            tensors[f"{way}/{case}.scale"] = cast._scale.clone()
    return tensors


def layers(generator):
    tensors = {}
    for recipe in ("tensorwise", "rowwise"):
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            draw = lambda *shape: torch.randn(shape, generator=generator)
            layer = torch.nn.Sequential(torch.nn.Linear(COLUMNS, OUTPUTS, dtype=dtype))
            config = dataclasses.replace(Float8LinearConfig.from_recipe_name(recipe), emulate=True)
            # Columns and rows of unlike sizes, so that a scale along the wrong dimension is seen.
            weight = draw(OUTPUTS, COLUMNS) * 0.05 * torch.logspace(-2, 1, COLUMNS)
            with torch.no_grad():
                layer[0].weight.copy_(weight)
                layer[0].bias.copy_(draw(OUTPUTS))
            convert_to_float8_training(layer, config=config)
            x = (draw(ROWS, COLUMNS) * torch.logspace(1, -2, ROWS)[:, None]).to(dtype).requires_grad_()
            dy = (draw(ROWS, OUTPUTS) * 1e-3 * torch.logspace(-1, 1, OUTPUTS)).to(dtype)
            y = layer(x)
            y.backward(dy)
            of = layer[0]
            found = {"x": x, "weight": of.weight, "bias": of.bias, "dy": dy, "y": y, "dx": x.grad}
            found |= {"dweight": of.weight.grad, "dbias": of.bias.grad}
            tensors |= {f"layer/{recipe}/{name}/{key}": value.detach().clone() for key, value in found.items()}
    return tensors


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--seed", default=0, type=int)
    arguments = parser.parse_args()
    out = arguments.out / "float8"
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(arguments.seed)
    save_file(casts(generator) | layers(generator), out / "float8.safetensors", {"made_by": MADE_BY, "seed": str(arguments.seed)})


if __name__ == "__main__":
    main()
