"""A run on any layout follows the one-rank run, packed or not, however a batch is cut. 20 steps of every layout, 100 with TEMPER_LONG=1."""

import json
import unittest

from harness import LONG, TINY, SystemTest, write_rows

# float32 sums in another order: a few units in the last place, grown over the steps.
TOLERANCE = 1e-5


STEPS = 100 if LONG else 20
# Ranks, those that share a copy, stage.
REPLICATED = [(2, 1, None), (4, 1, None), (8, 1, None)]
SHARDED = [(2, 2, 1), (2, 2, 2), (2, 2, 3), (4, 4, 1), (4, 4, 2), (4, 4, 3), (4, 2, 1), (4, 2, 2), (4, 2, 3)]
FEW = [(2, 2, 3), (4, 2, 3), (8, 1, None)]  # for every other recipe
CONSTANT = {"schedule": {"kind": "constant"}}


def sharded(shard, zero):
    return {"shard": shard, "zero": zero} if zero else {}


class Layout(SystemTest):
    def losses(self, name, ranks=1, micro=2, packing="none", rows=8, tables=None, **train):
        recipe = self.write_recipe(
            "layout.toml",
            data={"packing": packing, "shuffle": False},
            batch={"global": rows, "micro": micro},
            train={"steps": 10, **train},
            optimizer={"lr": 1e-3, "max_grad_norm": 0.5},
            **(tables or {}),
        )
        self.assert_done(self.run_temper("train", recipe, f"run.name={name}", ranks=ranks))
        return [(line["loss"], line["grad_norm"], line["num_tokens"]) for line in self.metrics(f"runs/{name}")]

    def assert_follows(self, losses, expected):
        self.assertEqual(len(losses), len(expected))
        for ours, theirs in zip(losses, expected):
            self.assertAlmostEqual(ours[0], theirs[0], delta=TOLERANCE * theirs[0])
            self.assertAlmostEqual(ours[1], theirs[1], delta=1e-3 * theirs[1])
            self.assertEqual(ours[2], theirs[2])

    def test_ranks_and_micro_batches_change_nothing(self):
        for packing in ("none", "bfd"):
            expected = self.losses(f"one-{packing}", packing=packing)
            for ranks, micro in ((1, 8), (2, 2), (2, 1), (4, 2)):
                with self.subTest(packing=packing, ranks=ranks, micro=micro):
                    self.assert_follows(self.losses(f"{packing}-{ranks}-{micro}", ranks, micro, packing), expected)

    def test_every_layout_follows_the_one_rank_run(self):
        lora = {"peft": {"method": "lora", "r": 4, "target_modules": "all-linear"}}
        for title, tables, micro_and_layouts in (
            ("full", {}, [(1, REPLICATED + SHARDED), (2, FEW)]),
            ("lora", lora, [(1, FEW), (2, FEW)]),
        ):
            expected = self.losses(title, micro=1, rows=16, tables=tables, steps=STEPS)
            for micro, layouts in micro_and_layouts:
                for ranks, shard, zero in layouts:
                    with self.subTest(title, micro=micro, ranks=ranks, shard=shard, zero=zero):
                        name = f"{title}-{micro}-{ranks}-{shard}-{zero}"
                        found = self.losses(name, ranks, micro, rows=16, tables=tables | {"parallel": sharded(shard, zero)}, steps=STEPS)
                        self.assert_follows(found, expected)

    def test_activation_checkpointing_changes_no_bit(self):
        expected = self.losses("plain")
        for mode in ("full", "selective"):
            self.assertEqual(self.losses(mode, activation_checkpointing=mode), expected)

    def test_the_same_recipe_gives_the_same_bits(self):
        self.assertEqual(self.losses("first", ranks=2, packing="bfd"), self.losses("second", ranks=2, packing="bfd"))
        self.assertEqual(self.weights("runs/first"), self.weights("runs/second"))

    def test_offloading_on_the_cpu_changes_no_bit(self):
        self.assertEqual(self.losses("offloaded", tables={"parallel": {"offload": "optimizer"}}), self.losses("plain"))
        self.assertIn("states are in host memory", (self.directory / "runs/offloaded/log.txt").read_text())

    def test_threads_change_no_loss(self):
        one = self.losses("t1", threads=1)
        two = self.losses("t2", threads=2)
        self.assert_follows(two, one)

    def exact(self, name, ranks=1, **options):
        recipe = self.write_recipe(
            "exact.toml",
            run={"deterministic": "layout"},
            data={"packing": "none"},
            batch={"global": 24, "micro": 1},
            train={"steps": 100 if LONG else 6, **options.pop("train", {})},
            optimizer=options.pop("optimizer", {"lr": 1e-3, "max_grad_norm": 0.5}),
            **options,
        )
        self.assert_done(self.run_temper("train", recipe, f"run.name={name}", ranks=ranks))
        lines = [(line["loss"], line["grad_norm"], line["num_tokens"]) for line in self.metrics(f"runs/{name}")]
        exported = "adapter_model" if "peft" in options else "model"
        return lines, (self.directory / f"runs/{name}/export/{exported}.safetensors").read_bytes()

    def test_layout_exact_runs_have_the_bits_of_one_rank(self):
        write_rows(self.directory / "train.jsonl", 100, seed=3)  # the fifth step is short
        lora = {"method": "lora", "r": 4, "lora_dropout": 0.3, "target_modules": "all-linear"}
        for title, options in (
            ("fp32", {"train": {"precision": "fp32"}}),
            ("bf16", {"train": {"precision": "bf16"}}),
            ("lora", {"peft": lora}),
        ):
            expected = self.exact(title, **options)
            for ranks, _, _ in REPLICATED:
                with self.subTest(title, ranks=ranks):
                    self.assertEqual(self.exact(f"{title}-{ranks}", ranks, **options), expected)
            two = options.get("train", {}) | {"threads": 2}
            with self.subTest(title, threads=2):
                self.assertEqual(self.exact(f"{title}-threads", **(options | {"train": two})), expected)

    def test_layout_exact_sharded_runs_have_the_bits_of_one_rank(self):
        write_rows(self.directory / "train.jsonl", 100, seed=3)  # the fifth step is short
        lora = {"method": "lora", "r": 4, "lora_dropout": 0.3, "target_modules": "all-linear"}
        eight_bit = {"optimizer": {"lr": 1e-3, "max_grad_norm": 0.5, "kind": "adamw_8bit"}}
        for title, options, layouts in (
            ("fp32", {"train": {"precision": "fp32"}}, SHARDED),
            ("bf16", {"train": {"precision": "bf16", "activation_checkpointing": "full"}}, [(4, 2, 2), (4, 2, 3)]),
            ("8bit", {"train": {"precision": "bf16"}} | eight_bit, [(2, 2, 1), (2, 2, 3)]),
            ("lora", {"peft": lora, "model": {"quantize": "nf4"}, "train": {"precision": "bf16"}}, [(2, 2, 2), (2, 2, 3)]),
        ):
            expected = self.exact(title, **options)
            for ranks, shard, zero in layouts:
                with self.subTest(title, ranks=ranks, shard=shard, zero=zero):
                    found = self.exact(f"{title}-{ranks}-{shard}-{zero}", ranks, parallel=sharded(shard, zero), **options)
                    self.assertEqual(found, expected)

    def test_resumes_on_another_layout(self):
        # Exact sums, so that every layout must give the bits of a run on one rank.
        whole = self.exact("whole", train={"steps": 8, "precision": "bf16"}, **CONSTANT)
        steps = 0
        for ranks, shard, zero in ((2, 2, 3), (1, 1, None), (4, 2, 1), (4, 4, 3)):
            steps += 2
            found = self.exact("moving", ranks, train={"steps": steps, "precision": "bf16"}, parallel=sharded(shard, zero), **CONSTANT)
        self.assertEqual(found, whole)
        # A sharded checkpoint is exported as any other.
        checkpoint = "runs/moving/checkpoints/step-000008"
        self.assert_done(self.run_temper("export", checkpoint, "again"))
        self.assertEqual((self.directory / "again/model.safetensors").read_bytes(), whole[1])

    def test_resumes_sharded_exactly(self):
        parallel = {"parallel": sharded(2, 2), "schedule": CONSTANT["schedule"]}
        for name, steps in (("whole", (8,)), ("parts", (3, 8))):
            for step in steps:
                recipe = self.write_recipe("resume.toml", train={"steps": step}, **parallel)
                self.assert_done(self.run_temper("train", recipe, f"run.name={name}", ranks=2))
        self.assertEqual(self.weights("runs/parts"), self.weights("runs/whole"))

    def test_memory_falls_as_planned(self):
        config = self.directory / "model/config.json"
        config.write_text(json.dumps(TINY | {"hidden_size": 512, "intermediate_size": 1408, "vocab_size": 8192, "num_hidden_layers": 8}))
        peaks, plans = [], []
        for parallel in ({}, sharded(4, 1), sharded(4, 2), sharded(4, 3)):
            recipe = self.write_recipe(
                "memory.toml",
                batch={"global": 4, "micro": 1},
                train={"steps": 2},
                data={"max_length": 16},
                eval={"every": 0},
                checkpoint={"every": 0, "async": False},
                parallel={"bucket_mib": 4} | parallel,
            )
            name = f"memory-{len(peaks)}"
            self.assert_done(self.run_temper("train", recipe, f"run.name={name}", ranks=4))
            peaks.append(self.metrics(f"runs/{name}")[-1]["memory/peak_mib"])
            plan = self.run_temper("plan", recipe, "--world", "4", "--json")
            self.assert_done(plan)
            plans.append(json.loads(plan.stdout)["memory"]["total"] / 2**20)
        for peak, planned in zip(peaks, plans):
            self.assertAlmostEqual(peak, planned, delta=0.1 * planned, msg=(peaks, plans))
        for peak, planned in zip(peaks[1:], plans[1:]):
            self.assertGreater(peaks[0] - peak, 0.8 * (plans[0] - planned), (peaks, plans))

    def test_a_short_last_step_is_normalised_by_its_own_count(self):
        write_rows(self.directory / "train.jsonl", 11, seed=5)
        expected = self.losses("short-1", steps=4)
        for ranks in (2, 4):
            self.assert_follows(self.losses(f"short-{ranks}", ranks=ranks, steps=4), expected)


if __name__ == "__main__":
    unittest.main(verbosity=2)
