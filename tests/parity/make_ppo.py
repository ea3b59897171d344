"""Goldens of PPO's targets, loss, gradients and metrics: the formulas of TRL 1.10's PPOTrainer written out in NumPy, float64.

TRL 1.16 has no PPO. Writes ppo/ppo.json: completions in "inputs", one setting a line. Inputs are float32, written so that they read
back exactly. Gradients are central differences of the loss.
"""

import argparse
import json
import math
import pathlib

import numpy as np

LENGTHS = [5, 3, 1, 4, 7]
DEFAULTS = {
    "gamma": 1.0,
    "lam": 0.95,
    "cliprange": 0.2,
    "cliprange_value": 0.2,
    "vf_coef": 0.1,
    "kl_coef": 0.05,
    "whiten_rewards": False,
}
SETTINGS = [
    {},
    {"kl_coef": 0.0},
    {"gamma": 0.9, "lam": 0.5},
    {"lam": 0.0},
    {"lam": 1.0, "whiten_rewards": True},
    {"cliprange": 0.05, "cliprange_value": 0.05, "vf_coef": 1.0},
    {"whiten_rewards": True, "kl_coef": 0.3},
]


def whiten(x, shift_mean=True):
    mean = x.mean()
    whitened = (x - mean) / np.sqrt(x.var(ddof=1) + 1e-8)
    return whitened if shift_mean else whitened + mean


def completions(x):
    return np.split(x, np.cumsum(LENGTHS)[:-1])


def targets(inputs, options):
    rewards = -options["kl_coef"] * (inputs["old_log_probs"] - inputs["reference_log_probs"])
    rewards[np.cumsum(LENGTHS) - 1] += inputs["scores"]
    if options["whiten_rewards"]:
        rewards = whiten(rewards, shift_mean=False)
    advantages = []
    for reward, value in zip(completions(rewards), completions(inputs["old_values"])):
        following = np.append(value[1:], 0.0)
        delta = reward + options["gamma"] * following - value
        decay = options["gamma"] * options["lam"]
        # A_t = sum over k of decay^k delta_{t + k}
        advantages += [sum(decay**k * d for k, d in enumerate(delta[t:])) for t in range(len(delta))]
    advantages = np.array(advantages)
    return whiten(advantages), advantages + inputs["old_values"]


def loss_of(log_probs, values, inputs, advantages, returns, options):
    c, d = options["cliprange"], options["cliprange_value"]
    ratio = np.exp(log_probs - inputs["old_log_probs"])
    free, clipped = -advantages * ratio, -advantages * np.clip(ratio, 1 - c, 1 + c)
    near = np.clip(values, inputs["old_values"] - d, inputs["old_values"] + d)
    error, near_error = (values - returns) ** 2, (near - returns) ** 2
    policy_loss = np.maximum(free, clipped).mean()
    value_loss = 0.5 * np.maximum(error, near_error).mean()
    metrics = {
        "loss/policy_avg": policy_loss,
        "loss/value_avg": value_loss,
        "policy/approxkl_avg": 0.5 * ((log_probs - inputs["old_log_probs"]) ** 2).mean(),
        "policy/clipfrac_avg": (clipped > free).mean(),
        "policy/entropy_avg": inputs["entropy"].mean(),
        "val/clipfrac_avg": (near_error > error).mean(),
        "val/ratio": ratio.mean(),
    }
    return policy_loss + options["vf_coef"] * value_loss, metrics


def gradient(function, x, step=1e-6):
    result = np.empty_like(x)
    for i in range(x.size):
        up, down = x.copy(), x.copy()
        up[i] += step
        down[i] -= step
        result[i] = (function(up) - function(down)) / (2 * step)
    return result


def draw(generator):
    count = sum(LENGTHS)
    normal = lambda size, scale: (generator.standard_normal(size) * scale).astype(np.float32).astype(np.float64)
    old_log_probs = -np.abs(normal(count, 1.5))
    rounded = lambda x: x.astype(np.float32).astype(np.float64)
    old_values = normal(count, 0.5)
    return {
        "old_log_probs": old_log_probs,
        "log_probs": rounded(old_log_probs + normal(count, 0.2)),
        "reference_log_probs": rounded(old_log_probs + normal(count, 0.4)),
        "old_values": old_values,
        "values": rounded(old_values + normal(count, 0.2)),
        "entropy": np.abs(normal(count, 1.0)),
        "scores": normal(len(LENGTHS), 1.0),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--seed", default=0, type=int)
    arguments = parser.parse_args()
    out = arguments.out / "ppo"
    out.mkdir(parents=True, exist_ok=True)

    inputs = draw(np.random.default_rng(arguments.seed))
    lines = []
    for setting in SETTINGS:
        options = DEFAULTS | setting
        advantages, returns = targets(inputs, options)
        log_probs, values = inputs["log_probs"], inputs["values"]
        loss, metrics = loss_of(log_probs, values, inputs, advantages, returns, options)
        case = {
            "setting": setting,
            "advantages": advantages.tolist(),
            "returns": returns.tolist(),
            "loss": loss,
            "log_prob_gradient": gradient(lambda x: loss_of(x, values, inputs, advantages, returns, options)[0], log_probs).tolist(),
            "value_gradient": gradient(lambda x: loss_of(log_probs, x, inputs, advantages, returns, options)[0], values).tolist(),
            "metrics": {name: float(value) for name, value in metrics.items()},
        }
        assert all(math.isfinite(number) for number in case["advantages"] + case["log_prob_gradient"] + case["value_gradient"])
        lines.append(json.dumps(case))
    plain = {"lengths": LENGTHS} | {name: values.tolist() for name, values in inputs.items()}
    document = f'{{"made_by": {json.dumps(f"numpy {np.__version__}")}, "inputs": {json.dumps(plain)},\n"cases": [\n'
    (out / "ppo.json").write_text(document + ",\n".join(lines) + "\n]}\n")


if __name__ == "__main__":
    main()
