"""Adapter configs and module choices of PEFT, for tests/parity/adapter_files_test.cpp.

    make_adapter_files.py --out tests/parity/golden [--seed N]

Made with peft 0.21.2 on tiny models: adapter_config.json as save_pretrained writes it for every method, the modules that the rules of
target_modules choose, the default targets of every model type, and the ranks that rank_pattern gives.
"""

import argparse
import json
import tempfile
import warnings
from pathlib import Path

import peft
import torch
import transformers
from peft.utils.other import get_pattern_key

MODEL_TYPES = ["llama", "mistral", "qwen2", "qwen3", "gpt2"]

# name: config class, settings
CONFIGS = {
    "lora": (peft.LoraConfig, {}),
    "lora_set": (
        peft.LoraConfig,
        {
            "r": 4,
            "lora_alpha": 12,
            "lora_dropout": 0.1,
            "bias": "all",
            "use_rslora": True,
            "use_dora": True,
            "target_modules": ["q_proj", "down_proj"],
            "exclude_modules": ["1.mlp.down_proj"],
            "layers_to_transform": [0, 1],
            "layers_pattern": "layers",
            "rank_pattern": {"down_proj": 2},
            "alpha_pattern": {"down_proj": 6},
            "modules_to_save": ["lm_head"],
        },
    ),
    "lora_gaussian": (peft.LoraConfig, {"init_lora_weights": "gaussian", "target_modules": ".*\\.[qk]_proj", "lora_bias": False}),
    "lora_bias": (peft.LoraConfig, {"lora_bias": True, "trainable_token_indices": [1, 2]}),
    "lora_all_linear": (peft.LoraConfig, {"target_modules": "all-linear"}),
    "lora_parameters": (
        peft.LoraConfig,
        {"target_modules": [], "target_parameters": ["v_proj.weight", "mlp.up_proj.weight"], "rank_pattern": {"v_proj.weight": 2}},
    ),
    "lora_eva": (peft.LoraConfig, {"init_lora_weights": "eva", "eva_config": {"rho": 1.5, "tau": 0.95}}),
    "adalora": (peft.AdaLoraConfig, {"total_step": 100, "init_r": 6, "target_r": 3, "tinit": 5, "tfinal": 10, "deltaT": 2}),
    "ia3": (peft.IA3Config, {}),
    "ia3_set": (peft.IA3Config, {"target_modules": ["k_proj", "up_proj"], "feedforward_modules": ["up_proj"]}),
    "loha": (peft.LoHaConfig, {"rank_dropout": 0.1}),
    "lokr": (peft.LoKrConfig, {"decompose_both": True, "decompose_factor": 4, "init_weights": "lycoris", "alpha_pattern": {"q_proj": 3}}),
    "vera": (peft.VeraConfig, {"r": 16, "save_projection": False, "target_modules": ["q_proj"]}),
    "vera_default": (peft.VeraConfig, {}),
    "oft": (peft.OFTConfig, {"oft_block_size": 8, "coft": True, "eps": 6e-5}),
    "boft": (peft.BOFTConfig, {"boft_block_size": 4, "bias": "boft_only"}),
    "ln_tuning": (peft.LNTuningConfig, {}),
    "prompt_tuning": (peft.PromptTuningConfig, {"num_virtual_tokens": 5}),
    "p_tuning": (peft.PromptEncoderConfig, {"num_virtual_tokens": 4, "encoder_reparameterization_type": "LSTM", "encoder_hidden_size": 24}),
    "prefix_tuning": (peft.PrefixTuningConfig, {"num_virtual_tokens": 3, "prefix_projection": True}),
}

# The same on GPT-2, whose layers store their weights transposed.
OF_GPT2 = ("lora", "lora_all_linear", "adalora", "ia3", "vera_default", "ln_tuning", "prompt_tuning", "prefix_tuning")

