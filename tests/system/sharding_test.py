"""What can be trained can be trained sharded: each recipe on one rank and on ranks that share a copy, at every stage, gives the same losses
and the same weights.

The cheapest cases of each family in every run of the tests, each on one layout; all of them, on several, with TEMPER_LONG=1.
"""

import array
import json
import random
import shutil
import struct
import tempfile
import unittest
from dataclasses import dataclass, field
from pathlib import Path

from harness import LONG, TINY, SystemTest, made_up_text

# Three blocks, so that one lies between two others, and each in pieces on four ranks (a segment has 8192 elements at least).
SHAPE = TINY | {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "head_dim": 16}

# As layout_test.py: float32 sums in another order. Of rollouts and distillation, whose losses are near 0, as grpo_test.py and
# distillation_test.py.
TOLERANCE = 1e-5
NORM_TOLERANCE = 1e-3

# Ranks, those that share a copy, stage.
ZERO_3 = [(2, 2, 3), (4, 4, 3), (4, 2, 3)]
OTHERS = [(2, 2, 1), (2, 2, 2), (4, 4, 1), (4, 4, 2), (4, 2, 1), (4, 2, 2)]

GPT2 = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": 64, "n_layer": 3, "n_head": 4, "n_inner": 128, "n_positions": 512,
        "tie_word_embeddings": True}  # fmt: skip
LORA = {"method": "lora", "r": 4, "target_modules": "all-linear", "lora_dropout": 0.1}
LOWER_FROZEN = {"frozen": [r"embed_tokens", r"layers\.[01]\."]}
REWARDS = """
[[objective.rewards]]
kind = "regex"
pattern = "e"
name = "with e"
[[objective.rewards]]
kind = "length"
max = 8
soft = 6
"""
SAMPLED = {"max_completion_length": 8}


@dataclass
class Case:
    name: str
    tables: dict = field(default_factory=dict)  # of the recipe
    rows: str = "text"
    config: dict = field(default_factory=dict)  # of a model that is drawn; else one that has weights
    exact: bool = False  # layout-exact sums: the bits of one rank
    often: bool = False  # in every run of the tests
    # What a rank's micro-batches are changes the numbers (kto's pairs): held against replicas.
    by_rank: bool = False
    reshard: bool = True

    def sampled(self):
        return self.rows == "prompt"


def of(name, rows="text", **options):
    keys = {key: options.pop(key) for key in ("config", "exact", "often", "by_rank", "reshard") if key in options}
    return Case(name, options, rows, **keys)


