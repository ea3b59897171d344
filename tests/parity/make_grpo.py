"""Goldens of GRPO's and RLOO's losses, gradients, advantages and metrics: TRL's own methods on fixed tensors.

Writes grpo/losses.json (one loss setting a line, on the completions of "inputs"; each also cut into two micro-batches) and
grpo/advantages.json (one setting of rewards a line). Numbers are float32, written so that they read back exactly.
"""

import argparse
import collections
import json
import math
import pathlib
import types

import torch
import trl
from trl import GRPOTrainer, RLOOTrainer

GRPO = GRPOTrainer
RLOO = RLOOTrainer
LENGTHS = [5, 3, 1, 4, 0, 5]  # the fifth completion is masked as truncated
WIDTH = max(LENGTHS)
MAX_COMPLETION_LENGTH = 7

DEFAULTS = {
    "loss_type": "dapo",
    "importance_sampling_level": "token",
    "beta": 0.0,
    "use_bias_correction_kl": True,
    "epsilon": 0.2,
    "epsilon_high": None,
    "delta": None,
    "sapo_temperature_pos": 1.0,
    "sapo_temperature_neg": 1.05,
    "vespo_k_pos": 2.0,
    "vespo_lambda_pos": 3.0,
    "vespo_k_neg": 3.0,
    "vespo_lambda_neg": 2.0,
    "top_entropy_quantile": 1.0,
    "off_policy_mask_threshold": None,
    "entropy_coef": 0.0,
    "aligned": False,  # no old log-probabilities: those of the policy itself
}
LOSS_TYPES = ["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"]


def loss_settings():
    for loss_type in LOSS_TYPES:
        high = {"epsilon_high": 1.1} if loss_type == "cispo" else {}
        yield {"loss_type": loss_type, **high}
        yield {"loss_type": loss_type, "aligned": True, "beta": 0.04, **high}
        yield {"loss_type": loss_type, "importance_sampling_level": "sequence", "beta": 0.1, **high}
        yield {"loss_type": loss_type, "entropy_coef": 0.05, "top_entropy_quantile": 0.4, **high}
        yield {"loss_type": loss_type, "off_policy_mask_threshold": 0.05, **high}
    yield {"loss_type": "grpo", "delta": 1.15, "epsilon_high": 0.28}
    yield {"loss_type": "dapo", "beta": 0.3, "use_bias_correction_kl": False}
    yield {"loss_type": "sapo", "sapo_temperature_pos": 2.0, "sapo_temperature_neg": 3.0}
    yield {"loss_type": "vespo", "vespo_k_pos": 1.5, "vespo_lambda_neg": 1.0, "beta": 0.02}


class Accelerator:
    num_processes = 1
    process_index = 0
    sync_gradients = True
    device = torch.device("cpu")

    def gather(self, tensor):
        return tensor.reshape(1) if tensor.dim() == 0 else tensor

    gather_for_metrics = gather

    def reduce(self, tensor, reduction="sum"):
        return tensor

    def pad_across_processes(self, tensor, **_):
        return tensor

    def unwrap_model(self, model):
        return model


def trainer_without_model(cls, **attributes):
    """One of TRL's trainers for its own loss and advantage methods alone: they read these attributes."""
    trainer = cls.__new__(cls)
    trainer.accelerator = Accelerator()
    trainer.model = types.SimpleNamespace(training=True)
    trainer._metrics = {"train": collections.defaultdict(list), "eval": collections.defaultdict(list)}
    trainer.aux_loss_enabled = False
    for name, value in attributes.items():
        setattr(trainer, name, value)
    return trainer


def make_inputs(generator):
    shape = (len(LENGTHS), WIDTH)
    uniform = lambda low, high: torch.empty(shape).uniform_(low, high, generator=generator)
    log_probs = uniform(-3, -0.1)
    return {
        "lengths": LENGTHS,
        "log_probs": log_probs,
        # Shifts of whole completions: some clip at the sequence level, the second is off-policy.
        "old": log_probs + uniform(-0.4, 0.4) + torch.tensor([-0.3, 0.25, 0.1, 0.4, 0.0, 0.3])[:, None],
        "reference": log_probs + uniform(-0.5, 0.5),
        "entropy": uniform(0.1, 2.5),
        "advantages": torch.tensor([1.2, -0.7, 0.4, -1.1, 0.9, -0.3]),
        "mask": (torch.arange(WIDTH)[None, :] < torch.tensor(LENGTHS)[:, None]).long(),
    }


