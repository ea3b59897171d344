"""Adapters and quantised bases as a user runs them: kill and resume, every command on what a run leaves, and what is refused."""

import json
import os
import random
import shutil
import struct
import tempfile
import unittest
from pathlib import Path

from harness import KILL, USR1, SystemTest, ranks_of, wait_for_step

LORA = {"method": "lora", "r": 4, "lora_alpha": 8, "target_modules": "all-linear"}
STEPS = 30


class AdapterTest(SystemTest):
    """With a base that has weights, and an adapter of a few steps, each made once."""

    @classmethod
    def setUpClass(cls):
        cls.made = Path(tempfile.mkdtemp(prefix="temper-test-made-"))
        cls.addClassCleanup(shutil.rmtree, cls.made, ignore_errors=True)
        maker = cls("setUp")
        SystemTest.setUp(maker)
        try:
            maker.assert_done(maker.run_temper("train", SystemTest.write_recipe(maker), "train.steps=1"))
            shutil.move(maker.directory / "runs/test/export", cls.made / "model")
            shutil.rmtree(maker.directory / "model")
            shutil.copytree(cls.made / "model", maker.directory / "model")
            maker.assert_done(maker.run_temper("train", maker.write_recipe(), "train.steps=4", "run.name=adapter"))
            shutil.move(maker.directory / "runs/adapter/export", cls.made / "adapter")
        finally:
            maker.doCleanups()

    def setUp(self):
        super().setUp()
        shutil.rmtree(self.directory / "model")
        for name in ("model", "adapter"):
            shutil.copytree(self.made / name, self.directory / name)

    def write_recipe(self, name="recipe.toml", **overrides):
        # One thread: two ranks, or a busy machine, make small steps of several threads wait for each other.
        tables = {"model": {"init": "pretrained"}, "optimizer": {"lr": 1e-2}, "peft": LORA, "train": {"threads": 1}}
        for table, values in overrides.items():
            tables[table] = {**tables.get(table, {}), **values}
        return super().write_recipe(name, **{table: values for table, values in tables.items() if values})

    def write_recipe_without_peft(self, name="recipe.toml", **overrides):
        path = self.directory / self.write_recipe(name, **overrides)
        text = path.read_text()
        start = text.index("[peft]")
        path.write_text(text[:start] + text[text.index("[", start + 1) :])
        return name

    def adapter(self, run="runs/test"):
        return (self.directory / run / "export/adapter_model.safetensors").read_bytes()

    def losses(self, run="runs/test"):
        return [line["loss"] for line in self.metrics(run) if "loss" in line]

    def evaluated(self, *arguments):
        result = self.run_temper("eval", *arguments)
        self.assert_done(result)
        return json.loads(result.stdout.splitlines()[-1])

    def inspected(self, path):
        result = self.run_temper("inspect", path, "--json")
        self.assert_done(result)
        self.assert_done(self.run_temper("inspect", path))
        return json.loads(result.stdout)

    def generated(self, *arguments):
        result = self.run_temper("generate", *arguments, "--prompt", "int main", "--max-new-tokens", "8", "--temperature", "0")
        self.assert_done(result)
        return result.stdout


