"""Weights in 4 and 8 bits and 8-bit AdamW as bitsandbytes 0.50.2 makes them on the CPU.

Writes quantized/weights.safetensors: "input/<case>", and for each way to quantise "<way>/<case>.weight" with the keys that bitsandbytes'
layers give their state dict, and "dequantized/<way>/<case>" in float32; quantized/adamw_8bit.safetensors: weights, codes and scales after
some steps. What both sides can draw from a seed (whole numbers, so that no instruction set matters) is not stored.
"""

import argparse
import json
import os
import pathlib

os.environ["TORCHDYNAMO_DISABLE"] = "1"  # nothing here is worth compiling

import bitsandbytes as bnb
import torch
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from safetensors.torch import save_file

MADE_BY = f"bitsandbytes {bnb.__version__}, torch {torch.__version__}"
FULL_KEYS = ("normal", "odd")  # the others go without the tables, which never differ
WAYS = {"nf4": ("nf4", False), "nf4_double": ("nf4", True), "fp4": ("fp4", False), "fp4_double": ("fp4", True)}
LARGE = (260, 65)  # 265 blocks, so that there are two of scales


def whole(generator, shape, bits=15):
    return torch.randint(-(2**bits), 2**bits + 1, shape, generator=generator).float() / 2**bits


def inputs(generator):
    draw = lambda *shape: torch.randn(shape, generator=generator) * 0.02
    cases = {
        "normal": draw(4, 128),
        "bf16": draw(3, 192).bfloat16(),
        "fp16": draw(2, 64).half(),
        "odd": draw(5, 33),
        "ragged": draw(7, 80),
        "across_rows": draw(3, 96).bfloat16(),
        "narrow": draw(65, 1),
        "single": torch.tensor([[-0.3]]),
        "zeros": torch.zeros(2, 70),
        "denormal": draw(3, 50) * 1e-38,
        "denormal_fp16": (draw(1, 64) * 1e-5).half(),
        "largest_fp16": torch.tensor([65504.0, -65504.0, 1.0, 0.0] * 16).half().view(2, 32),
        "huge": draw(2, 64),
        "largest": draw(2, 64),
        "largest_bf16": draw(1, 70).bfloat16(),
        "zero_row": draw(3, 64),
        "signed_zero": draw(1, 66),
    }
    cases["huge"][1, 5] = 1e30
    cases["largest"][0, 3], cases["largest"][1, 60] = torch.finfo().max, torch.finfo().min
    cases["largest_bf16"][0, 69] = torch.finfo(torch.bfloat16).max
    cases["zero_row"][1] = 0
    cases["signed_zero"][0, ::3] = -0.0
    for kind in ("nf4", "fp4"):  # values on the bounds between codes, and beside them
        code = bnb.functional.get_4bit_type(kind, device="cpu").sort().values
        middles = (code[1:] + code[:-1]) / 2
        beside = torch.cat([middles, middles.nextafter(torch.tensor(2.0)), middles.nextafter(torch.tensor(-2.0))])
        cases[f"{kind}_bounds"] = torch.cat([beside, torch.ones(64 - beside.numel())]).view(1, 64)
    return cases


def linear_4bit(weight, kind, double):
    layer = bnb.nn.Linear4bit(weight.shape[1], weight.shape[0], bias=False, quant_type=kind, compress_statistics=double)
    layer.weight = bnb.nn.Params4bit(weight.clone(), requires_grad=False, quant_type=kind, compress_statistics=double)
    return layer.to("cpu")


def dequantized_4bit(layer, shape):
    """With the blocks' own scales: the AVX-512 code takes others where rows are a multiple of 16 but not of 64."""
    state = layer.weight.quant_state
    absmax = state.absmax
    if state.nested:
        absmax = bnb.functional.dequantize_blockwise(absmax, state.state2) + state.offset
    found = _dequantize_4bit_compute(layer.weight.data.reshape(-1), absmax, state.code, 64, shape, torch.float32)
    if shape[1] % 64 == 0 or shape[1] % 16 != 0:
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            theirs = torch.ops.bitsandbytes.dequantize_4bit(layer.weight.data, absmax, 64, state.quant_type, shape, dtype)
            assert torch.equal(theirs.view(shape), found.to(dtype)), (shape, dtype)
    return found