def run_loss(trainer, inputs, rows, log_probs, entropy, total, accumulation, aligned):
    given = {
        "prompt_ids": torch.zeros(len(LENGTHS), 1, dtype=torch.long)[rows],
        "prompt_mask": torch.ones(len(LENGTHS), 1, dtype=torch.long)[rows],
        "completion_ids": torch.zeros(len(LENGTHS), WIDTH, dtype=torch.long)[rows],
        "completion_mask": inputs["mask"][rows],
        "advantages": inputs["advantages"][rows],
        "num_items_in_batch": torch.tensor(total),
        "ref_per_token_logps": inputs["reference"][rows],
    }
    if not aligned:
        given["old_per_token_logps"] = inputs["old"][rows]
    given["old_logps"] = ((log_probs.detach() if aligned else inputs["old"]) * inputs["mask"]).sum(1)[rows]
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (log_probs[rows], entropy[rows], None)
    trainer.current_gradient_accumulation_steps = accumulation
    return trainer._compute_loss(trainer.model, given)


def grpo_trainer(setting):
    args = types.SimpleNamespace(**setting, steps_per_generation=1)
    high = setting["epsilon_high"] if setting["epsilon_high"] is not None else setting["epsilon"]
    return trainer_without_model(
        GRPO,
        args=args,
        **{k: v for k, v in setting.items() if k not in ("epsilon", "epsilon_high", "delta", "aligned")},
        epsilon_low=setting["epsilon"],
        epsilon_high=high,
        max_completion_length=MAX_COMPLETION_LENGTH,
        use_vllm=False,
        vllm_importance_sampling_correction=False,
        use_adaptive_entropy=False,
        _entropy_bonus_enabled=setting["entropy_coef"] != 0,
        _last_world_entropy=math.inf,
        _entropy_window_stats=None,
    )


def plain(values):
    return {name: (value if not math.isnan(value) else None) for name, value in values.items()}


def targets(tensor, mask):
    return tensor[mask.bool()].tolist()


def losses(generator):
    inputs = make_inputs(generator)
    mask = inputs["mask"]
    lines = []
    for kind, setting in [("grpo", s) for s in loss_settings()] + [
        ("rloo", {"epsilon": 0.2, "epsilon_high": None}),
        ("rloo", {"epsilon": 0.1, "epsilon_high": 0.3}),
        ("rloo", {"epsilon": 0.2, "aligned": True}),
    ]:
        full = DEFAULTS | setting
        if kind == "grpo":
            make = lambda: grpo_trainer(full)
        else:
            high = full["epsilon_high"] if full["epsilon_high"] is not None else full["epsilon"]
            make = lambda: trainer_without_model(RLOO, epsilon_low=full["epsilon"], epsilon_high=high)
        log_probs = inputs["log_probs"].clone().requires_grad_()
        entropy = inputs["entropy"].clone().requires_grad_()
        trainer = make()
        whole = slice(0, len(LENGTHS))
        loss = run_loss(trainer, inputs, whole, log_probs, entropy, int(mask.sum()), 1, full["aligned"])
        loss.backward()
        metrics = plain({name: values[0] for name, values in trainer._metrics["train"].items()})
        # The same completions as two micro-batches of one optimizer step and one generation batch.
        trainer = make()
        if kind == "grpo":
            trainer.args.steps_per_generation = 2
        halves = [slice(0, 3), slice(3, 6)]
        parts = [
            run_loss(trainer, inputs, rows, inputs["log_probs"], inputs["entropy"], int(mask.sum()), 2, full["aligned"])
            for rows in halves
        ]
        split = sum(part.item() for part in parts)
        lines.append(
            json.dumps(
                {
                    "kind": kind,
                    "setting": {k: v for k, v in setting.items() if k != "aligned" and v is not None},
                    "aligned": full["aligned"],
                    "loss": loss.item(),
                    "split_loss": split if kind == "grpo" else split / 2,
                    "metrics": metrics,
                    "log_prob_gradient": targets(log_probs.grad, mask),
                    "entropy_gradient": targets(entropy.grad, mask) if entropy.grad is not None else None,
                }
            )
        )
    shared = {
        "lengths": LENGTHS,
        "max_completion_length": MAX_COMPLETION_LENGTH,
        "advantages": inputs["advantages"].tolist(),
        **{name: targets(inputs[name], mask) for name in ("log_probs", "old", "reference", "entropy")},
    }
    return shared, lines


NAN = math.nan
# Rewards of two functions for three prompts with four completions each.
REWARDS = {
    "mixed": [
        [1.0, 0.2], [0.0, 0.7], [0.0, -0.3], [1.0, 0.1],
        [0.3, 0.4], [0.6, 0.5], [0.1, -1.5], [0.9, 2.5],
        [0.0, 0.0], [1.0, 0.3], [1.0, 0.6], [0.0, 0.9],
    ],
    "equal_in_a_group": [
        [0.3, 0.1], [0.3, 0.1], [0.3, 0.1], [0.3, 0.1],
        [1.0, 0.0], [0.0, 0.0], [0.0, 0.5], [0.0, 0.25],
        [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0],
    ],
    "unscored": [
        [1.0, NAN], [NAN, NAN], [0.0, 0.5], [NAN, 0.25],
        [NAN, NAN], [NAN, NAN], [NAN, NAN], [0.75, 0.25],
        [NAN, 0.0], [NAN, 1.0], [NAN, 0.5], [NAN, 0.25],
    ],
    "all_equal": [[0.5, 0.5]] * 12,
}  # fmt: skip