class Resume(AdapterTest):
    """With dropout and bf16, whatever is random or rounded is part of what has to come back."""

    def recipe(self):
        return self.write_recipe(
            peft={"lora_dropout": 0.1},
            model={"dtype": "bf16"},
            train={"steps": STEPS, "precision": "bf16"},
            checkpoint={"every": 5},
            eval={"every": 10},
        )

    def interrupted(self, ranks, interrupt, code):
        """A run that `interrupt` ended on the way, and its second start."""
        shutil.rmtree(self.directory / "runs/test", ignore_errors=True)
        process = self.start_temper("train", self.recipe(), ranks=ranks)
        wait_for_step(self, random.Random(ranks).randint(6, STEPS - 15), process=process)
        interrupt(process)
        self.assertIn(process.wait(timeout=60), code)
        process.communicate()
        self.assertLess(self.metrics()[-1]["step"], STEPS)
        self.assert_done(self.run_temper("train", self.recipe(), ranks=ranks))

    def test_killed_or_stopped_and_resumed_gives_the_same_bytes(self):
        for ranks in (1, 2):
            self.assert_done(self.run_temper("train", self.recipe(), "run.name=whole", ranks=ranks))
            ways = {
                "killed": (lambda process: os.kill(ranks_of(process)[-1], KILL), (-9, 137)),
                "stopped": (lambda process: os.kill(process.pid, USR1), (75,)),
            }
            for way, (interrupt, code) in ways.items():
                with self.subTest(way, ranks=ranks):
                    self.interrupted(ranks, interrupt, code)
                    self.assertEqual(self.numbers(), self.numbers("runs/whole"))
                    self.assertEqual(self.adapter(), self.adapter("runs/whole"))
            shutil.rmtree(self.directory / "runs")

    def test_starts_that_look_at_data_or_change_the_base_come_back(self):
        starts = {
            "eva": ["peft.init_lora_weights=eva"],
            "loftq": ["peft.init_lora_weights=loftq", "model.dtype=fp32", "peft.loftq_config.loftq_iter=3"],
            "loftq-8": ["peft.init_lora_weights=loftq", "model.dtype=fp32", "peft.loftq_config.loftq_bits=8"],
        }
        for name, start in starts.items():
            with self.subTest(name):
                arguments = [*start, "train.steps=6", "checkpoint.every=3", "checkpoint.keep=9"]
                self.assert_done(self.run_temper("train", self.recipe(), *arguments, f"run.name={name}"))
                run = self.directory / "runs" / name
                whole, at_the_end = self.adapter(run), self.metrics(run)[-1]["eval_loss"]
                shutil.rmtree(run / "export")
                shutil.rmtree(run / "checkpoints/step-000006")
                # Whatever the number of ranks, a resumed run takes ranks and base from its checkpoint.
                self.assert_done(self.run_temper("train", self.recipe(), *arguments, f"run.name={name}"))
                self.assertEqual(self.adapter(run), whole)
                recipe = [self.recipe(), *start, f"run.name={name}"]
                self.assertAlmostEqual(self.evaluated(*recipe, "--checkpoint", "last")["eval_loss"], at_the_end, places=4)
                self.write_recipe_without_peft("plain.toml", model={"dtype": "fp32"})
                evaluated = self.evaluated("plain.toml", f"model.adapter={run}/export")["eval_loss"]
                self.assertAlmostEqual(evaluated, at_the_end, places=2)
                self.assertEqual(self.generated(run), self.generated(f"{run}/export"))
                self.assert_done(self.run_temper("export", "--merge", run, f"merged-{name}"))

    def test_another_rank_is_refused(self):
        self.assert_done(self.run_temper("train", self.write_recipe(), "train.steps=4"))
        result = self.run_temper("train", self.write_recipe(), "train.steps=8", "peft.r=8")
        self.assert_done(result, 2)
        self.assertRegex(result.stderr, r"peft\.r: 4 -> 8")


