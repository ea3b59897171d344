"""Preparing and streaming data as a user meets them: killed, twice at once, by several ranks under a short time-out, and resumed.

TEMPER_LONG=1: a gigabyte under a time-out of 5 s, more moments to be killed at, and the first step of a stream of 1 and 4 GB within 2 s.
"""

import json
import os
import random
import subprocess
import time
import unittest
from pathlib import Path

from harness import ENVIRONMENT, KILL, LONG, SystemTest, made_up_text, ranks_of, wait_for_step


class Prepare(SystemTest):
    def write_large(self, mib, name="large.jsonl"):
        rng = random.Random(3)
        block = "".join(json.dumps({"text": made_up_text(rng, 150)}) + "\n" for _ in range(1000)).encode()
        with open(self.directory / name, "wb") as file:
            while file.tell() < mib << 20:
                file.write(block)
        return name

    def prepare(self, name, cache, *settings, ranks=1):
        return self.run_temper("prepare", self.write_recipe(), f"data.train.0.path={name}", f"data.cache={cache}", *settings, ranks=ranks)

    def start_prepare(self, name, cache, *settings):
        return self.start_temper("prepare", self.write_recipe(), f"data.train.0.path={name}", f"data.cache={cache}", *settings)

    def shards(self, cache):
        """Relative path and bytes of every shard that has its record."""
        root = self.directory / cache
        return {shard.relative_to(root): shard.read_bytes() for shard in root.rglob("*.h5") if shard.with_suffix(".json").exists()}

    def leftovers(self, cache):
        return [path for path in (self.directory / cache).rglob("*") if path.is_file() and path.suffix not in (".h5", ".json")]

    def test_killed_leaves_nothing_that_is_taken_for_complete(self):
        name = self.write_large(24 if LONG else 8)
        self.assert_done(self.prepare(name, "whole"))
        whole = self.shards("whole")
        self.assertTrue(whole)
        rng = random.Random(4)
        for seed in range(20 if LONG else 4):
            with self.subTest(seed=seed):
                cache = f"killed{seed}"
                process = self.start_prepare(name, cache)
                time.sleep(rng.uniform(0.05, 3 if LONG else 1))
                process.kill()
                process.communicate()
                found = self.shards(cache)
                self.assertEqual(found, {path: whole[path] for path in found})
                self.assert_done(self.prepare(name, cache))
                self.assertEqual(self.shards(cache), whole)

    def test_two_processes_at_once_make_one_cache(self):
        name = self.write_large(8)
        self.assert_done(self.prepare(name, "whole"))
        both = [self.start_prepare(name, "shared") for _ in range(2)]
        for process in both:
            output, errors = process.communicate(timeout=120)
            self.assertEqual(process.returncode, 0, errors)
            self.assertIn("data.train: ", output)
        self.assertEqual(self.shards("shared"), self.shards("whole"))
        self.assertEqual(self.leftovers("shared"), [])

    def test_ranks_that_prepare_for_longer_than_the_timeout(self):
        name = self.write_large(1024 if LONG else 96)
        start = time.monotonic()
        result = self.run_temper("train", self.write_recipe(eval={"every": 0}), f"data.train.0.path={name}", "train.steps=2",
                                 f"parallel.timeout={5 if LONG else 1}", ranks=2, timeout=1200)  # fmt: skip
        self.assert_done(result)
        self.assertGreater(time.monotonic() - start, 5 if LONG else 1)

    def test_thousands_of_files(self):
        folder = self.directory / "many"
        folder.mkdir()
        for i in range(3000 if LONG else 300):
            (folder / f"train-{i:05}.jsonl").write_text(json.dumps({"text": f"int x{i} = {i};"}) + "\n")
        result = self.prepare("many", "cache")
        self.assert_done(result)
        self.assertIn(f"data.train: {3000 if LONG else 300} rows", result.stdout)
        self.assert_done(self.prepare("many/train-0000*.jsonl", "cache"))