# What the rules of target_modules are asked.
CHOICES = [
    {"target_modules": ["q_proj", "v_proj"]},
    {"target_modules": ["self_attn.q_proj", "model.layers.1.mlp.up_proj"]},
    {"target_modules": ".*\\.(q|k)_proj"},
    {"target_modules": "model\\.layers\\.[0-2]\\.mlp\\.(?:up|down)_proj"},
    {"target_modules": "all-linear"},
    {"target_modules": "All-Linear", "exclude_modules": ["o_proj", "layers.1.mlp.up_proj"]},
    {"target_modules": "all-linear", "exclude_modules": ".*\\.mlp\\..*"},
    {"target_modules": ["q_proj", "v_proj"], "layers_to_transform": 1},
    {"target_modules": ["q_proj", "v_proj"], "layers_to_transform": [0, 2], "layers_pattern": "layers"},
    {"target_modules": ["q_proj", "v_proj"], "layers_to_transform": [2], "layers_pattern": ["blocks", "layers"]},
    {"target_modules": ["model.layers.0.self_attn.q_proj", "v_proj"], "layers_to_transform": [1]},
    {"target_modules": ["q_proj", "lm_head"], "modules_to_save": ["lm_head"]},
    {"target_modules": ["q_proj", "up_proj"], "modules_to_save": ["mlp"]},
    {"target_modules": ["embed_tokens", "o_proj"]},
    {"target_modules": [], "target_parameters": ["mlp.gate_proj.weight", "model.layers.1.self_attn.q_proj.weight"]},
    {
        "target_modules": ["q_proj", "up_proj"],
        "target_parameters": ["o_proj.weight"],
        "layers_to_transform": [1],
        "exclude_modules": ["1.self_attn.q_proj", "o_proj"],
    },
    {"target_modules": "all-linear", "target_parameters": ["lm_head.weight"]},
]

PATTERNS = [
    {"q_proj": 4},
    {"model.layers.1.self_attn.q_proj": 2, "v_proj": 6},
    {"layers\\.[12]\\..*_proj": 3},
    {"^model.layers.0.mlp.up_proj": 5},
    {"proj": 9},
    {"mlp.(up|gate)_proj": 7},
]


def tiny(model_type, layers=2):
    config = transformers.AutoConfig.for_model(
        model_type,
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4 if model_type == "gpt2" else 2,
        head_dim=16 if model_type == "qwen3" else 8,
        tie_word_embeddings=False,
    )
    return transformers.AutoModelForCausalLM.from_config(config)


def written_config(cls, settings, model_type="llama"):
    if "eva_config" in settings:
        settings = {**settings, "eva_config": peft.EvaConfig(**settings["eva_config"])}
    config = cls(task_type="CAUSAL_LM", **settings)
    model = peft.get_peft_model(tiny(model_type), config)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        written = json.loads((Path(folder) / "adapter_config.json").read_text())
    for key in ("target_modules", "exclude_modules", "feedforward_modules"):
        if isinstance(written.get(key), list):
            written[key].sort()  # a set in PEFT
    return written


def asked(model, choice):
    peft_model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **choice))
    config = peft_model.peft_config["default"]
    chosen = [name for name, module in peft_model.base_model.model.named_modules() if isinstance(module, peft.tuners.lora.LoraLayer)]
    saved = config.target_modules
    return {"choice": choice, "chosen": chosen, "saved": saved if isinstance(saved, str) else sorted(saved)}


def defaults(cls, model_type, settings):
    try:
        model = peft.get_peft_model(tiny(model_type), cls(task_type="CAUSAL_LM", **settings))
    except (TypeError, ValueError):  # no default, or not on such layers
        return None
    config = model.peft_config["default"]
    return {key: sorted(getattr(config, key)) for key in ("target_modules", "feedforward_modules") if getattr(config, key, None)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(arguments.seed)
    directory = arguments.out / "adapter_files"
    directory.mkdir(parents=True, exist_ok=True)

    methods = {name: {} for name in ("lora", "loha", "lokr", "vera", "boft", "ia3", "ln_tuning")}
    methods |= {"oft": {"oft_block_size": 8}, "adalora": {"total_step": 10}}
    model = tiny("llama", 3)
    modules = [
        {"name": name, "linear": isinstance(module, torch.nn.Linear), "output_head": name == "lm_head"}
        for name, module in model.named_modules()
        if isinstance(module, (torch.nn.Linear, torch.nn.Embedding)) or "norm" in name
    ]
    names = [module["name"] for module in modules]
    golden = {
        "made_with": {"peft": peft.__version__, "transformers": transformers.__version__, "seed": arguments.seed},
        "configs": {name: written_config(cls, settings) for name, (cls, settings) in CONFIGS.items()},
        "configs_of_gpt2": {name: written_config(*CONFIGS[name], "gpt2") for name in OF_GPT2},
        "modules": modules,
        "choices": [asked(tiny("llama", 3), choice) for choice in CHOICES],
        "defaults": {
            method: {model_type: defaults(CONFIGS[method][0], model_type, settings) for model_type in MODEL_TYPES}
            for method, settings in methods.items()
        },
        "patterns": [
            {"pattern": pattern, "values": {name: pattern.get(get_pattern_key(pattern.keys(), name), 8) for name in names}}
            for pattern in PATTERNS
        ],
    }
    (directory / "adapter_files.json").write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
