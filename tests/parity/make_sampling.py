"""Probabilities after transformers' logits processors, for tests/parity/sampling_test.cpp.

    make_sampling.py --out tests/parity/golden [--seed N]

Made with transformers 5.23.0 and torch 2.11.0: the processors that GenerationMixin puts together for one sequence, in its order.
"""

import argparse
import json
from pathlib import Path

import torch
import transformers
from transformers import GenerationConfig
from transformers.generation.utils import GenerationMixin

SETTINGS = [
    {"repetition_penalty": 1.3, "do_sample": False},
    {"temperature": 0.7},
    {"temperature": 1.4, "top_k": 10},
    {"top_k": 1},
    {"top_p": 0.9},
    {"top_p": 0.3, "temperature": 0.5},
    {"min_p": 0.1},
    {"temperature": 2.0, "min_p": 0.2},
    {"repetition_penalty": 1.7, "temperature": 0.8, "top_k": 20, "top_p": 0.8, "min_p": 0.05},
    {"repetition_penalty": 0.6, "temperature": 0.9, "top_k": 40, "top_p": 0.95},
]
VOCABULARY = 64


class Processors(GenerationMixin):
    """Enough of a model for _get_logits_processor."""

    class config:  # noqa: N801
        is_encoder_decoder = False


def case(settings, generator):
    logits = torch.randn(1, VOCABULARY, generator=generator) * 3
    logits[0, 5] = logits[0, 9]  # equals, at whatever threshold they meet
    seen = torch.randint(VOCABULARY, (1, 12), generator=generator)
    config = GenerationConfig(**{"do_sample": True, "top_k": 0, "temperature": 1.0, "top_p": 1.0, **settings})
    processors = Processors._get_logits_processor(Processors(), config, input_ids_seq_length=12, logits_processor=[], model_kwargs={})
    probabilities = torch.softmax(processors(seen, logits.clone()), dim=-1)
    return {
        "settings": settings,
        "logits": logits[0].tolist(),
        "seen": seen[0].tolist(),
        "probabilities": probabilities[0].tolist(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    generator = torch.Generator().manual_seed(arguments.seed)
    cases = [case(settings, generator) for settings in SETTINGS]
    made_with = {"transformers": transformers.__version__, "torch": torch.__version__, "seed": arguments.seed}
    directory = arguments.out / "sampling"
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / "cases.json", "w", encoding="utf-8") as file:
        lines = ",\n".join(json.dumps(case) for case in cases)
        file.write('{"made_with": ' + json.dumps(made_with) + ', "cases": [\n' + lines + "\n]}\n")


if __name__ == "__main__":
    main()
