"""The fields that TRL 1.16.0's configs add to transformers' TrainingArguments, with their defaults, kind by kind.

A default of None is null. There is nothing random in it: --seed is not used.
"""

import argparse
import dataclasses
import json
import pathlib

import trl
from transformers import TrainingArguments
from trl.experimental.cpo import CPOConfig
from trl.experimental.gkd import GKDConfig
from trl.experimental.online_dpo import OnlineDPOConfig
from trl.experimental.orpo import ORPOConfig

CONFIGS = {
    "sft": trl.SFTConfig,
    "dpo": trl.DPOConfig,
    "kto": trl.KTOConfig,
    "orpo": ORPOConfig,
    "cpo": CPOConfig,
    "reward": trl.RewardConfig,
    "grpo": trl.GRPOConfig,
    "rloo": trl.RLOOConfig,
    "online_dpo": OnlineDPOConfig,
    "gkd": GKDConfig,
    "distill": trl.DistillationConfig,
}


def default_of(field: dataclasses.Field):
    return field.default if field.default is not dataclasses.MISSING else field.default_factory()


def defaults(config: type) -> dict:
    inherited = {field.name for field in dataclasses.fields(TrainingArguments)} - {"learning_rate"}
    return {field.name: default_of(field) for field in dataclasses.fields(config) if field.init and field.name not in inherited}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder = arguments.out / "objective_defaults"
    folder.mkdir(parents=True, exist_ok=True)
    golden = {kind: defaults(config) for kind, config in CONFIGS.items()}
    (folder / "defaults.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
