"""Goldens of online DPO: what TRL's OnlineDPOTrainer makes of fixed completions, log-probabilities and rewards.

Writes online_dpo/steps.json: one setting a line with the loss, its gradient and the metrics of a training step. The
log-probabilities of padding are 0, because TRL's kl and entropy count them and Temper has none.
"""

import argparse
import collections
import json
import pathlib
import types

import torch
from trl.experimental.online_dpo import OnlineDPOTrainer

LENGTHS = [3, 5, 1, 4, 5, 2]  # of prompt 0's, 1's, 2's first completion, then of their second ones
WIDTH = max(LENGTHS)
EOS = 7
SETTINGS = [
    {"loss_type": "sigmoid", "beta": 0.1, "missing_eos_penalty": None},
    {"loss_type": "sigmoid", "beta": 0.5, "missing_eos_penalty": 1.0},
    {"loss_type": "ipo", "beta": 0.2, "missing_eos_penalty": None},
]


class Accelerator:
    device = torch.device("cpu")

    def gather_for_metrics(self, tensor):
        return tensor

    def backward(self, loss):
        loss.backward()


def step(setting, inputs):
    log_probs = inputs["log_probs"].clone().requires_grad_()
    mask = (torch.arange(WIDTH)[None, :] < torch.tensor(LENGTHS)[:, None]).long()
    ids = torch.ones_like(mask)
    for row, truncated in enumerate(inputs["truncated"]):
        if not truncated:
            ids[row, LENGTHS[row] - 1] = EOS
    trainer = OnlineDPOTrainer.__new__(OnlineDPOTrainer)
    trainer.accelerator = Accelerator()
    trainer.args = types.SimpleNamespace(
        **{k: setting[k] for k in ("loss_type", "missing_eos_penalty")},
        use_vllm=False,
        torch_empty_cache_steps=None,
        optim="adamw_torch",
        n_gpu=1,
        gradient_accumulation_steps=1,
    )
    trainer._beta = [setting["beta"]]
    trainer.state = types.SimpleNamespace(global_step=0, epoch=0)
    trainer.ref_model = "reference"
    trainer.reward_funcs = ["reward"]
    trainer.eos_token_ids = [EOS]
    trainer.stats = collections.defaultdict(list)
    trainer.processing_class = types.SimpleNamespace(batch_decode=lambda ids, **_: [""] * len(ids))
    trainer._generate = lambda *_: (None, None, ids, mask, None)
    trainer._forward = lambda model, *_: inputs["reference"] if model == "reference" else log_probs * mask
    trainer._calculate_rewards_from_functions = lambda **_: inputs["rewards"].clone()
    model = types.SimpleNamespace(train=lambda: None)
    loss = trainer.training_step(model, {"prompt": ["a", "b", "c"]})
    return {
        "setting": setting,
        "loss": loss.item(),
        "gradient": [log_probs.grad[c, : LENGTHS[c]].tolist() for c in range(len(LENGTHS))],
        "metrics": {name: float(values[-1]) for name, values in trainer.stats.items()},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "golden")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    generator = torch.Generator().manual_seed(args.seed)
    mask = (torch.arange(WIDTH)[None, :] < torch.tensor(LENGTHS)[:, None]).float()
    log_probs = torch.empty(len(LENGTHS), WIDTH).uniform_(-3, -0.1, generator=generator) * mask
    inputs = {
        "log_probs": log_probs,
        "reference": (log_probs + torch.empty_like(log_probs).uniform_(-0.5, 0.5, generator=generator)) * mask,
        # The second prompt's completions are equally good: the first is chosen.
        "rewards": torch.tensor([0.2, 0.5, -1.0, 0.9, 0.5, 0.3]),
        "truncated": [False, True, False, True, False, True],
    }
    directory = args.out / "online_dpo"
    directory.mkdir(parents=True, exist_ok=True)
    ragged = lambda tensor: [tensor[c, : LENGTHS[c]].tolist() for c in range(len(LENGTHS))]
    written = {
        "log_probs": ragged(inputs["log_probs"]),
        "reference": ragged(inputs["reference"]),
        "rewards": inputs["rewards"].tolist(),
        "truncated": inputs["truncated"],
    }
    steps = ",\n".join(json.dumps(step(setting, inputs)) for setting in SETTINGS)
    (directory / "steps.json").write_text(f'{{"inputs": {json.dumps(written)},\n"steps": [\n{steps}]}}\n')


if __name__ == "__main__":
    main()