class Stream(SystemTest):
    def recipe(self, **tables):
        tables.setdefault("data", {}).update(streaming=True, shuffle_buffer=32)
        return self.write_recipe(train={"steps": 30}, checkpoint={"every": 5}, eval={"every": 10}, **tables)

    def test_killed_and_resumed_gives_the_same_bits(self):
        recipe = self.recipe()
        whole = self.run_temper("train", recipe, "run.name=whole", ranks=2)
        self.assert_done(whole)
        self.assertIn("streamed", whole.stdout)
        self.assertFalse([p for p in (self.directory / "cache/tokens").rglob("*.h5") if p.stat().st_size > 100_000])
        process = self.start_temper("train", recipe, ranks=2)
        wait_for_step(self, 17, process=process)
        os.kill(ranks_of(process)[0], KILL)
        process.wait(timeout=60)
        process.communicate()
        self.assert_done(self.run_temper("train", recipe, ranks=2))
        self.assertEqual(self.numbers(), self.numbers("runs/whole"))
        self.assertEqual(self.weights(), self.weights("runs/whole"))

    def test_another_number_of_ranks_takes_the_same_steps(self):
        recipe = self.recipe(data={"max_length": 64, "packing": "wrapped"})
        for ranks in (1, 2, 4):
            self.assert_done(self.run_temper("train", recipe, f"run.name=of{ranks}", ranks=ranks))
        alone = self.metrics("runs/of1")
        for ranks in (2, 4):
            for one, other in zip(alone, self.metrics(f"runs/of{ranks}"), strict=True):
                self.assertEqual(one["num_tokens"], other["num_tokens"])
                self.assertAlmostEqual(one["loss"], other["loss"], delta=1e-5 * one["loss"])

    def test_plans_and_prepares(self):
        plan = json.loads(self.run_temper("plan", self.recipe(), "--json").stdout)
        self.assertEqual(plan["steps"], 30)
        self.assertGreater(plan["tokens_per_step"], 0)
        prepared = self.run_temper("prepare", self.recipe())
        self.assert_done(prepared)
        self.assertIn("data.eval", prepared.stdout)
        self.assertNotIn("data.train:", prepared.stdout)

    def test_a_bad_row_is_told_when_it_comes(self):
        with open(self.directory / "train.jsonl", "a", encoding="utf-8") as file:
            file.write('{"text": 5}\n')
        result = self.run_temper("train", self.recipe(), ranks=2)
        self.assert_done(result, 2)
        self.assertIn("train.jsonl:121", result.stderr)
        skipped = self.run_temper("train", self.recipe(), "data.on_bad_row=skip", "run.name=skips")
        self.assert_done(skipped)
        self.assertIn("1 bad row skipped", skipped.stdout)

    @unittest.skipUnless(LONG, "takes long: TEMPER_LONG=1 runs it")
    def test_the_first_step_comes_at_once_whatever_the_size(self):
        rng = random.Random(5)
        block = "".join(json.dumps({"text": made_up_text(rng, 300)}) + "\n" for _ in range(5000)).encode()
        for gigabytes in (1, 4):
            path = self.directory / "large.jsonl"
            with open(path, "wb") as file:
                while file.tell() < gigabytes << 30:
                    file.write(block)
            recipe = self.write_recipe(data={"max_length": 64, "streaming": True}, train={"steps": 1000000}, eval={"every": 0},
                                       run={"name": "start", "overwrite": True})  # fmt: skip
            metrics = self.directory / "runs/start/metrics.jsonl"
            metrics.unlink(missing_ok=True)
            start = time.monotonic()
            process = subprocess.Popen(self.command("train", recipe, "data.train.0.path=large.jsonl"), cwd=self.directory, env=ENVIRONMENT,
                                       stdout=subprocess.DEVNULL)  # fmt: skip
            self.addCleanup(process.kill)
            while not (metrics.exists() and metrics.stat().st_size > 0):
                self.assertIsNone(process.poll())
                time.sleep(0.005)
            self.assertLess(time.monotonic() - start, 2)
            for _ in range(200):  # and the rest behind it never fills the memory
                time.sleep(0.05)
                status = Path(f"/proc/{process.pid}/status").read_text()
                self.assertLess(int(status.split("VmHWM:")[1].split()[0]), 1 << 20)  # kB
            process.kill()
            process.wait()


if __name__ == "__main__":
    unittest.main(verbosity=2)