class Commands(AdapterTest):
    def setUp(self):
        super().setUp()
        self.assert_done(self.run_temper("train", self.write_recipe(peft={"lora_dropout": 0.1})))
        self.last = self.directory / "runs/test/checkpoints/step-000012"

    def test_eval_of_the_checkpoint_and_of_the_export_equal_the_run(self):
        at_the_end = self.metrics()[-1]["eval_loss"]
        self.assertAlmostEqual(self.evaluated("recipe.toml", "--checkpoint", "last")["eval_loss"], at_the_end, places=6)
        self.write_recipe_without_peft("plain.toml")
        exported = self.evaluated("plain.toml", "model.adapter=runs/test/export")["eval_loss"]
        self.assertAlmostEqual(exported, at_the_end, places=6)
        self.assertNotAlmostEqual(self.evaluated("plain.toml")["eval_loss"], at_the_end, places=2)

    def test_generate_is_the_same_from_run_checkpoint_adapter_and_merged_weights(self):
        self.assert_done(self.run_temper("export", "--merge", "runs/test", "merged"))
        texts = {
            self.generated("runs/test"),
            self.generated(self.last),
            self.generated("runs/test/export"),
            self.generated("model", "--adapter", "runs/test/export"),
            self.generated("merged"),
        }
        self.assertEqual(len(texts), 1, texts)
        self.assertNotEqual(texts, {self.generated("model")})

    def test_export_of_a_checkpoint_is_the_runs_own(self):
        for source in (self.last, "runs/test", "runs/test/export"):
            self.assert_done(self.run_temper("export", source, "out"))
            self.assertEqual((self.directory / "out/adapter_model.safetensors").read_bytes(), self.adapter(), source)
            config = json.loads((self.directory / "out/adapter_config.json").read_text())
            self.assertEqual((config["r"], config["base_model_name_or_path"]), (4, "model"), source)
            shutil.rmtree(self.directory / "out")

    def test_merged_weights_evaluate_as_base_and_adapter(self):
        self.assert_done(self.run_temper("train", self.write_recipe(peft={"lora_dropout": 0.1}), "run.name=merged", "export.merge=true"))
        for source in (self.last, "runs/test/export"):
            self.assert_done(self.run_temper("export", "--merge", source, "out"))
            self.assertEqual((self.directory / "out/model.safetensors").read_bytes(), self.weights("runs/merged"), source)
            shutil.rmtree(self.directory / "out")
        self.write_recipe_without_peft("plain.toml")
        merged = self.evaluated("plain.toml", "model.path=runs/merged/export")
        self.assertAlmostEqual(merged["eval_loss"], self.metrics()[-1]["eval_loss"], places=5)

    def test_inspect_says_what_an_adapter_is(self):
        report = self.inspected("runs/test/export")
        self.assertEqual((report["kind"], report["method"], report["base"], report["config"]["r"]), ("adapter", "lora", "model", 4))
        self.assertEqual(len(report["tensors"]), 2 * 2 * 7)
        self.assertEqual({tensor["dtype"] for tensor in report["tensors"]}, {"F32"})
        numbers = sum(4 * (d + f) for d, f in 2 * [(32, 32), (32, 16), (32, 16), (32, 32), (32, 64), (32, 64), (64, 32)])
        self.assertEqual((report["numbers"], report["bytes"]), (numbers, 4 * numbers))
        checkpoint = self.inspected(self.last)
        self.assertEqual((checkpoint["kind"], checkpoint["state"]["adapter"]["peft_type"]), ("checkpoint", "LORA"))
        weights = [tensor for tensor in checkpoint["tensors"] if tensor["name"].startswith("weights/")]
        self.assertEqual({w["name"].removeprefix("weights/") for w in weights}, {t["name"] for t in report["tensors"]})
        run = self.inspected("runs/test")
        self.assertEqual((run["kind"], run["export"], len(run["checkpoints"])), ("run", True, 2))

    def test_an_adapter_is_trained_further(self):
        self.write_recipe_without_peft("further.toml", model={"adapter": "runs/test/export"}, eval={"every": 12, "at_start": True})
        self.assert_done(self.run_temper("train", "further.toml", "run.name=further"))
        evaluations = [line["eval_loss"] for line in self.metrics("runs/further") if "eval_loss" in line]
        self.assertAlmostEqual(evaluations[0], self.metrics()[-1]["eval_loss"], places=6)
        self.assertLess(evaluations[-1], evaluations[0])
        self.assertNotEqual(self.adapter("runs/further"), self.adapter())
        self.assertEqual(self.inspected("runs/further/export")["config"]["base_model_name_or_path"], "model")


class Training(AdapterTest):
    def test_two_epochs_learn(self):
        ways = {
            "dora": ["peft.use_dora=true"],
            "odd-rank-bf16": ["peft.r=3", "model.dtype=bf16", "train.precision=bf16"],
            "nf4": ["model.quantize=nf4"],
            "int8": ["model.quantize=int8"],
            "adamw_8bit": ["optimizer.kind=adamw_8bit"],
        }
        for name, overrides in ways.items():
            with self.subTest(name):
                # Two epochs: write_recipe's tests count steps.
                recipe = self.directory / self.write_recipe(checkpoint={"every": 1000}, eval={"every": 0})
                recipe.write_text(recipe.read_text().replace("steps = 12", "epochs = 2"))
                self.assert_done(self.run_temper("train", recipe.name, f"run.name={name}", *overrides))
                losses = self.losses(f"runs/{name}")
                self.assertAlmostEqual(self.metrics(f"runs/{name}")[-1]["epoch"], 2)
                self.assertLess(sum(losses[-3:]) / 3, losses[0] - 0.1, name)
                self.assertTrue((self.directory / f"runs/{name}/export/adapter_model.safetensors").exists())


