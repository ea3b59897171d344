"""A run on any layout follows the one-rank run, packed or not, however a batch is cut."""

import unittest

from harness import SystemTest, write_rows

# float32 sums in another order: a few units in the last place, grown over the steps.
TOLERANCE = 1e-5


class Layout(SystemTest):
    def losses(self, name, ranks=1, micro=2, packing="none", **train):
        recipe = self.write_recipe(
            "layout.toml",
            data={"packing": packing, "shuffle": False},
            batch={"global": 8, "micro": micro},
            train={"steps": 10, **train},
            optimizer={"lr": 1e-3, "max_grad_norm": 0.5},
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

    def test_activation_checkpointing_changes_no_bit(self):
        expected = self.losses("plain")
        for mode in ("full", "selective"):
            self.assertEqual(self.losses(mode, activation_checkpointing=mode), expected)

    def test_the_same_recipe_gives_the_same_bits(self):
        self.assertEqual(self.losses("first", ranks=2, packing="bfd"), self.losses("second", ranks=2, packing="bfd"))
        self.assertEqual(self.weights("runs/first"), self.weights("runs/second"))

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
            train={"steps": 6, **options.pop("train", {})},
            optimizer={"lr": 1e-3, "max_grad_norm": 0.5},
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
            for ranks in (2, 4, 8):
                with self.subTest(title, ranks=ranks):
                    self.assertEqual(self.exact(f"{title}-{ranks}", ranks, **options), expected)
            two = options.get("train", {}) | {"threads": 2}
            with self.subTest(title, threads=2):
                self.assertEqual(self.exact(f"{title}-threads", **(options | {"train": two})), expected)

    def test_a_short_last_step_is_normalised_by_its_own_count(self):
        write_rows(self.directory / "train.jsonl", 11, seed=5)
        expected = self.losses("short-1", steps=4)
        for ranks in (2, 4):
            self.assert_follows(self.losses(f"short-{ranks}", ranks=ranks, steps=4), expected)


if __name__ == "__main__":
    unittest.main(verbosity=2)
