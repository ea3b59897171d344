"""Adapters of the whole program against peft, live: trained ones load in peft with the same loss, those of peft load here with the same
loss, merge to the same weights, and train along the same losses.

    python tests/parity/check_adapters.py PROGRAM [--only METHOD[,METHOD...]] [--model llama|qwen2|qwen3]

Needs the reference packages (launch/setup.sh --peers), no network and no data: models are random and tiny.
"""

import argparse
import json
import os
import random
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
MODELS = ("llama", "qwen2", "qwen3")
MAX_LENGTH = 48

# What each is called here: peft's class, and the settings that peft and a recipe's [peft] share.
METHODS = {
    "lora": (peft.LoraConfig, {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}),
    "dora": (peft.LoraConfig, {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "use_dora": True}),
    "rslora": (peft.LoraConfig, {"r": 4, "lora_alpha": 8, "use_rslora": True}),
    "pissa": (peft.LoraConfig, {"r": 4, "lora_alpha": 4, "target_modules": ["q_proj", "down_proj"], "init_lora_weights": "pissa"}),
    "olora": (peft.LoraConfig, {"r": 4, "lora_alpha": 4, "target_modules": ["q_proj", "down_proj"], "init_lora_weights": "olora"}),
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
}
PROMPTS = {"prefix_tuning", "prompt_tuning", "p_tuning"}  # nothing to merge
RESIDUAL = {"pissa", "olora"}  # the base changes: saved as the difference to the start
EXACT_MERGE = {"lora", "rslora", "dora"}
FOLLOWED = {"lora": 1e-3, "dora": 1e-3, "ia3": 1e-2}  # learning rates of the 50 steps


def temper(*arguments, cwd):
    result = subprocess.run([PROGRAM, *map(str, arguments)], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
    if result.returncode != 0:
        raise AssertionError(f"{arguments} ended with {result.returncode}:\n{result.stdout}\n{result.stderr}")
    return result.stdout


def base_model(directory, dtype=torch.float32):
    return AutoModelForCausalLM.from_pretrained(directory, dtype=dtype)


def make_base(model_type, directory, width=32):
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
        num_key_value_heads=2,
        head_dim=16 if model_type == "qwen3" else width // 4,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        bos_token_id=start.bos_token_id,
        eos_token_id=start.eos_token_id,
        pad_token_id=start.pad_token_id,
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


def make_rows(path, count=12):
    rng = random.Random(1)
    with open(path, "w", encoding="utf-8") as file:
        for _ in range(count):
            text = [" ".join(rng.choice(WORDS) for _ in range(rng.randint(2, 9))) for _ in range(2)]
            file.write(json.dumps({"prompt": text[0], "completion": " " + text[1]}) + "\n")
    return path


def make_adapter(method, base, directory):
    """An adapter of peft with nothing at its start value, saved the way peft wants it for its method."""
    cls, settings = METHODS[method]
    model = peft.get_peft_model(base_model(base), cls(task_type="CAUSAL_LM", **settings))
    how = {}
    if method in RESIDUAL:
        model.peft_config["default"].init_lora_weights = True
        model.save_pretrained(directory / "start")
        how = {"path_initial_model_for_weight_conversion": str(directory / "start")}
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
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


def toml_table(name, values):
    return f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


class Adapters(unittest.TestCase):
    longMessage = True

    def check(self, method, model_type):
        with tempfile.TemporaryDirectory(prefix="temper-adapters-") as folder:
            self.directory = Path(folder)
            torch.set_num_threads(1)
            torch.manual_seed(int(os.environ.get("TEMPER_SEED", "1")))
            self.base = make_base(model_type, self.directory / "model")
            self.rows = make_rows(self.directory / "rows.jsonl")
            tokenizer = AutoTokenizer.from_pretrained(self.base)
            self.encoded = reference_loop.encode(tokenizer, self.rows, MAX_LENGTH)
            with self.subTest("what is trained here loads in peft with the same loss"):
                self.check_export(method)
            adapter = make_adapter(method, self.base, self.directory / "adapter")
            with self.subTest("what peft saved loads here with the same loss"):
                self.check_loss(adapter)
            if method not in PROMPTS:
                with self.subTest("it merges to the same weights"):
                    self.check_merge(self.base, adapter, exact=False)
                if method in EXACT_MERGE:
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

    def check_export(self, method):
        cls, settings = METHODS[method]
        peft_type = cls(**settings).peft_type.value.lower()
        train = {"steps": 3, "precision": "fp32"}
        self.write_recipe(method, settings={"method": peft_type, **settings}, train=train, optimizer={"lr": 1e-2})
        temper("train", "recipe.toml", cwd=self.directory)
        exported = self.directory / "runs" / method / "export"
        theirs = reference_loop.loss_of(load_with_peft(self.base, exported), self.encoded)
        self.assert_close(self.metrics(method)[-1]["eval_loss"], theirs, 1e-5, "at the end of training:")
        self.check_loss(exported)

    def check_loss(self, adapter):
        theirs = reference_loop.loss_of(load_with_peft(self.base, adapter), self.encoded)
        without = reference_loop.loss_of(base_model(self.base), self.encoded)
        self.assertNotEqual(theirs, without, "the adapter does nothing")
        self.write_recipe("eval")
        output = temper("eval", "recipe.toml", f"model.adapter={adapter}", cwd=self.directory)
        self.assert_close(json.loads(output.splitlines()[-1])["eval_loss"], theirs, 1e-5, "eval:")

    def check_merge(self, base, adapter, exact):
        out = self.directory / ("merged-exact" if exact else "merged")
        temper("export", "--merge", adapter, out, "--base", base, cwd=self.directory)
        dtype = torch.bfloat16 if exact else torch.float32
        theirs = load_with_peft(base, adapter, dtype).merge_and_unload().state_dict()
        ours = load_file(out / "model.safetensors")
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
        history = reference_loop.train_model(model, self.encoded, **settings)
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


def add_check(method, model_type):
    setattr(Adapters, f"test_{method}_on_{model_type}", lambda self: self.check(method, model_type))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--only", default=",".join(METHODS), help=", ".join(METHODS))
    parser.add_argument("--model", default=",".join(MODELS), help=", ".join(MODELS))
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    global PROGRAM
    PROGRAM = os.path.abspath(arguments.program)
    for method in arguments.only.split(","):
        if method not in METHODS:
            parser.error(f"--only {method}: must be one of {', '.join(METHODS)}")
        for model_type in arguments.model.split(","):
            add_check(method, model_type)
    unittest.main(argv=["check_adapters"], verbosity=2)


if __name__ == "__main__":
    main()
