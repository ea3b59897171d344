"""Golden losses of pairs and rated completions: TRL's own loss code (DPO, KTO, CPO, ORPO, reward) on fixed log-probabilities, with
its gradients. No model runs: the trainers are handed the numbers that a model would give.

usage: make_preference.py --out DIR [--seed N]       writes DIR/preference/cases.json
"""

import argparse
import json
import pathlib
from collections import defaultdict
from types import SimpleNamespace

import torch
import trl
from trl import DPOTrainer, KTOTrainer, RewardTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

PAIRS = 4
LONGEST = 5  # tokens of a completion
EVERY_DPO_LOSS = ("sigmoid hinge ipo exo_pair nca_pair robust bco_pair sppo_hard aot aot_unpaired apo_zero apo_down discopop sft "
                  "sigmoid_norm").split()
DPO_DEFAULTS = dict(beta=0.1, label_smoothing=0.0, loss_weights=None, f_divergence_type="reverse_kl", f_alpha_divergence_coef=0.5,
                    discopop_tau=0.05, ld_alpha=None, use_weighting=False)
SMOOTHED = {"exo_pair", "robust", "aot", "aot_unpaired"}


def dpo_cases():
    for name in EVERY_DPO_LOSS:
        yield {"loss_type": [name], "label_smoothing": 0.2 if name in SMOOTHED else 0.0}
    for divergence in ("forward_kl", "js_divergence", "alpha_divergence"):
        for name in ("sigmoid", "ipo", "discopop"):
            yield {"loss_type": [name], "f_divergence_type": divergence, "beta": 0.5}
    yield {"loss_type": ["sigmoid"], "f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 1.0}
    yield {"loss_type": ["aot"], "beta": 0.3}
    yield {"loss_type": ["sigmoid"], "ld_alpha": 0.3}
    yield {"loss_type": ["sigmoid"], "use_weighting": True}
    yield {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]}
    yield {"loss_type": ["ipo", "sigmoid"], "beta": 0.7, "use_weighting": True, "ld_alpha": 0.5}


class Accelerator:
    device = torch.device("cpu")

    def gather(self, tensor):
        return tensor

    gather_for_metrics = gather


