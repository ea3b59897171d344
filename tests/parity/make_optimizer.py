"""Goldens of the learning-rate schedules (transformers) and of the optimizers (torch.optim).

Also of torch.amp.GradScaler: optimizer/loss_scaler.json.

Writes optimizer/schedules.json (one setting a line: kind, arguments, factors of 120 updates) and optimizer/<case>.safetensors
(float32 start weights, gradients of 50 steps, weights after some of them; the settings are in the metadata).
"""

import argparse
import json
import math
import pathlib

import torch
import transformers
from safetensors.torch import save_file
from transformers import get_scheduler

TOTAL = 120
LR = 2e-4

# (kind, warm-up as the recipe has it, lr_scheduler_kwargs)
SCHEDULES = [
    ("linear", 0, {}),
    ("linear", 10, {}),
    ("linear", 0.03, {}),
    ("cosine", 0.1, {}),
    ("cosine", 10, {"num_cycles": 1.25}),
    ("cosine_with_restarts", 10, {}),
    ("cosine_with_restarts", 0, {"num_cycles": 3}),
    ("polynomial", 10, {}),
    ("polynomial", 0, {"lr_end": 1e-5, "power": 2.0}),
    ("constant", 10, {}),
    ("constant_with_warmup", 10, {}),
    ("inverse_sqrt", 0, {}),
    ("inverse_sqrt", 10, {}),
    ("inverse_sqrt", 10, {"timescale": 40}),
    ("cosine_with_min_lr", 10, {"min_lr": 2e-5}),
    ("cosine_with_min_lr", 0, {"min_lr_rate": 0.2, "num_cycles": 0.75}),
    ("cosine_warmup_with_min_lr", 10, {"min_lr": 1e-5}),
    ("cosine_warmup_with_min_lr", 10, {"min_lr_rate": 0.1, "warmup_lr_rate": 0.05}),
    ("warmup_stable_decay", 10, {"num_decay_steps": 30}),
    (
        "warmup_stable_decay",
        10,
        {"num_decay_steps": 40, "decay_type": "linear", "warmup_type": "cosine", "min_lr_ratio": 0.1},
    ),
    (
        "warmup_stable_decay",
        0.1,
        {"num_decay_steps": 50, "decay_type": "1-sqrt", "warmup_type": "1-sqrt", "min_lr_ratio": 0.2},
    ),
]

STEPS = 50
CHECKED = (1, 2, 10, 25, 50)
SHAPES = {"linear.weight": (3, 11), "linear.bias": (11,), "norm.weight": (5,)}  # decay, none, none
COUNT = 37.0  # gradients are sums over this many tokens
OPTIMIZERS = {
    "adamw": {"kind": "adamw", "lr": 1e-2},
    "adamw_decay": {"kind": "adamw", "lr": 3e-3, "betas": [0.8, 0.95], "eps": 1e-6, "weight_decay": 0.1},
    "sgd": {"kind": "sgd", "lr": 0.1},
    "sgd_momentum": {"kind": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.02},
}
MAX_GRAD_NORM = 1.0


def schedule_factors(kind, warmup, arguments):
    steps = int(warmup) if warmup >= 1 else math.ceil(TOTAL * warmup)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    scheduler = get_scheduler(
        kind,
        optimizer,
        num_warmup_steps=steps,
        num_training_steps=TOTAL,
        scheduler_specific_kwargs=arguments or None,
    )
    return [scheduler.lr_lambdas[0](t) for t in range(TOTAL)]


def optimizer_case(settings, generator):
    parameters = {
        name: torch.randn(shape, generator=generator).requires_grad_() for name, shape in SHAPES.items()
    }
    tensors = {f"start/{name}": p.detach().clone() for name, p in parameters.items()}
    decayed = [parameters["linear.weight"]]
    rest = [parameters["linear.bias"], parameters["norm.weight"]]
    decay = settings.get("weight_decay", 0.0)
    groups = [{"params": decayed, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]
    if settings["kind"] == "adamw":
        optimizer = torch.optim.AdamW(
            groups,
            lr=settings["lr"],
            betas=tuple(settings.get("betas", (0.9, 0.999))),
            eps=settings.get("eps", 1e-8),
            foreach=False,
        )
    else:
        optimizer = torch.optim.SGD(
            groups, lr=settings["lr"], momentum=settings.get("momentum", 0.0), foreach=False
        )
    sums = {name: torch.zeros((STEPS, *shape)) for name, shape in SHAPES.items()}
    norms = []
    for step in range(1, STEPS + 1):
        for name, parameter in parameters.items():
            size = COUNT * 0.05 * (1 + 4 * (step % 3))  # some steps are clipped, some are not
            gradient = torch.randn(parameter.shape, generator=generator) * size
            sums[name][step - 1] = gradient
            parameter.grad = gradient / COUNT
        norms.append(torch.nn.utils.clip_grad_norm_(parameters.values(), MAX_GRAD_NORM).item())
        for group in optimizer.param_groups:
            group["lr"] = settings["lr"] * (1 - (step - 1) / STEPS)
        optimizer.step()
        if step in CHECKED:
            tensors |= {f"after/{step}/{name}": p.detach().clone() for name, p in parameters.items()}
    tensors |= {f"gradients/{name}": g for name, g in sums.items()}
    tensors["norms"] = torch.tensor(norms)
    return tensors


# Whether steps overflow: (overflowed, how many in a row).
RUNS = [(True, 3), (False, 2000), (True, 1), (False, 1999), (True, 2), (False, 4001), (True, 20), (False, 7)]


def loss_scaler_case():
    """The scale after each run of steps, and how many were made."""
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scaler = torch.amp.GradScaler(device="cpu")
    start = scaler.get_scale()
    scales, tracked, made = [], [], []
    for overflowed, times in RUNS:
        for _ in range(times):
            weight.grad = torch.tensor([math.inf if overflowed else -scaler.get_scale()])
            scaler.scale(torch.ones(1))
            scaler.step(optimizer)
            scaler.update()
        scales.append(scaler.get_scale())
        tracked.append(scaler.state_dict()["_growth_tracker"])
        made.append(int(weight.item()))
    return {"start": start, "overflowed": [run[0] for run in RUNS], "times": [run[1] for run in RUNS],
            "scale": scales, "good_steps": tracked, "made": made}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--seed", default=0, type=int)
    arguments = parser.parse_args()
    out = arguments.out / "optimizer"
    out.mkdir(parents=True, exist_ok=True)

    lines = []
    for kind, warmup, keywords in SCHEDULES:
        factors = schedule_factors(kind, warmup, keywords)
        lines.append(json.dumps({"kind": kind, "warmup": warmup, "arguments": keywords, "factors": factors}))
    made_by = f"transformers {transformers.__version__}, torch {torch.__version__}"
    document = f'{{"made_by": {json.dumps(made_by)}, "lr": {LR}, "total": {TOTAL}, "settings": [\n'
    (out / "schedules.json").write_text(document + ",\n".join(lines) + "\n]}\n")

    scaler = {"made_by": f"torch {torch.__version__}"} | loss_scaler_case()
    (out / "loss_scaler.json").write_text(json.dumps(scaler) + "\n")

    generator = torch.Generator().manual_seed(arguments.seed)
    for name, settings in OPTIMIZERS.items():
        metadata = {
            "made_by": f"torch {torch.__version__}",
            "settings": json.dumps(settings),
            "count": str(COUNT),
            "steps": str(STEPS),
            "max_grad_norm": str(MAX_GRAD_NORM),
        }
        save_file(optimizer_case(settings, generator), out / f"{name}.safetensors", metadata)


if __name__ == "__main__":
    main()