class Refused(AdapterTest):
    """Bad input: exit code 2 and one line."""

    def refuse(self, *arguments, says, lines=1):
        result = self.run_temper(*arguments)
        self.assertEqual(result.returncode, 2, result.stdout + result.stderr)
        own = [line for line in result.stderr.splitlines() if line.strip()]
        self.assertEqual(len(own), lines, result.stderr)
        self.assertRegex(result.stderr, says)
        self.assertFalse((self.directory / "runs").exists() and any((self.directory / "runs").iterdir()), "a run directory was left")

    def test_recipes(self):
        cases = {
            "no target matches": (['peft.target_modules=["q_prj"]'], r"target_modules.*'q_prj'.*q_proj"),
            "one of two does not match": (['peft.target_modules=["q_proj", "v_prj"]'], r"target_modules.*'v_prj'.*v_proj"),
            "a pattern matches nothing": (["peft.target_modules=.*q_prj"], r"target_modules.*q_prj.*matches no module.*q_proj"),
            "rank above the matrix": (["peft.r=33"], r"peft\.r = 33.*q_proj.*32 x 32.*at most 32|peft\.r = 33.*at most"),
            "odd rank with an orthogonal init": (["peft.r=3", "peft.init_lora_weights=orthogonal"], r"peft\.r = 3: must be even.*orthogonal"),
            "PiSSA on a quantised base": (["model.quantize=nf4", "peft.init_lora_weights=pissa"], r"init_lora_weights.*pissa.*model\.quantize"),
            "adapter and [peft]": (["model.adapter=adapter"], r"model\.adapter=adapter.*leave \[peft\] out"),
        }
        for name, (overrides, says) in cases.items():
            with self.subTest(name):
                self.refuse("train", self.write_recipe(), *overrides, says=says)

    def test_quantised_full_fine_tuning(self):
        self.refuse("train", self.write_recipe_without_peft(), "model.quantize=nf4", says=r"model\.quantize=nf4.*add \[peft\]")

    def refuse_adapter(self, says):
        recipe = self.write_recipe_without_peft()
        for command in ("train", "eval"):
            self.refuse(command, recipe, "model.adapter=adapter", says=says)

    def test_adapter_without_weights(self):
        (self.directory / "adapter/adapter_model.safetensors").unlink()
        self.refuse_adapter(r"adapter: has no adapter_model\.safetensors")

    def test_adapter_with_a_pickle_alone(self):
        (self.directory / "adapter/adapter_model.safetensors").rename(self.directory / "adapter/adapter_model.bin")
        self.refuse_adapter(r"adapter: holds only adapter_model\.bin, a pickle.*convert")

    def test_adapter_that_does_not_exist(self):
        shutil.rmtree(self.directory / "adapter")
        self.refuse_adapter(r"model\.adapter.*adapter|adapter.*adapter_config\.json")

    def test_truncated_adapter(self):
        file = self.directory / "adapter/adapter_model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
        self.refuse_adapter(r"adapter_model\.safetensors.*bytes|adapter_model\.safetensors.*truncated")

    def test_nan_in_an_adapter(self):
        file = self.directory / "adapter/adapter_model.safetensors"
        file.write_bytes(file.read_bytes()[:-4] + struct.pack("<f", float("nan")))
        self.refuse_adapter(r"adapter_model\.safetensors: '.*' holds NaN")

    def change_config(self, **values):
        file = self.directory / "adapter/adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))

    def test_unknown_peft_type(self):
        self.change_config(peft_type="XLORA")
        self.refuse_adapter(r"adapter_config\.json: peft_type = \"XLORA\".*LORA")

    def test_malformed_config(self):
        (self.directory / "adapter/adapter_config.json").write_text('{"peft_type": "LORA", ')
        self.refuse_adapter(r"adapter_config\.json")

    def test_adapter_for_another_base(self):
        config = json.loads((self.directory / "model/config.json").read_text())
        wider = self.directory / "wider"
        shutil.copytree(self.directory / "model", wider)
        (wider / "model.safetensors").unlink()
        (wider / "config.json").write_text(json.dumps({**config, "intermediate_size": 96}))
        recipe = self.write_recipe_without_peft(model={"path": "wider", "init": "random", "adapter": "adapter"})
        self.refuse("eval", recipe, says=r"'base_model\.model\.model\.layers\.0\.mlp\.\w+\.lora_B\.weight' is \[64,4\], must be \[96,4\].*another base.*more")

    def test_a_base_that_is_not_here(self):
        for base in ("../elsewhere/model", ""):
            with self.subTest(base):
                self.change_config(base_model_name_or_path=base)
                for command in (["export", "--merge", "adapter", "out"], ["generate", "adapter", "--prompt", "x"]):
                    self.refuse(*command, says=rf'adapter: its base model "{base}".*--base|--adapter')
        self.assert_done(self.run_temper("export", "--merge", "adapter", "out", "--base", "model"))
        self.assertTrue((self.directory / "out/model.safetensors").exists())
        self.generated("model", "--adapter", "adapter")

    def test_nothing_to_merge(self):
        self.refuse("export", "--merge", "model", "out", says=r"--merge: model holds no adapter")

    def test_generate_with_no_adapter(self):
        self.refuse("generate", "model", "--adapter", "model", "--prompt", "x", says=r"model: no adapter.*adapter_config\.json")
        self.refuse("generate", "model", "--adapter", "nowhere", "--prompt", "x", says=r"nowhere: no adapter")
        self.refuse("generate", "nowhere", "--adapter", "adapter", "--prompt", "x", says=r"nowhere")


if __name__ == "__main__":
    unittest.main(verbosity=2)