def weights(generator, seed):
    tensors = {}
    cases = inputs(generator)
    for case, weight in cases.items():
        tensors[f"input/{case}"] = weight
    drawn = torch.Generator().manual_seed(seed)
    cases["large"] = whole(drawn, LARGE) * 2.0 ** torch.randint(-8, 1, (LARGE[0], 1), generator=drawn).float()
    for case, weight in cases.items():
        for way, (kind, double) in WAYS.items():
            if case == "large" and not double:
                continue
            layer = linear_4bit(weight, kind, double)
            if double and not layer.weight.quant_state.offset.isfinite():
                continue  # the mean of the scales overflows: NaN there, refused here
            for key, value in layer.state_dict().items():
                if case in FULL_KEYS or not key.endswith(("quant_map", "bitsandbytes__" + kind)):
                    tensors[f"{way}/{case}.{key}"] = value
            if double:
                tensors[f"{way}/{case}.offset"] = layer.weight.quant_state.offset.view(1)
                if case != "large":
                    tensors[f"dequantized/{way}/{case}"] = dequantized_4bit(layer, tuple(weight.shape))
        if weight.abs().max() > 65504 or case == "large":
            continue
        layer = bnb.nn.Linear8bitLt(weight.shape[1], weight.shape[0], bias=False, has_fp16_weights=False)
        layer.weight = bnb.nn.Int8Params(weight.clone(), requires_grad=False, has_fp16_weights=False)
        layer = layer.to("cpu")
        tensors |= {f"int8/{case}.{key}": value for key, value in layer.state_dict().items()}
        tensors[f"dequantized/int8/{case}"] = bnb.functional.int8_vectorwise_dequant(layer.weight.data, layer.weight.SCB)
    # One storage each: the layers share their tables.
    return {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}


STEPS = 6
CHECKED = (2, 6)  # the weights after the last
SHAPES = {"large.weight": (70, 61), "small.weight": (5, 7), "large.bias": (4096,)}
SETTINGS = {"lr": 1e-2, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1}


def adamw_8bit(seed):
    drawn = torch.Generator().manual_seed(seed)
    parameters = {name: whole(drawn, shape).requires_grad_() for name, shape in SHAPES.items()}
    groups = [
        {"params": [p for name, p in parameters.items() if name.endswith("weight")], "weight_decay": SETTINGS["weight_decay"]},
        {"params": [parameters["large.bias"]], "weight_decay": 0.0},
    ]
    optimizer = bnb.optim.AdamW8bit(groups, lr=SETTINGS["lr"], betas=tuple(SETTINGS["betas"]), eps=SETTINGS["eps"])
    tensors = {}
    for step in range(1, STEPS + 1):
        for parameter in parameters.values():
            gradient = whole(drawn, parameter.shape) * 4.0 ** -(step % 3)
            if step < 3:
                gradient.view(-1)[:300] = 0  # a block without anything in it
            gradient.view(-1)[600:900] *= 2.0**-70  # whose squares are denormal
            parameter.grad = gradient
        optimizer.step()
        if step not in CHECKED:
            continue
        for name, parameter in parameters.items():
            state = optimizer.state[parameter]
            if step == STEPS:
                tensors[f"weight/{name}"] = parameter.detach().clone()
            for key in ("state1", "state2", "absmax1", "absmax2"):
                if key in state:
                    tensors[f"{step}/{key}/{name}"] = state[key].clone()  # updated in place
    return tensors


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--seed", default=0, type=int)
    arguments = parser.parse_args()
    out = arguments.out / "quantized"
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    metadata = {"made_by": MADE_BY, "seed": str(arguments.seed)}
    generator = torch.Generator().manual_seed(arguments.seed)
    save_file(weights(generator, arguments.seed), out / "weights.safetensors", metadata)
    save_file(adamw_8bit(arguments.seed), out / "adamw_8bit.safetensors", metadata | {"settings": json.dumps(SETTINGS), "steps": str(STEPS)})


if __name__ == "__main__":
    main()