class Model(torch.nn.Module):
    """Answers every call with the same outputs."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, **inputs):
        return self.outputs


def trainer_of(cls, model, **fields):
    trainer = cls.__new__(cls)
    trainer.__dict__ |= dict(model=model, ref_model=None, accelerator=Accelerator(), aux_loss_enabled=False, precompute_ref_logps=True,
                             _metrics={"train": defaultdict(list), "eval": defaultdict(list)}, _total_train_tokens=0, _tp_size=1)
    trainer.__dict__ |= fields
    return trainer


def rounded(value):
    """Nine digits are all that a float32 has."""
    return [rounded(one) for one in value] if isinstance(value, list) else float(f"{value:.9g}") if isinstance(value, float) else value


def numbers(tensor):
    return rounded(tensor.detach().tolist())


def completions(rows):
    """Log-probabilities of `rows` completions, padded at their end, after prompts of one token."""
    lengths = torch.randint(1, LONGEST + 1, (rows,))
    mask = (torch.arange(LONGEST)[None] < lengths[:, None]).long()
    logps = (-3 * torch.rand(rows, LONGEST) * mask).requires_grad_()
    ids = torch.ones(rows, LONGEST + 1, dtype=torch.long)
    return logps, mask, {"input_ids": ids, "attention_mask": ids, "completion_mask": torch.nn.functional.pad(mask, (1, 0))}


def outputs_of(logps, mask):
    extra = {key: torch.rand_like(logps) * mask for key in ("entropy", "mean_logits")}
    return SimpleNamespace(log_probs=logps, is_top1=torch.rand_like(logps) < 0.5, log_sum_sq_probs=-torch.rand_like(logps) * mask, **extra)


def of_tokens(tensor, mask):
    return [row[: int(kept.sum())] for row, kept in zip(numbers(tensor), mask)]


def dpo():
    for given in dpo_cases():
        options = DPO_DEFAULTS | given
        logps, mask, inputs = completions(2 * PAIRS)
        outputs = outputs_of(logps, mask)
        # The policy's numbers, moved: ratios of a few nats either way.
        reference = (logps.detach().sum(1) + 2 * torch.randn(2 * PAIRS)).chunk(2)
        model = Model(outputs)
        fields = {"loss_types" if key == "loss_type" else key: value for key, value in options.items() if key != "discopop_tau"}
        fields["loss_weights"] = options["loss_weights"] or [1.0] * len(options["loss_type"])
        trainer = trainer_of(DPOTrainer, model, args=SimpleNamespace(discopop_tau=options["discopop_tau"]), **fields)
        loss = trainer._compute_loss(model, inputs | {"ref_chosen_logps": reference[0], "ref_rejected_logps": reference[1]}, False)
        loss.backward()
        # Chosen first and rejected after it, for each pair: the order in which Temper has them.
        order = torch.arange(2 * PAIRS).view(2, PAIRS).T.flatten()
        kept = mask[order]
        yield {"options": options, "log_probs": of_tokens(logps[order], kept),
               "log_sum_squares": of_tokens(outputs.log_sum_sq_probs[order], kept),
               "reference": numbers(torch.cat(reference)[order]), "loss": loss.item(), "gradient": of_tokens(logps.grad[order], kept)}


def kto():
    for loss_type in ("kto", "apo_zero_unpaired"):
        for weights in ((1.0, 1.0), (1.3, 0.6)):
            rows = 5
            logps, mask, inputs = completions(rows)
            mismatched, kl_mask, kl_inputs = completions(rows)
            reference, kl_reference = logps.detach().sum(1) + torch.randn(rows), mismatched.detach().sum(1) - torch.rand(rows)
            label = torch.tensor([True, False, True, True, False])
            model = Model(outputs_of(logps, mask))
            trainer = trainer_of(KTOTrainer, model, beta=0.4, loss_type=loss_type, calculate_KL=loss_type == "kto",
                                 desirable_weight=weights[0], undesirable_weight=weights[1])
            trainer._compute_kl_logps = lambda model, batch: mismatched.detach().sum(1) if loss_type == "kto" else None
            loss = trainer._compute_loss(model, inputs | {"label": label, "ref_logps": reference, "ref_KL_logps": kl_reference}, False)
            loss.backward()
            yield {"loss_type": loss_type, "weights": weights, "beta": 0.4, "label": numbers(label),
                   "log_ratios": numbers(logps.sum(1) - reference), "kl": trainer._metrics["train"]["kl"][0], "loss": loss.item(),
                   "gradient": numbers(logps.grad[:, 0])}


def cpo():
    for given in ({}, {"label_smoothing": 0.2}, {"loss_type": "hinge"}, {"loss_type": "ipo"}, {"loss_type": "simpo"},
                  {"loss_type": "simpo", "simpo_gamma": 1.5, "beta": 2.0, "label_smoothing": 0.1}, {"alpha": 0.25},
                  {"alpha": -0.5, "loss_type": "simpo"}):
        options = dict(loss_type="sigmoid", beta=0.1, label_smoothing=0.0, simpo_gamma=0.5, alpha=0.0) | given
        chosen, rejected = ((-6 * torch.rand(PAIRS)).requires_grad_() for _ in range(2))
        losses, *rewards = trainer_of(CPOTrainer, None, **options).cpo_loss(chosen, rejected)
        losses.mean().backward()
        yield {"options": options, "chosen": numbers(chosen), "rejected": numbers(rejected), "losses": numbers(losses),
               "rewards": [numbers(reward) for reward in rewards], "gradient": [numbers(chosen.grad), numbers(rejected.grad)]}


def orpo():
    # On both sides of -log 2, where log(1 - e^x) changes its form.
    chosen = torch.tensor([-0.05, -0.6931, -0.7, -3.0, -9.0], requires_grad=True)
    rejected = torch.tensor([-0.4, -2.0, -0.1, -2.9, -0.02], requires_grad=True)
    losses, _, _, ratio, odds = trainer_of(ORPOTrainer, None, beta=0.1).odds_ratio_loss(chosen, rejected)
    losses.mean().backward()
    return {"beta": 0.1, "chosen": numbers(chosen), "rejected": numbers(rejected), "losses": numbers(losses), "ratio": ratio.item(),
            "odds": odds.item(), "gradient": [numbers(chosen.grad), numbers(rejected.grad)]}


def reward():
    for margin in (False, True):
        for coefficient in (None, 0.01):
            scores = (2 * torch.randn(2 * PAIRS, 1)).requires_grad_()
            model = Model(SimpleNamespace(logits=scores))
            inputs = {"attention_mask": torch.ones(2 * PAIRS, 3)}
            if margin:
                inputs["margin"] = torch.rand(PAIRS)
            trainer = trainer_of(RewardTrainer, model, args=SimpleNamespace(center_rewards_coefficient=coefficient))
            margins = numbers(inputs["margin"]) if margin else None
            loss = trainer.compute_loss(model, inputs)
            loss.backward()
            yield {"margin": margins, "coefficient": coefficient or 0.0, "chosen": numbers(scores[:PAIRS, 0]),
                   "rejected": numbers(scores[PAIRS:, 0]), "loss": loss.item(),
                   "gradient": [numbers(scores.grad[:PAIRS, 0]), numbers(scores.grad[PAIRS:, 0])]}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    cases = {"made_with": {"trl": trl.__version__, "torch": torch.__version__}, "dpo": list(dpo()), "kto": list(kto()), "cpo": list(cpo()),
             "orpo": orpo(), "reward": list(reward())}
    directory = arguments.out / "preference"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "cases.json").write_text(json.dumps(cases, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
