"""A run that is killed or stopped at any moment and started again gives the same bits as one that never stopped."""

import os
import random
import subprocess
import time
import unittest

from harness import INT, KILL, LONG, PROGRAM, SOURCE, TERM, USR1, SystemTest, ranks_of, wait_for_step

STEPS = 40


class Resume(SystemTest):
    def recipe(self):
        return self.write_recipe(train={"steps": STEPS}, checkpoint={"every": 5}, eval={"every": 10})

    def uninterrupted(self, ranks):
        result = self.run_temper("train", self.recipe(), "run.name=whole", ranks=ranks)
        self.assert_done(result)
        return self.weights("runs/whole"), self.numbers("runs/whole")

    def assert_same_as_uninterrupted(self, whole):
        self.assertEqual(self.numbers(), whole[1])
        self.assertEqual(self.weights(), whole[0])

    def test_killed_rank_loses_nothing(self):
        whole = self.uninterrupted(ranks=2)
        for seed in range(5 if LONG else 1):
            with self.subTest(seed=seed):
                rng = random.Random(seed)
                subprocess.run(["rm", "-rf", self.directory / "runs/test"], check=True)
                process = self.start_temper("train", self.recipe(), ranks=2)
                wait_for_step(self, rng.randint(1, STEPS - 10), process=process)
                os.kill(rng.choice(ranks_of(process)), KILL)
                self.assertNotEqual(process.wait(timeout=60), 0)
                process.communicate()
                self.assert_done(self.run_temper("train", self.recipe(), ranks=2))
                self.assert_same_as_uninterrupted(whole)

    def stop(self, send, ranks, prefix=()):
        # A long run, so that the signal always comes before the end.
        recipe = self.write_recipe("long.toml", train={"steps": 4000}, checkpoint={"every": 1000}, eval={"every": 0})
        process = self.start_temper("train", recipe, ranks=ranks, prefix=prefix)
        wait_for_step(self, 3, process=process)
        send(process)
        code = process.wait(timeout=60)
        _, errors = process.communicate()
        self.assertEqual(code, 75, errors)
        stopped_at = self.metrics()[-1]["step"]
        self.assertTrue((self.directory / f"runs/test/checkpoints/step-{stopped_at:06}/manifest.json").exists())
        # It goes on from there, to the same numbers as a run that never stopped.
        goes_on = self.run_temper("train", recipe, f"train.steps={stopped_at + 3}", "schedule.kind=cosine", ranks=ranks)
        self.assert_done(goes_on)
        self.assertEqual([line["step"] for line in self.metrics()], list(range(1, stopped_at + 4)))

    def test_term_to_temper_alone(self):
        self.stop(lambda process: os.kill(process.pid, TERM), ranks=1)

    def test_int_to_temper_alone(self):
        self.stop(lambda process: os.kill(process.pid, INT), ranks=1)

    def test_term_to_one_rank(self):
        self.stop(lambda process: os.kill(ranks_of(process)[-1], TERM), ranks=2)

    def test_usr1_to_mpirun(self):
        self.stop(lambda process: os.kill(process.pid, USR1), ranks=2)

    def test_term_to_run_sh(self):
        self.stop(lambda process: os.kill(process.pid, TERM), ranks=2, prefix=[str(SOURCE / "launch/run.sh")])

    def test_stop_and_resume_gives_the_same_bits(self):
        whole = self.uninterrupted(ranks=2)
        process = self.start_temper("train", self.recipe(), ranks=2)
        wait_for_step(self, 7, process=process)
        os.kill(process.pid, USR1)
        self.assertEqual(process.wait(timeout=60), 75)
        process.communicate()
        self.assert_done(self.run_temper("train", self.recipe(), ranks=2))
        self.assert_same_as_uninterrupted(whole)

    def test_a_second_interrupt_stops_at_once(self):
        recipe = self.write_recipe("long.toml", train={"steps": 100000}, checkpoint={"every": 100000}, eval={"every": 0})
        process = self.start_temper("train", recipe)
        wait_for_step(self, 2, process=process)
        os.kill(process.pid, INT)
        os.kill(process.pid, INT)
        self.assertNotIn(process.wait(timeout=20), (0,))
        process.communicate()

    def test_a_finished_run_writes_nothing(self):
        recipe = self.recipe()
        self.assert_done(self.run_temper("train", recipe))
        before = {p: p.stat().st_mtime_ns for p in (self.directory / "runs").rglob("*")}
        again = self.run_temper("train", recipe)
        self.assert_done(again)
        self.assertIn("finished", again.stdout)
        self.assertEqual({p: p.stat().st_mtime_ns for p in (self.directory / "runs").rglob("*")}, before)

    def test_more_steps_continue_a_finished_run(self):
        self.assert_done(self.run_temper("train", self.recipe(), "train.steps=10"))
        more = self.run_temper("train", self.recipe(), "train.steps=12")
        self.assert_done(more)
        self.assertIn("train.steps", more.stdout)
        self.assertEqual([line["step"] for line in self.metrics()], list(range(1, 13)))

    def test_a_changed_key_is_refused(self):
        self.assert_done(self.run_temper("train", self.recipe(), "train.steps=6"))
        changed = self.run_temper("train", self.recipe(), "train.steps=8", "optimizer.lr=5e-4")
        self.assert_done(changed, 2)
        self.assertRegex(changed.stderr, r"optimizer\.lr: 0\.001 -> 5e-04")

    def test_a_damaged_checkpoint_falls_back_to_the_one_before(self):
        self.assert_done(self.run_temper("train", self.recipe(), "train.steps=10", "run.name=whole"))
        self.assert_done(self.run_temper("train", self.recipe(), "train.steps=10"))
        subprocess.run(["rm", "-rf", self.directory / "runs/test/export"], check=True)
        newest = sorted((self.directory / "runs/test/checkpoints").glob("step-*"))[-1]
        file = next(newest.glob("*.safetensors"))
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
        result = self.run_temper("train", self.recipe(), "train.steps=10")
        self.assert_done(result)
        self.assertIn("step-000010", result.stdout)
        self.assertIn("step-000005", result.stdout)
        self.assertEqual(self.weights(), self.weights("runs/whole"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