def cases():
    """`often`: one of each way that weights are held or passes are made."""
    bf16 = lambda **train: {"train": {"precision": "bf16"} | train, "model": {"dtype": "bf16"}, "exact": True}  # noqa: E731
    fp16 = lambda **keys: {"train": {"precision": "fp16"}, "model": {"dtype": "fp16"}, "exact": True} | keys  # noqa: E731
    nf4 = lambda **keys: {"model": {"quantize": "nf4", "dtype": "bf16"} | keys, "train": {"precision": "bf16"}, "exact": True}  # noqa: E731
    return [
        of("full"),
        of("full-kept", reshard=False),
        of("frozen-lower", train=LOWER_FROZEN),
        of("frozen-lower-kept", train=LOWER_FROZEN, reshard=False),
        of("frozen-lower-bf16", **bf16(**LOWER_FROZEN)),
        of("frozen-lower-full-checkpointing", train=LOWER_FROZEN | {"activation_checkpointing": "full"}),
        of("frozen-upper", train={"frozen": [r"layers\.[12]\."]}),
        of("frozen-in-a-projection", train={"frozen": [r"k_proj", r"up_proj"]}),
        of("frozen-in-a-projection-bf16", often=True, **bf16(frozen=[r"k_proj", r"gate_proj", r"layers\.0\..*q_proj"])),
        of("head-alone", train={"trainable": [r"lm_head"]}),
        of("norms-alone", train={"trainable": [r"norm"]}),
        of("last-block-alone", often=True, reshard=False, train={"trainable": [r"layers\.2\."]}),
        of("tied", config={"tie_word_embeddings": True}),
        of("tied-frozen", config={"tie_word_embeddings": True}, train={"frozen": ["embed_tokens"]}),
        of("biases-frozen-in-a-projection", config={"attention_bias": True}, train={"frozen": [r"k_proj", r"q_proj\.bias"]}),
        of("gpt2", config=GPT2, often=True, train={"activation_checkpointing": "selective"}),
        of("gpt2-bf16", config=GPT2, **bf16(frozen=[r"c_attn", r"ln_1\.bias"])),
        of("gpt2-lora", config=GPT2, peft=LORA | {"bias": "all", "modules_to_save": ["ln_f"]}),
        of("gpt2-prompt", config=GPT2, peft={"method": "prompt_tuning", "num_virtual_tokens": 4}),
        of("gpt2-reward", "preference", config=GPT2, objective={"kind": "reward"}),
        of("bf16", **bf16()),
        of("fp16", **fp16()),
        of("float8", often=True, **bf16(float8="rowwise")),
        of("float8-tensorwise", **bf16(float8="tensorwise", activation_checkpointing="selective")),
        of("float8-lora", peft=LORA, **bf16(float8="rowwise", activation_checkpointing="full")),
        of("checkpointing-full", train={"activation_checkpointing": "full"}),
        of("checkpointing-selective", train={"activation_checkpointing": "selective"}),
        of("packed", data={"packing": "bfd"}, often=True, train={"activation_checkpointing": "selective"}),
        of("eight-bit", optimizer={"kind": "adamw_8bit"}, exact=True),
        # No token is foreseen at first.
        of("early-stopping", eval={"every": 1, "early_stopping_patience": 1, "metric": "eval_mean_token_accuracy", "greater_is_better": True}),
        of("lora", peft=LORA),
        of("lora-kept", peft=LORA, reshard=False),
        of("lora-upper", peft=LORA | {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": [2]}, reshard=False),
        of("lora-biases", config={"attention_bias": True}, peft=LORA | {"target_modules": ["q_proj", "down_proj"], "bias": "all"}, often=True),
        of("lora-some-biases", config={"attention_bias": True}, peft=LORA | {"target_modules": ["q_proj"], "bias": "lora_only"}),
        of("lora-saved-modules", peft=LORA | {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"]}),
        of("lora-tokens", peft=LORA | {"trainable_token_indices": [3, 5, 7]}),
        of("lora-random", model={"init": "random"}, peft=LORA),
        of("lora-merged", peft=LORA, export={"merge": True}),
        of("lora-eva", peft=LORA | {"init_lora_weights": "eva"}),
        of("lora-bf16", peft=LORA, **bf16(activation_checkpointing="full")),
        of("lora-fp16", peft=LORA, **fp16()),
        of("lora-plus", peft=LORA, optimizer={"loraplus_lr_ratio": 4.0}),
        of("dora", peft=LORA | {"use_dora": True}),
        of("dora-nf4", peft=LORA | {"use_dora": True}, **nf4()),
        of("nf4", peft=LORA, often=True, **nf4()),
        of("nf4-single", peft=LORA, **nf4(double_quant=False)),
        of("nf4-merged", peft=LORA, export={"merge": True}, **nf4()),
        of("int8", peft=LORA, **nf4(quantize="int8")),
        of("nf4-fp16", peft=LORA, **fp16(model={"quantize": "nf4", "dtype": "fp16"})),
        of("ia3", peft={"method": "ia3"}),
        of("prefix", peft={"method": "prefix_tuning", "num_virtual_tokens": 4}, often=True),
        of("prefix-checkpointing", peft={"method": "prefix_tuning", "num_virtual_tokens": 4}, train={"activation_checkpointing": "full"}),
        of("prompt", peft={"method": "prompt_tuning", "num_virtual_tokens": 4}),
        of("p-tuning", peft={"method": "p_tuning", "num_virtual_tokens": 4, "encoder_hidden_size": 16}),
        of("loha", peft={"method": "loha", "r": 4, "target_modules": ["q_proj", "up_proj"]}),
        of("lokr", peft={"method": "lokr", "r": 4, "target_modules": ["q_proj", "up_proj"]}),
        of("vera", peft={"method": "vera", "r": 8, "target_modules": ["q_proj"]}),
        of("oft", peft={"method": "oft", "oft_block_size": 16, "target_modules": ["q_proj", "down_proj"]}),
        of("boft", peft={"method": "boft", "target_modules": ["q_proj"]}),
        of("norm-tuning", peft={"method": "ln_tuning"}),
        of("dpo", "preference", objective={"kind": "dpo"}),
        of("dpo-frozen-lower", "preference", objective={"kind": "dpo"}, train=LOWER_FROZEN),
        of("dpo-precomputed", "preference", objective={"kind": "dpo", "precompute_ref_log_probs": True}),
        of("dpo-lora", "preference", objective={"kind": "dpo"}, peft=LORA, often=True),
        of("dpo-lora-kept", "preference", objective={"kind": "dpo"}, peft=LORA, reshard=False),
        of("dpo-lora-precomputed", "preference", objective={"kind": "dpo", "precompute_ref_log_probs": True}, peft=LORA),
        of("dpo-dora-nf4", "preference", objective={"kind": "dpo"}, peft=LORA | {"use_dora": True}, **nf4()),
        of("kto", "unpaired", objective={"kind": "kto"}, batch={"micro": 2}, by_rank=True, often=True),
        of("kto-lora", "unpaired", objective={"kind": "kto"}, batch={"micro": 2}, peft=LORA, by_rank=True),
        of("kto-apo", "unpaired", objective={"kind": "kto", "loss_type": "apo_zero_unpaired"}),
        of("orpo", "preference", objective={"kind": "orpo"}),
        of("cpo", "preference", objective={"kind": "cpo"}),
        of("reward", "preference", objective={"kind": "reward"}),
        of("reward-lora", "preference", objective={"kind": "reward"}, peft=LORA | {"modules_to_save": ["score"]}),
        of("grpo", "prompt", objective={"kind": "grpo", "num_generations": 4, "beta": 0.05} | SAMPLED, often=True),
        of("grpo-lora", "prompt", objective={"kind": "grpo", "num_generations": 4, "beta": 0.05, "num_iterations": 2} | SAMPLED, peft=LORA),
        of("grpo-skip", "prompt", objective={"kind": "grpo", "num_generations": 4, "zero_variance": "skip"} | SAMPLED),
        of("grpo-resample-nf4", "prompt", objective={"kind": "grpo", "num_generations": 4, "zero_variance": "resample"} | SAMPLED, peft=LORA, model={"quantize": "nf4"}),
        of("rloo", "prompt", objective={"kind": "rloo", "num_generations": 4} | SAMPLED),
        of("ppo", "prompt", objective={"kind": "ppo"} | SAMPLED),
        of("ppo-lora", "prompt", objective={"kind": "ppo"} | SAMPLED, peft=LORA),
        of("online-dpo", "prompt", objective={"kind": "online_dpo"} | SAMPLED, batch={"global": 8}),
        of("gkd", "completion", config={"rms_norm_eps": 1e-5}, objective={"kind": "gkd", "lmbda": 0.5, "teacher": "base"} | SAMPLED),
        of("gkd-lora-taught", "completion", config={"rms_norm_eps": 1e-5}, objective={"kind": "gkd", "lmbda": 0.5, "seq_kd": True, "teacher": "base"} | SAMPLED, peft=LORA),
        of("distill", "completion", config={"rms_norm_eps": 1e-5}, objective={"kind": "distill", "teacher": "base"}),
        of("distill-fp16", "completion", config={"rms_norm_eps": 1e-5}, objective={"kind": "distill", "teacher": "base"}, **fp16()),
    ]  # fmt: skip


def row(kind, rng):
    text = lambda low, high: made_up_text(rng, rng.randint(low, high))  # noqa: E731
    if kind == "text":
        return {"text": text(5, 40)}
    prompt = {"prompt": text(2, 12)}
    if kind == "prompt":
        return prompt
    if kind == "preference":
        return prompt | {"chosen": " " + text(2, 20), "rejected": " " + text(2, 20)}
    label = {"label": rng.random() < 0.5} if kind == "unpaired" else {}
    return prompt | {"completion": " " + text(2, 20)} | label


def tensors_of(path):
    """Name: type, shape and bytes of a safetensors file."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    header.pop("__metadata__", None)
    return {name: (t["dtype"], t["shape"], body[slice(*t["data_offsets"])]) for name, t in header.items()}


class Sharding(SystemTest):
    @classmethod
    def setUpClass(cls):
        cls.made = Path(tempfile.mkdtemp(prefix="temper-test-made-"))
        cls.addClassCleanup(shutil.rmtree, cls.made, ignore_errors=True)
        maker = cls("setUp")
        maker.set_up_rows()
        try:
            maker.assert_done(maker.run_temper("train", maker.recipe(of("maker", config={"rms_norm_eps": 1e-5}, train={"steps": 3}, schedule={"kind": "constant"}, optimizer={"lr": 1e-2}))))
            shutil.move(maker.directory / "runs/test/export", cls.made / "base")
        finally:
            maker.doCleanups()

    def setUp(self):
        self.set_up_rows()
        shutil.copytree(self.made / "base", self.directory / "base")

    def set_up_rows(self):
        super().setUp()
        rng = random.Random(7)
        # The fourth step has three rows and an evaluation's second round one: some of four ranks have none.
        for kind in ("text", "completion", "preference", "unpaired", "prompt"):
            for name, rows in ((kind, 27), (f"{kind}-eval", 5)):
                lines = [json.dumps(row(kind, rng)) for _ in range(rows)]
                (self.directory / f"{name}.jsonl").write_text("\n".join(lines) + "\n")

    def recipe(self, case, parallel=None, **more):
        """Small steps where gradients are next to nothing, so that what is rounded differently there is not blown up by AdamW."""
        base = {
            "model": {"path": "base", "init": "pretrained"},
            "data": {"packing": "none"} if case.rows == "text" else {},
            "optimizer": {"lr": 1e-3, "eps": 1e-5},
            "batch": {"global": 16 if case.sampled() else 8, "micro": 1},
            "train": {"steps": 5, "threads": 1},
            "checkpoint": {"every": 2},
            "eval": {"every": 3},
            "parallel": parallel or {},
            "generation": {"exact": True} if case.sampled() or case.rows == "completion" else {"max_new_tokens": 4},
        }
        if case.config:
            model = self.directory / f"model-{case.name}"
            shutil.copytree(self.directory / "model", model, dirs_exist_ok=True)
            (model / "config.json").write_text(json.dumps(SHAPE | case.config))
            base["model"] = {"path": model.name, "init": "random"}
        if case.exact:
            base["run"] = {"deterministic": "layout"}
        for tables in (case.tables, more):
            for table, values in tables.items():
                base[table] = base.get(table, {}) | values
        path = self.directory / self.write_recipe("recipe.toml", **{table: values for table, values in base.items() if values})
        text = path.read_text().replace("train.jsonl", f"{case.rows}.jsonl").replace("eval.jsonl", f"{case.rows}-eval.jsonl")
        path.write_text(text + (REWARDS if case.sampled() else ""))
        return path.name

    def trained(self, case, name, ranks=1, parallel=None, **more):
        """The lines of a run, and what it exported."""
        self.assert_done(self.run_temper("train", self.recipe(case, parallel, **more), f"run.name={name}", ranks=ranks))
        lines = self.numbers(f"runs/{name}")
        (file,) = (self.directory / f"runs/{name}/export").glob("*.safetensors")
        return lines, tensors_of(file)

    def assert_near(self, ours, theirs, tolerance, case, what):
        least = 1 if case.sampled() or case.tables.get("objective", {}).get("teacher") else 0
        self.assertAlmostEqual(ours, theirs, delta=tolerance * max(least, abs(theirs)), msg=what)

    def assert_same(self, found, expected, case):
        lines, weights = found
        expected_lines, expected_weights = expected
        self.assertEqual([line["step"] for line in lines], [line["step"] for line in expected_lines])
        self.assertEqual(list(weights), list(expected_weights))
        for ours, theirs in zip(lines, expected_lines):
            self.assertEqual(ours["num_tokens"], theirs["num_tokens"])
            for name in ("loss", "grad_norm", "eval_loss", "reward", "eval_reward"):
                self.assertEqual(name in ours, name in theirs, name)
                if name not in ours:
                    continue
                what = f"step {ours['step']}: {name}"
                if case.exact and not name.startswith("eval_"):
                    self.assertEqual(ours[name], theirs[name], what)
                else:
                    self.assert_near(ours[name], theirs[name], NORM_TOLERANCE if name == "grad_norm" else TOLERANCE, case, what)
        for name, (kind, shape, data) in weights.items():
            of_one = expected_weights[name]
            self.assertEqual((kind, shape), of_one[:2], name)
            if data == of_one[2]:
                continue
            self.assertFalse(case.exact, f"{name}: other bits")
            self.assertEqual(kind, "F32", name)
            ours, theirs = array.array("f", data), array.array("f", of_one[2])
            self.assertLessEqual(max(abs(a - b) for a, b in zip(ours, theirs)), TOLERANCE, name)

    def assert_follows(self, case, layouts):
        expected = {}
        for ranks, shard, zero in layouts:
            with self.subTest(case.name, ranks=ranks, shard=shard, zero=zero):
                replicas = ranks if case.by_rank else 1
                if replicas not in expected:
                    expected[replicas] = self.trained(case, f"{case.name}-{replicas}", replicas)
                parallel = {"shard": shard, "zero": zero} | ({} if case.reshard else {"reshard": False})
                found = self.trained(case, f"{case.name}-{ranks}-{shard}-{zero}", ranks, parallel)
                self.assert_same(found, expected[replicas], case)
        shutil.rmtree(self.directory / "runs", ignore_errors=True)

    def test_what_is_trained_on_one_rank_is_trained_sharded(self):
        rng = random.Random(1)
        for case in cases():
            # Every case has layouts of its own, whatever is run.
            layouts = [(4, 4, 3), *rng.sample(ZERO_3[::2], 1), *rng.sample(OTHERS, 1)]
            if LONG:
                self.assert_follows(case, layouts)
            elif case.often:
                self.assert_follows(case, layouts[:1])

    def test_what_is_frozen_or_quantised_resumes_on_another_layout(self):
        steps = ((2, 2, 3), (1, 1, None), (4, 2, 1), (4, 4, 3)) if LONG else ((2, 2, 3), (1, 1, None))
        constant = {"kind": "constant", "warmup": 0}
        for case in cases():
            if case.name not in (("frozen-in-a-projection-bf16", "nf4", "frozen-lower-bf16") if LONG else ("frozen-in-a-projection-bf16",)):
                continue
            with self.subTest(case.name):
                train = case.tables["train"]
                whole = self.trained(case, "whole", schedule=constant, train=train | {"steps": 2 * len(steps)})
                for i, (ranks, shard, zero) in enumerate(steps):
                    parallel = {"shard": shard, "zero": zero} if zero else {}
                    found = self.trained(case, "moving", ranks, parallel, schedule=constant, train=train | {"steps": 2 * (i + 1)})
                self.assertEqual(found[1], whole[1])
                self.assertEqual([line["loss"] for line in found[0]], [line["loss"] for line in whole[0]])
                shutil.rmtree(self.directory / "runs", ignore_errors=True)


if __name__ == "__main__":
    unittest.main(verbosity=2)
