"""The fields of PEFT 0.21.2's configs with their defaults, method by method, and those of LoRA's sub-configs.

A default of None is null; enumerations are their values. There is nothing random in it: --seed is not used.
"""

import argparse
import dataclasses
import enum
import json
import pathlib

from peft import EvaConfig, LoftQConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils import PeftType

METHODS = (
    "lora adalora ia3 loha lokr vera oft boft ln_tuning prefix_tuning prompt_tuning p_tuning".split()
)


def default_of(field: dataclasses.Field):
    value = field.default if field.default is not dataclasses.MISSING else field.default_factory()
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value):
        return dataclasses.asdict(value)
    return value


def defaults(config: type) -> dict:
    return {field.name: default_of(field) for field in dataclasses.fields(config) if field.init}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    golden = {
        "methods": {name: defaults(PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(name.upper())]) for name in METHODS},
        "sub_configs": {"loftq_config": defaults(LoftQConfig), "eva_config": defaults(EvaConfig)},
    }
    folder = arguments.out / "peft_defaults"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "defaults.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
