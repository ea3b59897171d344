"""Training in float8, emulated on the CPU: losses follow bfloat16's, with adapters too; what makes no sense is refused."""

import json
import unittest

from harness import TINY, SystemTest

BF16 = {"precision": "bf16", "steps": 6}
LORA = {"method": "lora", "r": 4, "target_modules": "all-linear"}


class Float8(SystemTest):
    def losses(self, name, **tables):
        recipe = self.write_recipe("float8.toml", optimizer={"lr": 1e-2}, **tables)
        result = self.run_temper("train", recipe, f"run.name={name}")
        self.assert_done(result)
        self.said = result.stdout
        return [line["loss"] for line in self.metrics(f"runs/{name}")]

    def test_losses_follow_bfloat16s(self):
        for title, tables in (("full", {}), ("lora", {"peft": LORA})):
            expected = self.losses(title, train=BF16, **tables)
            for float8 in ("tensorwise", "rowwise"):
                with self.subTest(title, float8=float8):
                    found = self.losses(f"{title}-{float8}", train=BF16 | {"float8": float8}, **tables)
                    self.assertIn("train.float8: 14 of 14 linear layers of the blocks; emulated on the CPU, no faster", self.said)
                    self.assertNotEqual(found, expected)
                    for ours, theirs in zip(found, expected, strict=True):
                        # A code is within 2^-4 of its number, and these errors mostly cancel.
                        self.assertAlmostEqual(ours, theirs, delta=1e-2 * theirs)
            self.assertLess(expected[-1], expected[0])

    def test_layers_that_do_not_fit_are_counted_and_none_is_refused(self):
        config = self.directory / "model/config.json"
        config.write_text(json.dumps(TINY | {"intermediate_size": 40}))
        self.losses("some", train=BF16 | {"float8": "rowwise", "steps": 1})
        self.assertIn("8 of 14 linear layers of the blocks (the others have sizes that are no multiples of 16)", self.said)
        config.write_text(json.dumps(TINY | {"hidden_size": 24, "intermediate_size": 40, "head_dim": 6}))
        result = self.run_temper("plan", self.write_recipe(), "train.float8=rowwise")
        self.assert_done(result, code=2)
        self.assertEqual(result.stderr.strip(), 'train.float8: all linear layers of the model have sizes that are no multiples of 16: must be "none"')


if __name__ == "__main__":
    unittest.main()
