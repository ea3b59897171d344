"""log.trace = true: a timeline of all ranks, which changes no number and opens also after a kill."""

import os
import sys
import unittest

from harness import KILL, SOURCE, SystemTest, ranks_of, wait_for_step

sys.path.insert(0, str(SOURCE / "tests/bench"))

from overlap import operations_of, overlap, read_trace, spans_of, steps_in  # noqa: E402


class Trace(SystemTest):
    def recipe(self, steps=12):
        # Wide enough for several buckets of 1 MiB, each of which can leave while backward goes on.
        config = self.directory / "model/config.json"
        config.write_text(config.read_text().replace('"hidden_size": 32', '"hidden_size": 128').replace('"head_dim": 8', '"head_dim": 32'))
        return self.write_recipe(train={"steps": steps, "threads": 1}, parallel={"bucket_mib": 1}, log={"every": 1, "trace": True})

    def trace(self, run="runs/test"):
        return read_trace(self.directory / run / "trace.json")

    def test_two_ranks_in_one_file(self):
        recipe = self.recipe()
        self.assert_done(self.run_temper("train", recipe, ranks=2))
        self.assert_done(self.run_temper("train", recipe, "run.name=plain", "log.trace=false", ranks=2))
        self.assertEqual(self.numbers(), self.numbers("runs/plain"))
        self.assertEqual(self.weights(), self.weights("runs/plain"))
        self.assertFalse((self.directory / "runs/plain/trace.json").exists())

        events = self.trace()
        names = {e["args"]["rank"]: e["args"] for e in events if e["name"] == "process_name"}
        self.assertEqual(sorted(names), [0, 1])
        self.assertEqual(names[1]["name"], f"rank 1 on {names[1]['host']}")
        self.assertEqual(steps_in(events), list(range(1, 13)))
        for rank in (0, 1):
            with self.subTest(rank=rank):
                self.check_rank(events, rank)
        # Ranks count from one moment: a step ends together, give or take what a busy core may delay.
        for step in range(1, 13):
            ends = [spans_of(events, rank, f"step {step}", whole=True)[0][1] for rank in (0, 1)]
            self.assertLess(abs(ends[0] - ends[1]), 0.5e6)

    def check_rank(self, events, rank):
        steps = spans_of(events, rank, "step ")
        for name in ("data", "forward", "backward", "optimizer"):
            spans = spans_of(events, rank, name)
            self.assertGreaterEqual(len(spans), 12, name)
            for begin, end in spans:
                self.assertTrue(any(s[0] <= begin and end <= s[1] for s in steps), name)
        # Spans of a thread nest: of two, one lies in the other or they have nothing in common. Times have a tenth of a microsecond.
        spans = sorted((e["ts"], -e["dur"]) for e in events if e["ph"] == "X" and e["pid"] == rank)
        open_ends = []
        for begin, duration in spans:
            while open_ends and open_ends[-1] <= begin + 0.2:
                open_ends.pop()
            self.assertTrue(not open_ends or begin - duration <= open_ends[-1] + 0.2)
            open_ends.append(begin - duration)
        self.assertEqual(len(operations_of(events, rank, "checkpoint write")), 3)
        self.assertEqual(len(spans_of(events, rank, "checkpoint snapshot")), 3)
        self.assertEqual(len(spans_of(events, rank, "evaluation")), 2)
        buckets = operations_of(events, rank, "bucket")
        self.assertGreater(len(buckets), 2 * 12)
        backward = spans_of(events, rank, "backward")
        for begin, end, about in buckets:
            self.assertGreater(end, begin)
            self.assertGreater(about["bytes"], 0)
        self.assertTrue(any(b <= begin < e for begin, _, _ in buckets for b, e in backward), "no bucket left before backward was over")
        step, exchange, exposed = overlap(events)[rank]
        self.assertTrue(0 < exposed <= exchange <= step)

    def test_a_killed_run_leaves_a_file_that_opens(self):
        process = self.start_temper("train", self.recipe(steps=4000), ranks=2)
        wait_for_step(self, 5, process=process)
        os.kill(ranks_of(process)[0], KILL)
        self.assertNotEqual(process.wait(timeout=60), 0)
        process.communicate()
        self.assertEqual(steps_in(self.trace())[:4], [1, 2, 3, 4])

    def test_the_first_hundred_steps_of_a_start(self):
        self.assert_done(self.run_temper("train", self.recipe(steps=110)))
        self.assertEqual(steps_in(self.trace()), list(range(1, 101)))
        self.assert_done(self.run_temper("train", self.recipe(steps=112)))
        self.assertEqual(steps_in(self.trace()), [111, 112])


if __name__ == "__main__":
    unittest.main(verbosity=2)