class Tokenizer:
    pad_token_id = 0
    eos_token_id = 1


def scored(cls, rewards, setting, generator):
    """Calls TRL's method that scores completions, with generation and models taken out of it."""
    count = rewards.size(0)
    log_probs = torch.empty(count, 2).uniform_(-2, -0.1, generator=generator)
    reference = log_probs + torch.empty(count, 2).uniform_(-0.5, 0.5, generator=generator)
    ids = [[5, 1]] * count
    calls = iter([log_probs, reference])
    trainer = trainer_without_model(
        cls,
        args=types.SimpleNamespace(per_device_train_batch_size=count, steps_per_generation=1, gradient_checkpointing_kwargs=None),
        environment_factories=None,
        environments=None,
        tools=None,
        rollout_func=None,
        use_vllm=False,
        vllm_importance_sampling_correction=False,
        num_generations=4,
        num_iterations=1,
        mask_truncated_completions=False,
        eos_token_ids=[1],
        _tokenizer=Tokenizer(),
        processing_class=Tokenizer(),
        pad_to_multiple_of=None,
        _is_vlm=False,
        _video_pad_token_id=None,
        _image_pad_token_id=None,
        ref_model="reference",
        reward_weights=torch.tensor(setting.get("weights", [1.0, 1.0])),
        reward_func_names=["first", "second"],
        reward_funcs=[None, None],
        multi_objective_aggregation=setting.get("multi_objective_aggregation", "sum_then_normalize"),
        scale_rewards=setting.get("scale_rewards", "group"),
        beta=setting.get("beta", 0.0),
        reward_clip_range=setting.get("reward_clip_range"),
        normalize_advantages=setting.get("normalize_advantages", False),
        _logs=collections.defaultdict(lambda: collections.defaultdict(list)),
        _pending_extra_logs={},
        _pending_metrics={},
    )
    trainer._logs |= {name: [] for name in ("prompt", "completion", "advantages")}
    trainer._calculate_rewards = lambda *_: rewards.clone()
    generated = (ids, ids, None, [""] * count, None, {}, None, None)
    trainer._generate = lambda *_: generated if cls is GRPO else (ids, ids, [""] * count)
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (next(calls), None, None)
    trainer.current_gradient_accumulation_steps = 1
    trainer.args.gradient_accumulation_steps = 1
    trainer.model.is_gradient_checkpointing = False
    trainer.model.gradient_checkpointing_disable = lambda: None
    trainer.model.gradient_checkpointing_enable = lambda *_: None
    output = trainer._generate_and_score_completions([{"prompt": ""}] * count)
    metrics = {name: values[0] for name, values in trainer._metrics["train"].items()}
    return output["advantages"], metrics, (log_probs - reference).sum(1)


def advantages(generator):
    grpo = [{"scale_rewards": scale, "weights": w} for scale in ("group", "batch", "none") for w in ([1.0, 1.0], [0.7, 0.2])]
    grpo += [{"multi_objective_aggregation": "normalize_then_sum", "weights": w} for w in ([1.0, 1.0], [0.7, 0.2])]
    rloo = [{}, {"normalize_advantages": True}, {"reward_clip_range": [-0.5, 0.8], "weights": [2.0, 0.5]}, {"beta": 0.05}]
    lines = []
    for name, rewards in REWARDS.items():
        for cls, settings in ((GRPO, grpo), (RLOO, rloo)):
            for setting in settings:
                values, metrics, kl = scored(cls, torch.tensor(rewards), setting, generator)
                lines.append(
                    json.dumps(
                        {
                            "kind": "grpo" if cls is GRPO else "rloo",
                            "rewards": name,
                            "setting": setting,
                            "kl": kl.tolist() if setting.get("beta") else None,
                            "advantages": values.tolist(),
                            "metrics": plain(metrics),
                        }
                    )
                )
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--seed", default=0, type=int)
    arguments = parser.parse_args()
    out = arguments.out / "grpo"
    out.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(arguments.seed)
    made_by = f"trl {trl.__version__}, torch {torch.__version__}"

    shared, lines = losses(generator)
    document = f'{{"made_by": {json.dumps(made_by)}, "inputs": {json.dumps(shared)},\n"cases": [\n'
    (out / "losses.json").write_text(document + ",\n".join(lines) + "\n]}\n")

    unscored = {name: [[None if math.isnan(r) else r for r in row] for row in rows] for name, rows in REWARDS.items()}
    document = f'{{"made_by": {json.dumps(made_by)}, "rewards": {json.dumps(unscored)},\n"cases": [\n'
    (out / "advantages.json").write_text(document + ",\n".join(advantages(generator)) + "\n]}\n")


if __name__ == "__main__":
    main()
