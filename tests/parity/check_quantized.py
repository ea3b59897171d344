"""Quantised bases of the whole program against bitsandbytes, peft and transformers, live: QLoRA follows them step by step, and what they
save in 4 or 8 bits loads here with the loss of quantising on the fly.

    python tests/parity/check_quantized.py PROGRAM

Needs the reference packages (launch/setup.sh --peers), no network, no GPU and no data: the model is random and tiny. Its layers have a
multiple of 64 columns: with others bitsandbytes dequantises wrongly on some CPUs (docs/differences.md).
"""

import argparse
import copy
import json
import logging as python_logging
import os
import subprocess
import tempfile
import unittest
import warnings
from pathlib import Path

os.environ["TORCHDYNAMO_DISABLE"] = "1"  # nothing here is worth compiling

import bitsandbytes as bnb
import peft
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.utils import logging

import check_adapters
import reference_loop
from check_adapters import MAX_LENGTH, METHODS, make_adapter, make_base, make_rows, temper

STEPS = {"steps": 50, "batch": 4, "lr": 1e-3, "warmup": 2, "max_norm": 1.0}
LOSS = 1e-2  # asked for; measured far below
CLOSE = 1e-4


def in_4_bits(kind, double):
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_use_double_quant=double, bnb_4bit_compute_dtype=torch.float32
    )


def quantised(directory, config):
    """Quantised by transformers as it loads, on the CPU."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, quantization_config=config, device_map={"": "cpu"})
    layers = [m for m in model.modules() if isinstance(m, bnb.nn.Linear4bit | bnb.nn.Linear8bitLt)]
    assert len(layers) == 7 * model.config.num_hidden_layers, f"{len(layers)} layers are quantised"
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False  # else evaluation rounds activations to bfloat16 where the CPU can multiply those
    return model


def with_dequantised_weights(model, quantised_model):
    """A copy of the full model with the values that the quantised one's weights stand for."""
    model = copy.deepcopy(model)
    layers = dict(quantised_model.named_modules())
    with torch.no_grad():
        for name, module in model.named_modules():
            layer = layers.get(name)
            if isinstance(layer, bnb.nn.Linear8bitLt):
                module.weight.copy_(bnb.functional.int8_vectorwise_dequant(layer.weight.data, layer.weight.SCB))
            elif isinstance(layer, bnb.nn.Linear4bit):
                module.weight.copy_(bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state))
    return model


