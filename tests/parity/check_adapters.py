"""Adapters of the whole program against peft, live: trained ones load in peft with the same loss, those of peft load here with the same
loss, merge to the same weights, and train along the same losses.

    python tests/parity/check_adapters.py PROGRAM [--only METHOD[,METHOD...]] [--model llama|qwen2|qwen3|gpt2]

Needs the reference packages (launch/setup.sh --peers), no network and no data: models are random and tiny.
"""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import tempfile
import unittest
import warnings
from pathlib import Path

import peft
import torch
from peft.utils.save_and_load import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

import reference_loop

SOURCE = Path(__file__).resolve().parents[2]
PROGRAM = "temper"
ENVIRONMENT = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
WORDS = "int auto const size_t return std vector string for while if else struct class template typename void".split()
MODELS = ("llama", "qwen2", "qwen3", "gpt2")
MAX_LENGTH = 48
TOKENS = [0, 270, 33, 1000]  # of whose rows some occur in the data
ADDED = ["<tool>", "<|endoftext|>", "<call>"]  # the second is there already

# What each is called here: peft's class, and the settings that peft and a recipe's [peft] share.
METHODS = {
    "lora": (peft.LoraConfig, {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}),
    "dora": (peft.LoraConfig, {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "use_dora": True}),
    "rslora": (peft.LoraConfig, {"r": 4, "lora_alpha": 8, "use_rslora": True}),
    "pissa": (peft.LoraConfig, {"r": 4, "lora_alpha": 4, "target_modules": ["q_proj", "down_proj"], "init_lora_weights": "pissa"}),
    "olora": (peft.LoraConfig, {"r": 4, "lora_alpha": 4, "target_modules": ["q_proj", "down_proj"], "init_lora_weights": "olora"}),
    "eva": (peft.LoraConfig, {"r": 4, "lora_alpha": 6, "target_modules": "all-linear", "init_lora_weights": "eva"}),
    "ia3": (peft.IA3Config, {}),
    "loha": (peft.LoHaConfig, {"r": 3, "alpha": 6, "target_modules": "all-linear"}),
    "lokr": (peft.LoKrConfig, {"r": 2, "alpha": 4, "target_modules": "all-linear"}),
    "vera": (peft.VeraConfig, {"r": 8, "target_modules": "all-linear"}),
    "oft": (peft.OFTConfig, {"oft_block_size": 8, "target_modules": "all-linear"}),
    "boft": (peft.BOFTConfig, {"boft_block_size": 4, "target_modules": ["q_proj", "v_proj", "down_proj"]}),
    "adalora": (peft.AdaLoraConfig, {"init_r": 4, "target_r": 2, "tinit": 0, "tfinal": 1, "total_step": 3}),
    "ln_tuning": (peft.LNTuningConfig, {}),
    "prefix_tuning": (peft.PrefixTuningConfig, {"num_virtual_tokens": 4}),
    "prompt_tuning": (peft.PromptTuningConfig, {"num_virtual_tokens": 4}),
    "p_tuning": (peft.PromptEncoderConfig, {"num_virtual_tokens": 4, "encoder_hidden_size": 16}),
    # Settings of LoRA.
    "vocabulary": (peft.LoraConfig, {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "embed_tokens", "lm_head"]}),
    "tokens": (peft.LoraConfig, {"r": 4, "trainable_token_indices": TOKENS}),
    "tokens_tied": (peft.LoraConfig, {"r": 4, "trainable_token_indices": TOKENS}),
    "modules_to_save": (peft.LoraConfig, {"r": 4, "modules_to_save": ["lm_head", "embed_tokens"]}),
    "bias_all": (peft.LoraConfig, {"r": 4, "bias": "all"}),
    "bias_lora_only": (peft.LoraConfig, {"r": 4, "target_modules": ["q_proj", "down_proj"], "bias": "lora_only"}),
    "layers": (peft.LoraConfig, {"r": 4, "target_modules": ["q_proj", "up_proj"], "layers_to_transform": [1]}),
    "patterns": (
        peft.LoraConfig,
        {"r": 4, "target_modules": "all-linear", "rank_pattern": {"q_proj": 2, "layers.1.mlp.down_proj": 6}, "alpha_pattern": {"v_proj": 3}},
    ),
    "parameters": (
        peft.LoraConfig,
        {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": ["q_proj"],
            "target_parameters": ["mlp.gate_proj.weight", "v_proj.weight", "lm_head.weight"],
            "rank_pattern": {"layers\\.1\\..*": 6},
            "bias": "lora_only",
        },
    ),
    "parameters_alone": (peft.LoraConfig, {"r": 4, "target_modules": [], "target_parameters": ["self_attn.k_proj.weight", "down_proj.weight"]}),
    "parameters_pissa": (
        peft.LoraConfig,
        {"r": 4, "lora_alpha": 4, "target_modules": [], "target_parameters": ["v_proj.weight", "down_proj.weight"], "init_lora_weights": "pissa"},
    ),
    "exclude": (peft.LoraConfig, {"r": 4, "target_modules": "all-linear", "exclude_modules": ["o_proj", "layers.0.mlp.up_proj"]}),
}
# Of GPT-2's layers, which store their weights transposed; peft has no others there (olora and boft fail, oft, loha and lokr are refused).
GPT2_NAMES = {
    "q_proj": "c_attn", "k_proj": "c_attn", "v_proj": "attn.c_proj", "o_proj": "attn.c_proj", "gate_proj": "c_fc", "up_proj": "c_fc",
    "down_proj": "mlp.c_proj", "embed_tokens": "wte", "layers": "h",
}  # fmt: skip
NOT_ON_GPT2 = {"olora", "loha", "lokr", "oft", "boft", "parameters", "parameters_alone", "parameters_pissa"}
TIED = {"tokens_tied"}  # the model's head is its embedding
PROMPTS = {"prefix_tuning", "prompt_tuning", "p_tuning"}  # nothing to merge
RESIDUAL = {"pissa", "olora", "parameters_pissa"}  # the base changes: saved as the difference to the start
SETTINGS = {"vocabulary", "tokens", "tokens_tied", "modules_to_save", "bias_all", "bias_lora_only", "layers", "patterns", "exclude", "parameters", "parameters_alone"}
FOLLOWED = {"lora": 1e-3, "dora": 1e-3, "ia3": 1e-2} | dict.fromkeys(SETTINGS, 1e-3)  # learning rates of the 50 steps


