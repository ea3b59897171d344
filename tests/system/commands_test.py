"""The other commands on a finished run, and the recipes in configs/."""

import json
import unittest
import unittest.mock
from pathlib import Path

from harness import ENVIRONMENT, SOURCE, SystemTest


class Commands(SystemTest):
    def setUp(self):
        super().setUp()
        self.assert_done(self.run_temper("train", self.write_recipe()))

    def test_the_run_directory_is_complete(self):
        run = self.directory / "runs/test"
        for name in ("recipe.toml", "environment.json", "metrics.jsonl", "report.html", "log.txt", "export/config.json",
                     "export/model.safetensors", "export/tokenizer.json", "export/README.md"):  # fmt: skip
            self.assertTrue((run / name).exists(), name)
        self.assertTrue(list((run / "tensorboard").glob("events.out.tfevents.*")))
        self.assertTrue(list((run / "samples").glob("step-*.jsonl")))
        self.assertEqual([line["step"] for line in self.metrics()], list(range(1, 13)))
        for name in ("epoch", "loss", "grad_norm", "learning_rate", "num_tokens", "mean_token_accuracy", "tokens_per_second",
                     "step_time", "memory/peak_mib"):  # fmt: skip
            self.assertIn(name, self.metrics()[-1])
        self.assertLess(self.metrics()[-1]["eval_loss"], self.metrics()[5]["eval_loss"])

    def test_keep_is_obeyed(self):
        steps = sorted(p.name for p in (self.directory / "runs/test/checkpoints").glob("step-*"))
        self.assertEqual(steps, ["step-000008", "step-000012"])

    def test_the_plan_predicts_time_from_what_doctor_has_measured(self):
        model = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")).partition(": ")[2]
        peaks = self.directory / ".cache/temper/peaks.json"
        with unittest.mock.patch.dict(ENVIRONMENT, HOME=str(self.directory)):
            plan = json.loads(self.run_temper("plan", "recipe.toml", "train.threads=1", "--json").stdout)
            self.assertIsNone(plan["time"])
            peaks.parent.mkdir(parents=True)
            peaks.write_text(json.dumps({f"{model}, 1 threads": {"fp32_flops": 1e9}}))
            one, two = (json.loads(self.run_temper("plan", "recipe.toml", "train.threads=1", "--json", "--world", world).stdout)["time"]
                        for world in (1, 2))  # fmt: skip
        # 6 FLOPs a matmul weight and token, and attention: weights of this model are 149504 with its head.
        least = 6 * 149504 * plan["tokens_per_step"] / 1e9
        self.assertGreater(one["step_seconds_at_least"], least)
        self.assertLess(one["step_seconds_at_least"], 1.2 * least)
        self.assertAlmostEqual(one["run_seconds_at_least"], 12 * one["step_seconds_at_least"])
        self.assertAlmostEqual(two["step_seconds_at_least"], one["step_seconds_at_least"] / 2)

    def test_the_resolved_recipe_is_a_recipe(self):
        result = self.run_temper("plan", "runs/test/recipe.toml")
        self.assert_done(result)

    def test_eval_of_the_checkpoint_equals_the_run(self):
        result = self.run_temper("eval", self.write_recipe(), "--checkpoint", "last")
        self.assert_done(result)
        evaluated = json.loads(result.stdout.splitlines()[-1])
        self.assertAlmostEqual(evaluated["eval_loss"], self.metrics()[-1]["eval_loss"], places=6)

    def test_eval_of_the_export_equals_the_run(self):
        result = self.run_temper("eval", self.write_recipe(), "model.path=runs/test/export", "model.init=pretrained", ranks=2)
        self.assert_done(result)
        evaluated = json.loads([line for line in result.stdout.splitlines() if line.startswith("{")][-1])
        self.assertAlmostEqual(evaluated["eval_loss"], self.metrics()[-1]["eval_loss"], places=5)
        self.assertEqual(evaluated["eval_num_tokens"], self.metrics()[-1]["eval_num_tokens"])
        self.assertIsInstance(evaluated["eval_num_tokens"], int)

    def test_export_of_a_run_equals_its_export(self):
        self.assert_done(self.run_temper("export", "runs/test", "out"))
        self.assertEqual((self.directory / "out/model.safetensors").read_bytes(), self.weights())

    def test_generate_prints_the_completion_alone(self):
        result = self.run_temper("generate", "runs/test", "--prompt", "int main", "--max-new-tokens", "5")
        self.assert_done(result)
        self.assertNotIn("int main", result.stdout)
        self.assertTrue(result.stdout.endswith("\n"))

    def test_plan_says_memory_and_steps(self):
        result = self.run_temper("plan", self.write_recipe(), "--json")
        self.assert_done(result)
        plan = json.loads(result.stdout)
        self.assertEqual(plan["steps"], 12)
        self.assertGreater(plan["memory"]["total"], 0)

    def test_init_writes_a_recipe_that_runs(self):
        self.assert_done(self.run_temper("init", "--task", "sft", "--model", "runs/test/export", "--data", "train.jsonl", "-o", "made.toml"))
        result = self.run_temper("train", "made.toml", "train.steps=2", "model.dtype=fp32", "train.precision=fp32", "run.name=made",
                                 "data.max_length=64")
        self.assertIn(result.returncode, (0, 2), result.stderr)
        self.assert_done(result)

    def test_init_knows_the_rows_of_every_task(self):
        rows = {"pairs": {"question": "int x", "chosen": " = 1;", "rejected": " = ;"}, "rated": {"prompt": "int x", "completion": " = 1;", "label": True},
                "asked": {"question": "1 + 1 =", "answer": "2"}}
        for name, row in rows.items():
            (self.directory / f"{name}.jsonl").write_text((json.dumps(row) + "\n") * 20)
        for task, data in {"dpo": "pairs", "orpo": "pairs", "cpo": "pairs", "reward": "pairs", "kto": "rated", "grpo": "asked", "rloo": "asked"}.items():
            with self.subTest(task):
                self.assert_done(self.run_temper("init", "--task", task, "--model", "runs/test/export", "--data", f"{data}.jsonl", "-o", f"{task}.toml"))
                self.assert_done(self.run_temper("plan", f"{task}.toml", "model.dtype=fp32", "train.precision=fp32"))
        refused = self.run_temper("init", "--task", "dpo", "--model", "runs/test/export", "--data", "asked.jsonl", "-o", "wrong.toml")
        self.assertEqual(refused.returncode, 2)
        self.assertIn("expected chosen and rejected (preference)", refused.stderr)
        report = json.loads(self.run_temper("inspect", "dpo.toml", "--rows", "1", "--json").stdout)
        self.assertEqual([document["name"] for document in report["sources"][0]["rows"][0]["documents"]], ["chosen", "rejected"])

    def test_rows_whose_texts_are_taken_whole_are_prepared_and_shown(self):
        long = "int main " * 40
        rows = {"classify": [{"text": "int x = 1;", "label": "code"}, {"text": long, "label": "code"}],
                "embed": [{"anchor": "int x", "positive": "= 1;", "negative": "void"}, {"anchor": long, "positive": long, "negative": "void"}],
                "cross_encoder": [{"sentence1": "int x", "sentence2": "= 1;", "score": 0.5}, {"sentence1": long, "sentence2": long, "score": 1}]}  # fmt: skip
        names = {"classify": None, "embed": ["anchor", "positive", "negative"], "cross_encoder": None}
        for kind, given in rows.items():
            with self.subTest(kind):
                (self.directory / f"{kind}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
                recipe = self.directory / f"{kind}.toml"
                recipe.write_text(f'[run]\nname = "rows"\n[model]\npath = "runs/test/export"\n[data]\nmax_length = 32\n'
                                  f'[[data.train]]\npath = "{kind}.jsonl"\n[objective]\nkind = "{kind}"\n')  # fmt: skip
                (source,) = json.loads(self.run_temper("inspect", recipe.name, "--json").stdout)["sources"]
                first, second = source["rows"]
                self.assertEqual([document["name"] for document in first["documents"]] if "documents" in first else None, names[kind])
                if kind != "embed":
                    self.assertEqual(first["columns"], {"label": given[0].get("label", given[0].get("score"))})
                self.assertNotIn("tokens_cut", first)
                cut = source["first_rows"]["tokens_cut"]
                self.assertEqual(second["tokens_cut"], cut)
                for document in second.get("documents", [second]):
                    self.assertLessEqual(document["tokens"], 32)
                prepared = self.run_temper("prepare", recipe.name, ranks=2)
                self.assert_done(prepared)
                self.assertIn(f"2 rows, {source['first_rows']['tokens']} tokens, 0 supervised; 1 row above data.max_length = 32: {cut} tokens cut",
                              prepared.stdout + prepared.stderr)  # fmt: skip
                refused = self.run_temper("train", recipe.name)
                self.assertEqual(refused.returncode, 2)
                self.assertRegex(refused.stderr, rf'objective\.kind = "{kind}": this version prepares and shows its rows')

    def test_every_recipe_in_configs_plans(self):
        pair = {"prompt": "int x", "chosen": " = 1;", "rejected": " = ;"}
        rated = {"prompt": "int x", "completion": " = 1;", "label": True}
        sums = {"prompt": "int x", "answer": "1"}
        questions = {"question": "int x", "answer": "#### 1"}
        for name, row in (("pairs", pair), ("rated", rated), ("arithmetic", sums), ("gsm8k", questions)):
            (self.directory / f"{name}.jsonl").write_text((json.dumps(row) + "\n") * 20)
        for path in sorted((SOURCE / "configs").glob("*.toml")):
            with self.subTest(path.name):
                overrides = ["model.path=runs/test/export", "data.max_length=64"]
                text = path.read_text()
                for part in ("train", "eval"):
                    if f"[[data.{part}]]" in text:
                        known = {"data/pairs": "pairs", "data/rated": "rated", "/prompts": "arithmetic", "data/gsm8k": "gsm8k"}
                        name = next((known[path] for path in known if path in text), "chat" if "chats" in text else part)
                        overrides.append(f"data.{part}.0.path={name}.jsonl")
                rows = [{"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "int x;"}]}] * 20
                (self.directory / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
                if "teacher" in text:
                    overrides.append("objective.teacher=runs/test/export")
                if "max_completion_length" in text:
                    overrides.append("objective.max_completion_length=32")
                if "runs/reward/export" in text:
                    scores = json.loads((self.directory / "runs/test/export/config.json").read_text())
                    scores |= {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "LABEL_0"}}
                    (self.directory / "scores").mkdir()
                    (self.directory / "scores/config.json").write_text(json.dumps(scores))
                    overrides.append("objective.rewards.0.path=scores")
                if "chats" in text:
                    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
                    (self.directory / "runs/test/export/chat_template.jinja").write_text(template)
                if "prompt" in text:
                    (self.directory / "train.jsonl").write_text('{"prompt": "int x", "completion": " = 1;"}\n' * 20)
                self.assert_done(self.run_temper("plan", path, *overrides))


class PredictedTime(SystemTest):
    def setUp(self):
        super().setUp()
        self.write_recipe()

    def plan(self, *arguments):
        result = self.run_temper("plan", "recipe.toml", "train.threads=1", *arguments)
        self.assert_done(result)
        return json.loads(result.stdout)["time"] if "--json" in arguments else result.stdout

    def test_the_plan_says_on_what_its_seconds_stand(self):
        model = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")).partition(": ")[2]
        peaks = self.directory / ".cache/temper/peaks.json"
        with unittest.mock.patch.dict(ENVIRONMENT, HOME=str(self.directory)):
            self.assertIn("time       unknown: temper doctor measures", self.plan())
            peaks.parent.mkdir(parents=True)
            # As doctor wrote it before it measured training.
            old = {"fp32_flops": 1e9, "bf16_flops": 2e9, "copy_bytes_per_second": 1e9}
            peaks.write_text(json.dumps({f"{model}, 1 threads": old}))
            time = self.plan("--json")
            self.assertEqual((time["step_seconds"], time["run_seconds"]), (None, None))
            self.assertIn("doctor measures what else", time["missing"])
            self.assertRegex(self.plan(), r"time +at least [0-9.e-]+ s a step, .* the products alone")

            known = {"product_flops_512": 1e9, "weight_gradient_flops_512": 1e9, "attention_flops": 1e9, "logits_per_second": 1e8}
            rates = old | {f"fp32_{name}": rate for name, rate in known.items()}
            link = {"ranks": 2, "hosts": 1, "all_reduce_bytes_per_second": 1e6, "all_gather_bytes_per_second": 1e6, "latency_seconds": 1e-4}
            peaks.write_text(json.dumps({f"{model}, 1 threads": rates}))
            time = self.plan("--json")
            self.assertTrue(time["measured"])
            self.assertEqual(time["device"], f"{model}, 1 threads")
            self.assertGreater(time["step_seconds"], time["step_seconds_at_least"])
            self.assertAlmostEqual(time["step_seconds"], sum(time["components"].values()))
            self.assertAlmostEqual(time["run_seconds"], 12 * time["step_seconds"])
            self.assertNotIn("exchange", time)
            alone = self.plan("--json", "--world", "2")
            self.assertIn("the exchange is not counted: mpirun -n 2 temper doctor", alone["exchange"])
            peaks.write_text(json.dumps({f"{model}, 1 threads": rates, f"links of {model}": {"2 ranks on 1 hosts": link}}))
            two = self.plan("--json", "--world", "2")
            self.assertGreater(two["components"]["exchange"], 0)
            self.assertGreater(two["step_seconds"], alone["step_seconds"])
            text = self.plan("--world", "2")
            self.assertRegex(text, r"time +[0-9.e-]+ s a step, [0-9.e-]+ min in all, each rank on .*, 1 threads at the rates that temper doctor measured")
            self.assertIn("between 2 ranks on 1 host", text)

    def test_a_device_that_is_not_here_is_planned_by_its_data_sheet(self):
        with unittest.mock.patch.dict(ENVIRONMENT, HOME=str(self.directory)):
            time = self.plan("--json", "--device", "H100-sxm")
            self.assertEqual((time["device"], time["measured"]), ("h100-sxm", False))
            self.assertLess(time["step_seconds"], 1e-3)
            self.assertRegex(self.plan("--device", "l4"), r"time +at best [0-9.e-]+ s a step, [0-9.e-]+ min in all, on l4 by its data sheet")
            result = self.run_temper("plan", "recipe.toml", "--device", "l4", "batch.global=262144", "batch.micro=262144")
            self.assert_done(result, code=2)
            self.assertIn("MiB a rank do not fit into 24GiB: batch.micro = 1 makes it fit", result.stderr)
            result = self.run_temper("plan", "recipe.toml", "--device", "h100")
            self.assert_done(result, code=2)
            (line,) = result.stderr.strip().splitlines()
            self.assertRegex(line, r"--device 'h100': not known \(a100-40, .*, rtx3090, or what temper doctor has measured\)")
            # What doctor has measured there goes before the data sheet.
            peaks = self.directory / ".cache/temper/peaks.json"
            peaks.parent.mkdir(parents=True)
            names = ("fp32_flops", "fp32_product_flops_512", "fp32_weight_gradient_flops_512", "fp32_attention_flops",
                     "fp32_logits_per_second", "copy_bytes_per_second")  # fmt: skip
            peaks.write_text(json.dumps({"NVIDIA H100 80GB HBM3": dict.fromkeys(names, 1e9)}))
            time = self.plan("--json", "--device", "h100-sxm")
            self.assertEqual((time["device"], time["measured"]), ("NVIDIA H100 80GB HBM3", True))
            self.assertGreater(time["step_seconds"], 1e-3)
            self.assertEqual(self.plan("--json", "--device", "NVIDIA H100 80GB HBM3"), time)


class Gpt2(SystemTest):
    """Stored transposed, with names and positions of its own: through every command that reads or writes weights."""

    def setUp(self):
        super().setUp()
        config = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 72,
                  "vocab_size": 4096, "bos_token_id": 0, "eos_token_id": 0}  # fmt: skip
        (self.directory / "model/config.json").write_text(json.dumps(config))

    def shapes(self, directory):
        data = (self.directory / directory / "model.safetensors").read_bytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}

    def loss(self, *arguments):
        result = self.run_temper("eval", "recipe.toml", "model.init=pretrained", *arguments)
        self.assert_done(result)
        return json.loads(result.stdout.splitlines()[-1])["eval_loss"]

    def test_trains_exports_adapts_and_generates(self):
        self.write_recipe(train={"steps": 3}, optimizer={"lr": 1e-2})
        result = self.run_temper("train", "recipe.toml", ranks=2)
        self.assert_done(result)
        said = "config.json: attn_pdrop, embd_pdrop, resid_pdrop: the model's own dropout is not applied"
        self.assertIn(said, result.stdout + result.stderr)
        shapes = self.shapes("runs/test/export")
        self.assertEqual(shapes["transformer.h.1.attn.c_attn.weight"], [32, 96])
        self.assertEqual(shapes["transformer.h.1.mlp.c_proj.weight"], [128, 32])
        self.assertNotIn("lm_head.weight", shapes)
        self.assertAlmostEqual(self.loss("model.path=runs/test/export"), self.metrics()[-1]["eval_loss"], delta=1e-5)
        self.assert_done(self.run_temper("export", "runs/test/checkpoints/step-000003", "again"))
        self.assertEqual((self.directory / "again/model.safetensors").read_bytes(), self.weights())

        # An adapter on it in 4 bits, with a matrix of the base trained along, which PEFT stores as its files have it.
        self.write_recipe(run={"name": "lora"}, model={"path": "runs/test/export", "init": "pretrained"}, train={"steps": 3},
                          peft={"method": "lora", "r": 4, "modules_to_save": ["1.mlp.c_fc"]}, optimizer={"lr": 1e-2})  # fmt: skip
        self.assert_done(self.run_temper("train", "recipe.toml"))
        tuned = self.metrics("runs/lora")[-1]["eval_loss"]
        self.assertEqual(json.loads((self.directory / "runs/lora/export/adapter_config.json").read_text())["fan_in_fan_out"], True)
        self.write_recipe()
        self.assertAlmostEqual(self.loss("model.path=runs/test/export", "model.adapter=runs/lora/export"), tuned, delta=1e-5)
        self.assert_done(self.run_temper("export", "--merge", "runs/lora/export", "merged"))
        self.assertEqual(self.shapes("merged"), shapes)
        self.assertAlmostEqual(self.loss("model.path=merged"), tuned, delta=1e-5)
        self.assert_done(self.run_temper("train", "recipe.toml", "run.name=nf4", "model.path=merged", "model.init=pretrained", "model.quantize=nf4",
                                         "peft.method=lora", "peft.target_modules=all-linear", "train.steps=1"))  # fmt: skip
        generated = self.run_temper("generate", "merged", "--prompt", "int x", "--max-new-tokens", "200")
        self.assert_done(generated)  # as far as its positions go

    def test_what_it_does_not_do_is_refused(self):
        self.write_recipe()
        for change, line in (
            ("data.max_length=73", "data.max_length = 73: above the model's max_position_embeddings = 72"),
            ("peft.method=loha", 'peft.method = "loha": PEFT has none for the layers of GPT2LMHeadModel, which store their weights transposed'),
        ):
            result = self.run_temper("plan", "recipe.toml", change)
            self.assertEqual(result.returncode, 2)
            self.assertIn(line, result.stderr)


class Doctor(SystemTest):
    def doctor(self, *arguments, **options):
        # Its peaks are stored under HOME.
        with unittest.mock.patch.dict(ENVIRONMENT, HOME=str(self.directory)):
            result = self.run_temper("doctor", *arguments, **options)
        self.assert_done(result)
        return result.stdout

    def stored(self):
        return json.loads((self.directory / ".cache/temper/peaks.json").read_text())

    def test_two_ranks_are_laid_out_and_their_link_is_measured(self):
        report = json.loads(self.doctor("--json", ranks=2))
        self.assertEqual([(r["rank"], r["local_rank"], r["host"]) for r in report["ranks"]],
                         [(0, 0, report["ranks"][0]["host"]), (1, 1, report["ranks"][0]["host"])])  # fmt: skip
        for rank in report["ranks"]:
            self.assertTrue(rank["cores"] and rank["sees_directory"])
            self.assertLess(abs(rank["clock_offset_ms"]), 100)  # one clock; the rest is how busy the machine is
        self.assertEqual([(axis["name"], axis["size"]) for axis in report["axes"]], [("replicate", 2)])
        for key in ("latency_us", "all_reduce_gb_per_s", "all_gather_gb_per_s"):
            self.assertGreater(report["axes"][0][key], 0)
        (key,) = (key for key in self.stored() if key.startswith("links of"))
        self.assertEqual(self.stored()[key]["2 ranks on 1 hosts"]["all_reduce_bytes_per_second"] / 1e9, report["axes"][0]["all_reduce_gb_per_s"])
        self.assertFalse([odd for odd in report["odd"] if "differs" in odd["what"] or "does not see" in odd["what"]])
        self.assertFalse(list(self.directory.glob(".temper-sees*")))

    def test_shared_cores_are_odd(self):
        with unittest.mock.patch.dict(ENVIRONMENT, TEMPER_CORES="0"):
            text = self.doctor(ranks=2)
        self.assertRegex(text, r"ranks +rank 0 on [^ ]+: local rank 0, cores 0, 1 threads")
        self.assertRegex(text, r"axis +replicate of 2 ranks: 25 MiB all-reduce [0-9.]+ GB/s, all-gather")
        self.assertRegex(text, r"odd +[^ ]+: cores 0 are shared by ranks 0, 1\n +mend: ")

    def test_alone_it_says_nothing_of_ranks(self):
        report = json.loads(self.doctor("--json"))
        self.assertFalse({"ranks", "axes", "odd", "device"} & set(report))
        rates = report["rates"]
        for name in ("gemm_fp32_gflops", "gemm_bf16_gflops", "gemm_fp16_gflops", "copy_gb_per_s"):
            self.assertGreater(rates[name], 0, name)
        for dtype in ("fp32", "bf16"):
            training = rates["training"][dtype]
            self.assertIn("512", training["product_gflops"])
            self.assertEqual(training["product_gflops"].keys(), training["weight_gradient_gflops"].keys())
            self.assertGreaterEqual(rates[f"gemm_{dtype}_gflops"], max(training["product_gflops"].values()))
            self.assertGreater(training["attention_gflops"], 0)
            self.assertGreater(training["mega_logits_per_s"], 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