class Quantized(check_adapters.Adapters):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="temper-quantized-")
        self.addCleanup(folder.cleanup)
        self.directory = Path(folder.name)
        torch.set_num_threads(1)
        torch.manual_seed(int(os.environ.get("TEMPER_SEED", "1")))
        self.base = make_base("llama", self.directory / "model", width=64)
        self.rows = make_rows(self.directory / "rows.jsonl")
        self.encoded = reference_loop.encode(AutoTokenizer.from_pretrained(self.base), self.rows, MAX_LENGTH)
        self.adapter = make_adapter("lora", METHODS["lora"][1], self.base, self.directory / "adapter")

    def write_quantised_recipe(self, name, kind, double=True, base=None, **tables):
        model = {"path": str(base or self.base), "adapter": str(self.adapter), "dtype": "fp32", "quantize": kind}
        self.write_recipe(name, model=model if kind == "int8" else {**model, "double_quant": double}, **tables)

    def eval_loss(self, kind, base=None, double=True):
        self.write_quantised_recipe("eval", kind, double, base)
        return json.loads(temper("eval", "recipe.toml", cwd=self.directory).splitlines()[-1])["eval_loss"]

    def follow(self, kind, double):
        model = peft.PeftModel.from_pretrained(quantised(self.base, in_4_bits(kind, double)), str(self.adapter), is_trainable=True)
        history = reference_loop.train_model(model, [[row] for row in self.encoded], **STEPS)
        self.write_quantised_recipe(
            kind,
            kind,
            double,
            train={"steps": STEPS["steps"], "precision": "fp32"},
            optimizer={"lr": STEPS["lr"]},
            schedule={"warmup": STEPS["warmup"]},
            eval={"every": STEPS["steps"]},
        )
        temper("train", "recipe.toml", cwd=self.directory)
        lines = [line for line in self.metrics(kind) if "loss" in line]
        self.assertEqual(len(lines), len(history))
        apart = max(abs(line["loss"] - loss) / loss for line, (loss, _) in zip(lines, history))
        norms = max(abs(line["grad_norm"] - norm) / norm for line, (_, norm) in zip(lines, history))
        print(f"{kind}: losses of {len(lines)} steps within {apart:.1e}, gradient norms within {norms:.1e}")
        self.assertLess(lines[-1]["loss"], 0.9 * lines[0]["loss"], "nothing is learnt")
        self.assertLessEqual(apart, CLOSE)
        self.assertLessEqual(norms, 1e-2)
        after = reference_loop.loss_of(model, self.encoded)
        self.assert_close(self.metrics(kind)[-1]["eval_loss"], after, CLOSE, "after the last step:")
        # The exported adapter is a plain one: on the full base it gives what theirs gives there.
        exported = check_adapters.load_with_peft(self.base, self.directory / "runs" / kind / "export")
        theirs = check_adapters.load_with_peft(self.base, self.adapter)
        peft.set_peft_model_state_dict(theirs, peft.get_peft_model_state_dict(model))
        self.assert_close(
            reference_loop.loss_of(exported, self.encoded), reference_loop.loss_of(theirs, self.encoded), 1e-3, "on the full base:"
        )

    def test_qlora_of_50_steps_in_nf4_with_double_quantisation_follows_peft(self):
        self.follow("nf4", double=True)

    def test_qlora_of_50_steps_in_fp4_follows_peft(self):
        self.follow("fp4", double=False)

    def test_int8_evaluates_with_the_dequantised_weights(self):
        theirs = quantised(self.base, BitsAndBytesConfig(load_in_8bit=True))
        full = check_adapters.base_model(self.base)
        load = lambda model: peft.PeftModel.from_pretrained(model, str(self.adapter))
        dequantised = reference_loop.loss_of(load(with_dequantised_weights(full, theirs)), self.encoded)
        exact = reference_loop.loss_of(load(full), self.encoded)
        layers = reference_loop.loss_of(load(theirs), self.encoded)
        ours = self.eval_loss("int8")
        print(f"int8: {ours:.6f}; dequantised weights {dequantised:.6f}, Linear8bitLt {layers:.6f}, not quantised {exact:.6f}")
        self.assert_close(ours, dequantised, 1e-5, "dequantised weights:")
        self.assert_close(ours, layers, LOSS, "Linear8bitLt, which quantises activations as well:")

    def test_what_transformers_saves_quantised_loads_here(self):
        cases = {
            "nf4": (in_4_bits("nf4", True), True),
            "fp4": (in_4_bits("fp4", False), False),
            "int8": (BitsAndBytesConfig(load_in_8bit=True), True),
        }
        for kind, (config, double) in cases.items():
            with self.subTest(kind):
                saved = self.directory / f"saved-{kind}"
                theirs = quantised(self.base, config)
                theirs.save_pretrained(saved)
                AutoTokenizer.from_pretrained(self.base).save_pretrained(saved)
                loss = self.eval_loss(kind, saved, double)
                self.assert_close(loss, self.eval_loss(kind, double=double), 1e-6, "from the file:")
                self.check_full_weights(saved, with_dequantised_weights(check_adapters.base_model(self.base), theirs))
                merged = self.directory / f"merged-{kind}"
                temper("export", "--merge", self.adapter, merged, "--base", saved, cwd=self.directory)
                self.assert_close(reference_loop.evaluation_loss(merged, self.encoded), loss, 1e-5, "merged:")
                for other in {"none", "nf4", "fp4", "int8"} - {kind}:
                    self.refuse_quantised(saved, kind, other)

    def check_full_weights(self, saved, expected):
        """`temper export` of stored quantised weights writes the values that they stand for."""
        out = saved.with_name(saved.name + "-full")
        temper("export", saved, out, cwd=self.directory)
        weights = load_file(out / "model.safetensors")
        self.assertEqual(weights.keys(), expected.state_dict().keys())
        for name, tensor in expected.state_dict().items():
            self.assertTrue(torch.allclose(weights[name], tensor, rtol=1e-6, atol=0), name)
        self.assertNotIn("quantization_config", json.loads((out / "config.json").read_text()))

    def refuse_quantised(self, saved, kind, other):
        """Files of one kind read as another (or as none): one line that names file, kind and key."""
        self.write_quantised_recipe("eval", other, True, saved)
        text = (self.directory / "recipe.toml").read_text().replace("double_quant = true\n", "")
        (self.directory / "recipe.toml").write_text(text)
        result = subprocess.run(
            [check_adapters.PROGRAM, "eval", "recipe.toml"], cwd=self.directory, env=check_adapters.ENVIRONMENT, capture_output=True, text=True
        )
        self.assertEqual(result.returncode, 2, result.stdout + result.stderr)
        lines = result.stderr.strip().splitlines()
        self.assertEqual(len(lines), 1, result.stderr)
        self.assertRegex(lines[0], rf'saved-{kind}.*model\.quantize = "{kind}"')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--only", nargs="*", default=[], help="names of tests")
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    python_logging.getLogger("bitsandbytes").setLevel(python_logging.ERROR)  # it says at every product that it casts
    check_adapters.PROGRAM = os.path.abspath(arguments.program)
    unittest.main(argv=["check_quantized", *(f"Quantized.{name}" for name in arguments.only)], verbosity=2)


if __name__ == "__main__":
    main()