def temper(*arguments, cwd, launcher=()):
    result = subprocess.run([*launcher, PROGRAM, *map(str, arguments)], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
    if result.returncode != 0:
        raise AssertionError(f"{arguments} ended with {result.returncode}:\n{result.stdout}\n{result.stderr}")
    return result.stdout


def renamed(value, model_type):
    """Settings that name modules, in the names of the model."""
    if model_type != "gpt2":
        return value
    if isinstance(value, dict):
        return {renamed(key, model_type): renamed(inner, model_type) for key, inner in value.items()}
    if isinstance(value, list):
        return list(dict.fromkeys(renamed(inner, model_type) for inner in value))
    if not isinstance(value, str):
        return value
    return re.sub("[a-z_]+", lambda word: GPT2_NAMES.get(word[0], word[0]), value).replace("mlp.mlp", "mlp")


def base_model(directory, dtype=torch.float32):
    return AutoModelForCausalLM.from_pretrained(directory, dtype=dtype)


def make_base(model_type, directory, tied=False, width=32):
    """A random model in float32 and, in bf16/, rounded; biases and norms are not left at zero and one."""
    tokenizer = AutoTokenizer.from_pretrained(SOURCE / "configs/quickstart")
    start = AutoConfig.from_pretrained(SOURCE / "configs/quickstart")
    config = AutoConfig.for_model(
        model_type,
        vocab_size=start.vocab_size,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4 if model_type == "gpt2" else 2,
        head_dim=16 if model_type == "qwen3" else width // 4,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        bos_token_id=start.bos_token_id,
        eos_token_id=start.eos_token_id,
        pad_token_id=start.pad_token_id,
        **(dict(n_inner=2 * width, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0) if model_type == "gpt2" else {}),
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    model.to(torch.bfloat16).save_pretrained(directory / "bf16")
    tokenizer.save_pretrained(directory / "bf16")
    return directory


def make_rows(path, count=12, between=" "):
    rng = random.Random(1)
    with open(path, "w", encoding="utf-8") as file:
        for _ in range(count):
            text = [between.join(rng.choice(WORDS) for _ in range(rng.randint(2, 9))) for _ in range(2)]
            file.write(json.dumps({"prompt": text[0], "completion": " " + text[1]}) + "\n")
    return path


def make_adapter(method, settings, base, directory):
    """An adapter of peft with nothing at its start value, saved the way peft wants it for its method."""
    cls = METHODS[method][0]
    model = peft.get_peft_model(base_model(base), cls(task_type="CAUSAL_LM", **settings))
    how = {}
    if method in RESIDUAL:
        model.peft_config["default"].init_lora_weights = True
        model.save_pretrained(directory / "start")
        how = {"path_initial_model_for_weight_conversion": str(directory / "start")}
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(directory, **how)
    return directory


def load_with_peft(base, adapter, dtype=torch.float32, **options):
    """The adapter in peft; whatever peft complains of, and any key that is not at its place, is an error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = peft.PeftModel.from_pretrained(base_model(base, dtype), str(adapter), **options)
    complaints = [
        text
        for text in (str(warning.message) for warning in caught)
        if any(word in text for word in ("missing adapter keys", "Unexpected keyword", "inconsistency", "not found in", "did not match"))
    ]
    with safe_open(adapter / "adapter_model.safetensors", "pt") as file:
        stored = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
        metadata = file.metadata()
    wanted = {key: tuple(tensor.shape) for key, tensor in get_peft_model_state_dict(model).items()}
    if stored != wanted:
        complaints.append(f"missing {sorted(wanted.items() - stored.items())}, unexpected {sorted(stored.items() - wanted.items())}")
    if metadata != {"format": "pt"}:
        complaints.append(f"metadata {metadata}")
    if complaints:
        raise AssertionError("peft: " + "\n".join(complaints))
    return model


def toml_value(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {json.dumps(inner)}" for key, inner in value.items()) + " }"
    return json.dumps(value)


def toml_table(name, values):
    return f"[{name}]\n" + "".join(f"{key} = {toml_value(value)}\n" for key, value in values.items())


class Adapters(unittest.TestCase):
    longMessage = True

    def prepare(self, folder, model_type, tied, between=" "):
        self.directory = Path(folder)
        torch.set_num_threads(1)
        torch.manual_seed(int(os.environ.get("TEMPER_SEED", "1")))
        self.base = make_base(model_type, self.directory / "model", tied)
        self.rows = make_rows(self.directory / "rows.jsonl", between=between)
        tokenizer = AutoTokenizer.from_pretrained(self.base)
        self.encoded = reference_loop.encode(tokenizer, self.rows, MAX_LENGTH)

    def check(self, method, model_type):
        if model_type == "gpt2" and method in NOT_ON_GPT2:
            self.skipTest("not on Conv1D")
        settings = renamed(METHODS[method][1], model_type)
        with tempfile.TemporaryDirectory(prefix="temper-adapters-") as folder:
            self.prepare(folder, model_type, method in TIED)
            with self.subTest("what is trained here loads in peft with the same loss"):
                self.check_export(method, settings)
            adapter = make_adapter(method, settings, self.base, self.directory / "adapter")
            with self.subTest("what peft saved loads here with the same loss"):
                self.check_loss(adapter)
            if method not in PROMPTS:
                with self.subTest("it merges to the same weights"):
                    self.check_merge(self.base, adapter, exact=False)
                with self.subTest("it merges to the same bits of bfloat16"):
                    self.check_merge(self.base / "bf16", adapter, exact=True)
            if method in FOLLOWED:
                with self.subTest("50 steps follow the torch loop"):
                    self.check_steps(adapter, FOLLOWED[method])

    def write_recipe(self, name, *, settings=None, **tables):
        """recipe.toml; `settings`: [peft]."""
        tables = {
            "run": {"name": name},
            "model": {"path": str(self.base), "dtype": "fp32"},
            "data": {"max_length": MAX_LENGTH, "packing": "none", "shuffle": False},
            "batch": {"global": 4, "micro": 2},
            "train": {"precision": "fp32"},
            "log": {"every": 1, "samples": False, "tensorboard": False},
            **tables,
        }
        if settings is not None:
            tables["peft"] = settings
        sources = "".join(f'[[data.{kind}]]\npath = "{self.rows}"\n' for kind in ("train", "eval"))
        text = "\n".join(toml_table(key, values) for key, values in tables.items()) + sources
        (self.directory / "recipe.toml").write_text(text, encoding="utf-8")

    def metrics(self, run):
        with open(self.directory / "runs" / run / "metrics.jsonl", encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def assert_close(self, ours, theirs, tolerance, what=""):
        self.assertLessEqual(abs(ours - theirs), tolerance * abs(theirs), f"{what} {ours} against {theirs}")

    def check_export(self, method, settings):
        cls = METHODS[method][0]
        peft_type = cls(**settings).peft_type.value.lower()
        train = {"steps": 3, "precision": "fp32"}
        self.write_recipe(method, settings={"method": peft_type, **settings}, train=train, optimizer={"lr": 3e-2})
        temper("train", "recipe.toml", cwd=self.directory)
        exported = self.directory / "runs" / method / "export"
        theirs = reference_loop.loss_of(load_with_peft(self.base, exported), self.encoded)
        self.assert_close(self.metrics(method)[-1]["eval_loss"], theirs, 1e-5, "at the end of training:")
        self.check_loss(exported)

    def check_loss(self, adapter):
        model, plain = load_with_peft(self.base, adapter), base_model(self.base)
        theirs = reference_loop.loss_of(model, self.encoded)
        effects = [abs(reference_loop.loss_of(model, [row]) / reference_loop.loss_of(plain, [row]) - 1) for row in self.encoded]
        self.assertGreater(max(effects), 1e-4, "the adapter does too little to be seen")
        self.write_recipe("eval")
        output = temper("eval", "recipe.toml", f"model.adapter={adapter}", cwd=self.directory)
        self.assert_close(json.loads(output.splitlines()[-1])["eval_loss"], theirs, 1e-5, "eval:")

    def check_merge(self, base, adapter, exact):
        out = self.directory / ("merged-exact" if exact else "merged")
        temper("export", "--merge", adapter, out, "--base", base, cwd=self.directory)
        dtype = torch.bfloat16 if exact else torch.float32
        theirs = load_with_peft(base, adapter, dtype).merge_and_unload().state_dict()
        ours = load_file(out / "model.safetensors")
        if AutoConfig.from_pretrained(base).tie_word_embeddings:
            theirs.pop("lm_head.weight")
        self.assertEqual(ours.keys(), theirs.keys())
        for key, tensor in theirs.items():
            self.assertEqual(ours[key].dtype, tensor.dtype, key)
            if exact:
                self.assertTrue(torch.equal(ours[key], tensor), key)
            else:
                difference = (ours[key] - tensor).abs().max() / tensor.abs().max()
                self.assertLessEqual(difference.item(), 1e-6, key)

    def check_steps(self, adapter, lr):
        settings = {"steps": 50, "batch": 4, "lr": lr, "warmup": 2, "max_norm": 1.0}
        model = load_with_peft(self.base, adapter, is_trainable=True)
        history = reference_loop.train_model(model, [[row] for row in self.encoded], **settings)
        self.write_recipe(
            "steps",
            model={"path": str(self.base), "adapter": str(adapter), "dtype": "fp32"},
            train={"steps": settings["steps"], "precision": "fp32"},
            optimizer={"lr": lr},
            schedule={"warmup": settings["warmup"]},
            eval={"every": settings["steps"]},
        )
        temper("train", "recipe.toml", cwd=self.directory)
        lines = [line for line in self.metrics("steps") if "loss" in line]
        self.assertEqual(len(lines), len(history))
        for line, (loss, norm) in zip(lines, history):
            # 50 AdamW steps amplify the last places of float32 sums taken in another order.
            self.assert_close(line["loss"], loss, 1e-4, f"loss of step {line['step']}:")
            self.assert_close(line["grad_norm"], norm, 2e-3, f"gradient norm of step {line['step']}:")


    def check_dropout(self, model_type):
        """It acts, and a resumed run draws what an uninterrupted one draws."""
        with tempfile.TemporaryDirectory(prefix="temper-adapters-") as folder:
            self.prepare(folder, model_type, tied=False)
            exports = {}
            for dropout in (0.0, 0.1):
                name = f"dropout-{dropout}"
                settings = {"method": "lora", "target_modules": renamed(["q_proj", "down_proj", "lm_head"], model_type), "lora_dropout": dropout}
                self.write_recipe(
                    name, settings=settings, train={"steps": 6, "precision": "fp32"}, optimizer={"lr": 1e-2}, checkpoint={"every": 3}
                )
                temper("train", "recipe.toml", cwd=self.directory)
                exports[dropout] = load_file(self.directory / "runs" / name / "export" / "adapter_model.safetensors")
            self.assertFalse(any(torch.equal(tensor, exports[0.1][key]) for key, tensor in exports[0.0].items() if "lora_B" in key))
            run = self.directory / "runs" / "dropout-0.1"
            shutil.rmtree(run / "export")
            shutil.rmtree(run / "checkpoints" / "step-000006")
            temper("train", "recipe.toml", cwd=self.directory)
            for key, tensor in load_file(run / "export" / "adapter_model.safetensors").items():
                self.assertTrue(torch.equal(tensor, exports[0.1][key]), key)

    def check_loraplus(self, model_type):
        """The first step of Adam moves every weight by its learning rate, whatever its gradient."""
        with tempfile.TemporaryDirectory(prefix="temper-adapters-") as folder:
            self.prepare(folder, model_type, tied=False)
            self.write_recipe(
                "run",
                settings={"method": "lora", "r": 4, "target_modules": renamed(["q_proj", "embed_tokens"], model_type), "bias": "all"},
                train={"steps": 1, "precision": "fp32"},
                optimizer={"lr": 1e-3, "loraplus_lr_ratio": 8.0, "loraplus_lr_embedding": 1e-4, "max_grad_norm": 0.0},
                schedule={"kind": "constant", "warmup": 0},
            )
            temper("train", "recipe.toml", cwd=self.directory)
            base = base_model(self.base).state_dict()
            for key, tensor in load_file(self.directory / "runs" / "run" / "export" / "adapter_model.safetensors").items():
                if key.endswith("lora_B.weight") or key.endswith("lora_embedding_A"):
                    moved = tensor.abs().max().item()  # from zero
                elif key.endswith(".bias"):
                    name = key.removeprefix("base_model.model.").replace(".base_layer", "")
                    moved = (tensor - base[name]).abs().max().item()
                else:
                    continue
                self.assert_close(moved, 1e-4 if "embedding" in key else 8e-3, 1e-3, key)

    def check_loss_of(self, model, run, what):
        self.assert_close(self.metrics(run)[-1]["eval_loss"], reference_loop.loss_of(model, self.encoded), 1e-5, what)

    def check_added_tokens(self, model_type, tied):
        """New tokens have rows, which are trained and saved, and what is saved loads in transformers and peft."""
        with tempfile.TemporaryDirectory(prefix="temper-adapters-") as folder:
            self.prepare(folder, model_type, tied, between=" <tool><call>")
            size = len(AutoTokenizer.from_pretrained(self.base))
            tables = {
                "model": {"path": str(self.base), "dtype": "fp32", "add_tokens": ADDED},
                "train": {"steps": 3, "precision": "fp32"},
                "optimizer": {"lr": 1e-2},
            }
            runs = self.directory / "runs"

            def check_tokenizer(directory):
                tokenizer = AutoTokenizer.from_pretrained(directory)
                self.assertEqual(tokenizer.convert_tokens_to_ids(ADDED), [size, tokenizer.eos_token_id, size + 1])
                self.assertEqual(len(tokenizer), size + 2)
                self.encoded = reference_loop.encode(tokenizer, self.rows, MAX_LENGTH)
                self.assertEqual(tokenizer.decode(self.encoded[0][0], skip_special_tokens=True).count("<"), 0)

            def check_model(directory, what):
                check_tokenizer(directory)
                model = base_model(directory)
                self.assertEqual(model.config.vocab_size, size + 2)
                self.assertEqual(model.get_output_embeddings().weight.shape[0], size + 2)
                self.check_loss_of(model, what, f"{what}:")
                return model

            with self.subTest("full fine-tuning"):
                self.write_recipe("full", **tables)
                temper("train", "recipe.toml", cwd=self.directory)
                check_model(runs / "full" / "export", "full")
                temper("export", runs / "full" / "checkpoints" / "step-000003", "again", cwd=self.directory)
                check_model(self.directory / "again", "full")
            with self.subTest("adapters"):
                self.write_recipe("lora", settings={"method": "lora", "r": 4}, **tables)
                temper("train", "recipe.toml", cwd=self.directory)
                adapter = runs / "lora" / "export"
                check_tokenizer(adapter)
                model = base_model(self.base)
                model.resize_token_embeddings(size + 2)
                model = peft.PeftModel.from_pretrained(model, str(adapter))
                self.check_loss_of(model, "lora", "peft:")
                temper("export", "--merge", adapter, "merged", cwd=self.directory)
                check_model(self.directory / "merged", "lora")
                temper("export", runs / "lora" / "checkpoints" / "step-000003", "adapter-again", cwd=self.directory)
                check_tokenizer(self.directory / "adapter-again")
                self.write_recipe("eval")
                output = temper("eval", "recipe.toml", f"model.adapter={adapter}", cwd=self.directory)
                self.assert_close(json.loads(output.splitlines()[-1])["eval_loss"], self.metrics("lora")[-1]["eval_loss"], 1e-6, "eval:")
                temper("generate", adapter, "--prompt", "int <tool>", "--max-new-tokens", "3", cwd=self.directory)


def add_check(method, model_type):
    setattr(Adapters, f"test_{method}_on_{model_type}", lambda self: CHECKS[method](self, model_type))


CHECKS = {method: lambda self, model_type, method=method: self.check(method, model_type) for method in METHODS} | {
    "dropout": Adapters.check_dropout,
    "loraplus": Adapters.check_loraplus,
    "added_tokens": lambda self, model_type: self.check_added_tokens(model_type, tied=False),
    "added_tokens_tied": lambda self, model_type: self.check_added_tokens(model_type, tied=True),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--only", default=",".join(CHECKS), help=", ".join(CHECKS))
    parser.add_argument("--model", default=",".join(MODELS), help=", ".join(MODELS))
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    global PROGRAM
    PROGRAM = os.path.abspath(arguments.program)
    for method in arguments.only.split(","):
        if method not in CHECKS:
            parser.error(f"--only {method}: must be one of {', '.join(CHECKS)}")
        for model_type in arguments.model.split(","):
            add_check(method, model_type)
    unittest.main(argv=["check_adapters"], verbosity=2)


if __name__ == "__main__":
    main()
