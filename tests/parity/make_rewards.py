"""Scores of TRL's reward functions, for tests/parity/rewards_test.cpp.

    make_rewards.py --out tests/parity/golden [--seed N]

Made with trl 1.16.0: think_format_reward, get_soft_overlong_punishment and get_repetition_penalty_reward on made-up completions, and
accuracy_reward on pairs of answers (math_verify 0.9.0 with latex2sympy2_extended 1.11.0).
model/: a small LlamaForSequenceClassification of transformers 5.23.0, and its scores of texts that GRPOTrainer would score with it.
"""

import argparse
import json
import random
from importlib.metadata import version
from pathlib import Path

import torch
import transformers
import trl
from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification
from trl.rewards import accuracy_reward, get_repetition_penalty_reward, get_soft_overlong_punishment, think_format_reward

PIECES = ["<think>", "</think>", "<think>", "</think>", "\n", " ", "so", "<answer>", "\n\n", "é", "<think", "think>", ""]

# (gold, the boxed answer): readable by both.
ANSWERS = [
    ("42", "42"), ("42", "43"), ("-42", "42"), ("1000", "1,000"), ("1000", "10^3"), ("3.5", "3.50"),
    ("\\frac{1}{2}", "0.5"), ("\\frac12", "\\dfrac{1}{2}"), ("\\frac{1}{3}", "\\frac{1}{2}"), ("-\\frac{1}{2}", "\\frac{-1}{2}"),
    ("\\frac{1}{3}", "0.33"), ("\\frac{1}{3}", "0.333333"), ("\\frac{2}{3}", "0.666667"), ("\\frac{2}{3}", "0.666666"),
    ("1\\frac{1}{2}", "\\frac{3}{2}"), ("50\\%", "0.5"), ("50\\%", "0.6"),
    ("18", "18 \\text{ dollars}"), ("12\\text{ cm}^2", "12"), ("60^\\circ", "60"), ("2x", "2"),
    ("\\sqrt{12}", "2\\sqrt{3}"), ("\\frac{\\sqrt{2}}{2}", "\\frac{1}{\\sqrt{2}}"), ("\\sqrt{4}", "2"), ("\\sqrt[3]{8}", "2"),
    ("2^{10}", "1024"), ("10^{-2}", "0.01"), ("2\\pi", "\\frac{6\\pi}{3}"), ("\\pi", "3.14"), ("\\pi", "3.141593"),
    ("x + 1", "1 + x"), ("2(x+1)", "2x+2"), ("(x+1)^2", "x^2+2x+1"), ("x^2", "x^3"), ("x", "y"), ("x = 3", "3"), ("3", "x = 3"),
    ("x > 2", "2 < x"), ("x > 2", "x < 2"), ("x \\ge 2", "x > 2"),
    ("\\{1, 2, 3\\}", "\\{3, 2, 1\\}"), ("\\{1, 2\\}", "\\{1, 3\\}"), ("(1, 2)", "\\left(1, 2\\right)"), ("(1, 2)", "(2, 1)"),
    ("(\\frac{1}{2}, 3)", "(0.5, 3)"), ("[1, 2)", "[1, 2)"), ("[1, 2)", "[1, 2]"), ("(-\\infty, 3]", "(-\\infty, 3]"),
    ("(-\\infty, 0) \\cup (1, \\infty)", "(1, \\infty) \\cup (-\\infty, 0)"),
    ("\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}", "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}"),
    ("\\begin{pmatrix} 1 \\\\ 3 \\end{pmatrix}", "\\begin{pmatrix} 3 \\\\ 1 \\end{pmatrix}"),
]  # fmt: skip


def messages(texts):
    return [[{"role": "assistant", "content": text}] for text in texts]


def think(rng):
    texts = ["".join(rng.choice(PIECES) for _ in range(rng.randint(0, 7))) for _ in range(40)]
    texts += ["<think>" + "".join(rng.choice(PIECES) for _ in range(rng.randint(0, 5))) for _ in range(40)]
    return [{"completion": text, "score": score} for text, score in zip(texts, think_format_reward(messages(texts)), strict=True)]


def overlong(rng):
    cases = []
    for longest, soft in [(100, 20), (20, 20), (7, 3), (10, 0), (1, 1)] + [(rng.randint(5, 60), rng.randint(0, 5)) for _ in range(5)]:
        lengths = list(range(0, longest + 3, max(1, longest // 12))) + [longest - soft, longest - soft + 1, longest, longest + 1]
        scores = get_soft_overlong_punishment(longest, soft)([[1] * length for length in lengths])
        cases.append({"max": longest, "soft": soft, "lengths": lengths, "scores": scores})
    return cases


def repetition(rng):
    cases = []
    for ngram, penalty in [(3, -1.0), (1, -1.0), (2, -0.3), (4, -2.5), (2, 0.0)]:
        rows = [[rng.randint(0, 3) for _ in range(rng.randint(0, 24))] for _ in range(12)]
        scores = get_repetition_penalty_reward(ngram, penalty)(rows)
        cases.append({"ngram": ngram, "max_penalty": penalty, "rows": rows, "scores": scores})
    return cases


def accuracy():
    golds = [f"${gold}$" for gold, _ in ANSWERS]
    completions = messages([f"Hence $\\boxed{{{given}}}$." for _, given in ANSWERS])
    return [
        {"answer": gold, "given": given, "score": score}
        for (gold, given), score in zip(ANSWERS, accuracy_reward(completions, golds), strict=True)
    ]


def reward_model(rng, directory):
    """What GRPOTrainer does with a sequence classifier: texts padded on the right, no special tokens, the first label."""
    tokenizer = AutoTokenizer.from_pretrained(Path(__file__).parents[2] / "configs/grpo_arithmetic")
    tokenizer.pad_token = tokenizer.eos_token
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 8}
    config = LlamaConfig(
        **sizes, num_key_value_heads=1, vocab_size=len(tokenizer), max_position_embeddings=32, initializer_range=0.3,
        num_labels=1, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(rng.randint(0, 1000))
    model = LlamaForSequenceClassification(config).eval()
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    prompts = ["".join(rng.choice("0123456789+=") for _ in range(rng.randint(1, 12))) for _ in range(8)]
    completions = ["".join(rng.choice("0123456789") for _ in range(rng.randint(0, 6))) for _ in prompts]
    completions[1] = "7<|end|><|end|>"  # padding at the end of a text is not read
    texts = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
    inputs = tokenizer(text=texts, return_tensors="pt", padding=True, padding_side="right", add_special_tokens=False)
    with torch.no_grad():
        scores = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, 0].tolist()
    return [{"prompt": p, "completion": c, "score": s} for p, c, s in zip(prompts, completions, scores, strict=True)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    directory = arguments.out / "rewards"
    directory.mkdir(parents=True, exist_ok=True)
    made_with = {"trl": trl.__version__, "transformers": transformers.__version__, "seed": arguments.seed}
    areas = {"think": think(rng), "overlong": overlong(rng), "repetition": repetition(rng)}
    areas["scores"] = reward_model(rng, directory / "model")
    made_with["math_verify"] = version("math-verify")
    areas["accuracy"] = accuracy()
    for area, cases in areas.items():
        lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
        text = '{"made_with": ' + json.dumps(made_with) + ', "cases": [\n' + lines + "\n]}\n"
        (directory / f"{area}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
