"""Programs that score completions badly: they hang, crash, print garbage, NaN, too few or too many numbers."""

import json
import subprocess
import sys
import time
import unittest

from harness import SOURCE, SystemTest

SCORE = """
import json, sys, time
lines = 0
for line in sys.stdin:
    row = json.loads(line)
    bad = row["completion"][:1] in "01"
    lines += 1
    {body}
    print(len(row["completion"]))
"""


def running(pattern):
    return subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True).stdout.split()


class Rewards(SystemTest):
    def setUp(self):
        super().setUp()
        make = SOURCE / "configs/grpo_arithmetic/make_data.py"
        subprocess.run([sys.executable, make, self.directory / "arithmetic"], check=True)

    def recipe(self, body="pass", command=None, **keys):
        """Two steps whose completions are scored by SCORE with `body` in its loop, and by their length."""
        script = self.directory / "score.py"
        script.write_text(SCORE.replace("{body}", body.replace("\n", "\n    ")))
        reward = {"kind": "program", "name": "judge", "command": command or [sys.executable, str(script)]} | keys
        lines = [
            '[run]\nname = "test"\noverwrite = true\nresume = "never"',
            f'[model]\npath = "{SOURCE}/configs/grpo_arithmetic"\ninit = "random"\ndtype = "fp32"',
            '[data]\nmax_length = 16\n[[data.train]]\npath = "arithmetic/prompts.jsonl"',
            '[objective]\nkind = "grpo"\nnum_generations = 4\nmax_completion_length = 5',
            "[[objective.rewards]]",
            *(f"{key} = {json.dumps(value)}" for key, value in reward.items()),
            '[[objective.rewards]]\nkind = "length"\nmax = 5\nsoft = 4',
            '[schedule]\nkind = "constant"\nwarmup = 0',
            "[batch]\nglobal = 16\nmicro = 4",
            '[train]\nsteps = 2\nprecision = "fp32"',
            "[checkpoint]\nevery = 0\n[log]\nevery = 1",
        ]
        (self.directory / "recipe.toml").write_text("\n".join(lines) + "\n")
        return "recipe.toml"

    def train(self, *arguments, ranks=1, **keys):
        return self.run_temper("train", self.recipe(*arguments, **keys), ranks=ranks, timeout=180)

    def samples(self, step):
        text = (self.directory / f"runs/test/samples/step-{step:06d}.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def assert_only_the_bad_have_no_score(self, result, why):
        self.assert_done(result)
        scored = 0
        for sample in self.samples(1) + self.samples(2):
            if sample["completion"][:1] in "01":
                self.assertIsNone(sample["rewards/judge"], sample)
            else:
                self.assertEqual(sample["rewards/judge"], len(sample["completion"]), sample)
                scored += 1
        self.assertTrue(0 < scored < 32, scored)
        self.assertIn("could not be scored", result.stderr)
        self.assertIn(why, result.stderr)
        self.assertEqual(running(str(self.directory / "score.py")), [])

    def test_a_hang_costs_its_completion(self):
        result = self.train("time.sleep(1000 if bad else 0)", timeout=5, workers=4)
        self.assert_only_the_bad_have_no_score(result, "timeout = 5 s")

    def test_a_crash_costs_its_completion(self):
        # Not in the first line: three starts without an answer would end the run.
        body = 'if bad and lines == 1:\n    print("odd")\n    continue\nif bad:\n    print("cannot score this", file=sys.stderr)\n    sys.exit(3)'
        result = self.train(body)
        self.assert_only_the_bad_have_no_score(result, "judge: cannot score this")

    def test_garbage_and_nan_cost_their_completions(self):
        for answer in ("what?", "nan"):
            with self.subTest(answer):
                result = self.train(f'if bad:\n    print("{answer}")\n    continue')
                self.assert_only_the_bad_have_no_score(result, f"answered '{answer}'")

    def test_a_missing_number_costs_its_completion(self):
        result = self.train("if bad:\n    continue", timeout=5, workers=4)
        self.assert_only_the_bad_have_no_score(result, "timeout = 5 s")

    def test_surplus_numbers_are_noticed_and_none_counts(self):
        result = self.train("print(1)")
        self.assert_done(result)
        self.assertIn("printed more lines than it was asked for", result.stderr)
        for sample in self.samples(1) + self.samples(2):
            self.assertIsNone(sample["rewards/judge"], sample)
            self.assertIsNotNone(sample["rewards/length"], sample)

    def test_a_crash_loop_ends_the_run_and_says_why(self):
        for ranks in (1, 2):
            with self.subTest(ranks=ranks):
                result = self.train(ranks=ranks, command="echo 'no module named judge' >&2; exit 9")
                self.assertEqual(result.returncode, 1, result.stderr)
                self.assertIn("no module named judge", result.stderr)
                self.assertIn("exit status 9", result.stderr)

    def test_a_program_that_is_not_there_is_refused(self):
        result = self.train(command=["no-such-judge"])
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertIn("no-such-judge", result.stderr)

    def test_programs_end_with_a_killed_run(self):
        process = self.start_temper("train", self.recipe("time.sleep(0.2)"), "train.steps=1000")
        script = str(self.directory / "score.py")
        self.assertTrue(self.becomes_true(lambda: running(script), 60))
        process.kill()
        process.communicate()
        self.assertTrue(self.becomes_true(lambda: not running(script), 10))

    def becomes_true(self, condition, seconds):
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            time.sleep(0.05)
        return condition()


if __name__ == "__main__":
    unittest.main(verbosity=2)
