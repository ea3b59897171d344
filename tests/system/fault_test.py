"""Whatever happens to a run, it ends in time, says what happened, and the same command goes on to the bits of a run that nothing happened to.

Trials are drawn from a seed: a few in every run of the tests, many with TEMPER_LONG=1.
"""

import array
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import time
import unittest

from harness import ENVIRONMENT, KILL, LONG, PROGRAM, TINY, USR1, SystemTest, ranks_of, wait_for_step

STEPS = 60
EVERY = 5
TIMEOUT = 3  # parallel.timeout of the runs in which a rank is stopped
MARGIN = 15  # seconds on top for the others to notice, to say so, and for mpirun to end them all, on a busy machine


class Faults(SystemTest):
    def setUp(self):
        super().setUp()
        self.whole_runs = {}

    def recipe(self):
        return self.write_recipe(train={"steps": STEPS, "threads": 1}, checkpoint={"every": EVERY}, eval={"every": 20})

    def whole(self, ranks, recipe=None):
        """Weights and numbers of the run that nothing happens to."""
        if ranks not in self.whole_runs:
            name = f"whole{ranks}"
            self.assert_done(self.run_temper("train", recipe or self.recipe(), f"run.name={name}", ranks=ranks))
            self.whole_runs[ranks] = self.weights(f"runs/{name}"), self.numbers(f"runs/{name}")
        return self.whole_runs[ranks]

    def begin(self, ranks, step, *overrides, recipe=None):
        """A fresh run that has come to `step`."""
        shutil.rmtree(self.directory / "runs/test", ignore_errors=True)
        process = self.start_temper("train", recipe or self.recipe(), *overrides, ranks=ranks)
        self.addCleanup(end_all, process)
        wait_for_step(self, step, process=process)
        return process

    def ended(self, process, seconds):
        """Exit code and standard error of a run that must end within `seconds`."""
        start = time.monotonic()
        try:
            _, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            end_all(process)
            self.fail(f"still there after {time.monotonic() - start:.0f} s: {process.communicate()[1]}")
        return process.returncode, errors

    def goes_on(self, ranks, *overrides, recipe=None):
        self.check_checkpoints()
        result = self.run_temper("train", recipe or self.recipe(), *overrides, ranks=ranks)
        self.assert_done(result)
        weights, numbers = self.whole(ranks, recipe)
        self.assertEqual(self.numbers(), numbers)
        self.assertEqual(self.weights(), weights)
        return result.stdout

    def checkpoints(self):
        return sorted(path for path in (self.directory / "runs/test/checkpoints").glob("step-??????"))

    def check_checkpoints(self):
        """What has a checkpoint's name is whole, in sizes at least (the program itself looks at checksums)."""
        for path in self.checkpoints():
            if (path / "manifest.json").exists() and not (path / "damaged").exists():
                files = json.loads((path / "manifest.json").read_text())["files"]
                self.assertEqual({name: (path / name).stat().st_size for name in files if (path / name).exists()},
                                 {name: file["bytes"] for name, file in files.items() if (path / name).exists()}, path)  # fmt: skip

    def assert_alone_is_silent(self, found, rank):
        """What a roll call found: this rank and no other did not answer. Others may wait in another exchange, which is said too."""
        parts, _, conclusion = found.rpartition(": ")
        self.assertEqual(conclusion, "lost, stuck or doing something else")
        waiting = r"rank \d+ on [^\s,]+ waits in \w+ \d+ in group '[\w-]+'"
        silent = [part for part in parts.split(", ") if not re.fullmatch(waiting, part)]
        self.assertEqual(len(silent), 1, found)
        self.assertRegex(silent[0], rf"^no answer from rank {rank} on \S+$")

    # The faults. Each takes the generator that the trial was drawn with.

    def killed_rank(self, rng, ranks):
        process = self.begin(ranks, rng.randint(1, STEPS - 20))
        os.kill(rng.choice(ranks_of(process)), KILL)
        code, _ = self.ended(process, MARGIN)
        self.assertNotIn(code, (0, 2, 75))
        self.goes_on(ranks)

    def stopped_rank(self, rng, ranks):
        process = self.begin(ranks, rng.randint(1, STEPS // 2), f"parallel.timeout={TIMEOUT}")
        ids = ranks_of(process)
        stopped = rng.choice(ids)
        rank = int(environment_of(stopped)["OMPI_COMM_WORLD_RANK"])
        os.kill(stopped, signal.SIGSTOP)
        code, errors = self.ended(process, TIMEOUT + MARGIN)
        self.assertEqual(code, 1, errors)
        said = re.search(r"rank (\d+) on (\S+): \w+ \d+ in group '\w+' waited 3 s \(parallel\.timeout\); (.*); step (\d+), last collectives in (\S+)", errors)
        self.assertTrue(said, errors)
        self.assert_alone_is_silent(said[3], rank)
        self.assertNotEqual(int(said[1]), rank)
        dump = json.loads((self.directory / said[5] / f"step-{int(said[4]):06}-rank-{int(said[1]):05}.json").read_text())
        self.assertEqual(dump["step"], int(said[4]))
        self.assertTrue(any("pieces done" in line for line in dump["last_collectives"]), dump)
        self.goes_on(ranks)

    def damaged_checkpoint(self, rng, ranks):
        process = self.begin(ranks, rng.randint(2 * EVERY + 1, STEPS - 20))
        os.kill(process.pid, USR1)
        code, errors = self.ended(process, MARGIN)
        self.assertEqual(code, 75, errors)
        newest, before = self.checkpoints()[-1], self.checkpoints()[-2]
        file = rng.choice([path for path in sorted(newest.iterdir()) if path.name != "manifest.json"])
        how = rng.choice(["flip", "truncate", "remove"])
        data = bytearray(file.read_bytes())
        if how == "flip":
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            file.write_bytes(data)
        elif how == "truncate":
            file.write_bytes(data[: rng.randrange(len(data))])
        else:
            file.unlink()
        (newest / "damaged").touch()
        said = self.goes_on(ranks)
        self.assertRegex(said, rf"{newest.name}/{re.escape(file.name)}: .*; falling back to \S*{before.name}")

    def killed_while_writing(self, rng, ranks):
        process = self.begin(ranks, rng.randint(1, STEPS - 20), "checkpoint.every=1")
        folder = self.directory / "runs/test/checkpoints"
        end = time.monotonic() + 20
        while not list(folder.glob("*.partial")) and time.monotonic() < end:
            pass
        time.sleep(rng.choice([0, 0, 0.001, 0.003]))
        for each in rng.sample(ranks_of(process), rng.randint(1, ranks)):
            os.kill(each, KILL)
        self.ended(process, MARGIN)
        written = [path.name for path in self.checkpoints()]
        said = self.goes_on(ranks, "checkpoint.every=1")
        self.assertNotIn("falling back", said)
        if written:
            self.assertIn(f"resuming from runs/test/checkpoints/{written[-1]} ", said)

    def trials(self, fault, default, long):
        for seed in range(long if LONG else default):
            ranks = 2 + 2 * (seed % 2)
            with self.subTest(seed=seed, ranks=ranks):
                fault(random.Random(f"{fault.__name__} {seed}"), ranks)

    def test_a_killed_rank_ends_all_and_loses_nothing(self):
        self.trials(self.killed_rank, 1, 10)

    def test_a_stopped_rank_is_named_within_the_time_out(self):
        self.trials(self.stopped_rank, 1, 10)

    def test_a_rank_that_is_stuck_at_the_start_is_named_within_the_time_out(self):
        recipe = self.recipe()
        for ranks in ((2, 4) if LONG else (2,)):
            for stuck in {0, ranks - 1}:
                with self.subTest(ranks=ranks, stuck=stuck):
                    # A recipe that nobody writes: whoever reads it is in the session and goes no further.
                    pipe = self.directory / f"stuck-{ranks}-{stuck}.toml"
                    os.mkfifo(pipe)
                    command = ["mpirun", "--oversubscribe"]
                    for rank in range(ranks):
                        command += ["-n", "1", PROGRAM, "train", pipe.name if rank == stuck else recipe, f"parallel.timeout={TIMEOUT}", ":"]
                    process = subprocess.Popen(command[:-1], cwd=self.directory, env=ENVIRONMENT, stdin=subprocess.DEVNULL,
                                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)  # fmt: skip
                    self.addCleanup(end_all, process)
                    code, errors = self.ended(process, TIMEOUT + 2 * MARGIN)
                    self.assertEqual(code, 1, errors)
                    said = re.search(r"rank \d+ on \S+: \w+ \d+ in group 'start-up' waited 3 s \(parallel\.timeout\); (.*)", errors)
                    self.assertTrue(said, errors)
                    self.assert_alone_is_silent(said[1], stuck)
                    self.assertNotIn(f"rank {stuck} on", errors.split(": ")[1])

    def test_a_damaged_checkpoint_is_named_and_passed_over(self):
        self.trials(self.damaged_checkpoint, 2, 10)

    def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(self):
        self.trials(self.killed_while_writing, 2, 20)

    def test_a_manifest_that_is_gone_or_damaged_does_not_count(self):
        whole = self.whole(1)
        for damage in ("remove", "empty", "flip"):
            with self.subTest(damage):
                process = self.begin(1, 2 * EVERY + 1)
                os.kill(process.pid, USR1)
                self.assertEqual(self.ended(process, MARGIN)[0], 75)
                newest, before = self.checkpoints()[-1], self.checkpoints()[-2]
                manifest = newest / "manifest.json"
                text = manifest.read_text()
                manifest.unlink()
                if damage != "remove":
                    manifest.write_text("" if damage == "empty" else text.replace('"', "x", 1))
                (newest / "damaged").touch()
                self.assertRegex(self.goes_on(1), rf"{newest.name}.*; falling back to \S*{before.name}")
        self.assertEqual(whole, self.whole(1))

    def test_a_loss_that_is_not_a_number_on_one_rank_stops_all_at_the_same_step(self):
        recipe = self.recipe_with_a_poisoned_row()
        for seed in range(5 if LONG else 1):
            with self.subTest(seed=seed):
                rng = random.Random(seed)
                self.poison(rng.randrange(2 * 8, 10 * 8))
                self.whole_runs.clear()
                shutil.rmtree(self.directory / "runs", ignore_errors=True)
                step = self.poisoned_row // 8 + 1
                whole = self.whole(2, recipe)
                self.assertEqual(whole[1][-1]["skipped_steps"], STEPS // 15)
                result = self.run_temper("train", recipe, "train.on_nan=stop", ranks=2)
                self.assertEqual(result.returncode, 1, result.stderr)
                said = re.search(r"step (\d+): the loss is not finite on rank (\d); state in (\S+);", result.stderr)
                self.assertTrue(said, result.stderr)
                self.assertEqual(int(said[1]), step)
                for rank in (0, 1):
                    dump = json.loads((self.directory / said[3] / f"step-{step:06}-rank-{rank:05}.json").read_text())
                    self.assertEqual(dump["loss_of_this_rank_is_finite"], rank != int(said[2]))
                self.goes_on(2, recipe=recipe)

    def recipe_with_a_poisoned_row(self):
        """One token alone makes the first layer's queries overflow; only the head is trained, so nothing flows back to there."""
        rng = random.Random(0)
        width, vocabulary = TINY["hidden_size"], TINY["vocab_size"]
        rows = [line for name in ("train", "eval") for line in (self.directory / f"{name}.jsonl").read_text().splitlines()]
        usual = {i for ids in self.tokens([json.loads(row)["text"].replace("\n", " ") for row in rows]) for i in ids}
        self.poisonous = "zebra"
        poisonous = next(i for i in self.tokens([self.poisonous])[0] if i not in usual)
        tensors = {}

        def add(name, rows, columns):
            tensors[name] = ([rows, columns] if columns else [rows],
                             array.array("f", [rng.gauss(0, 0.02) if columns else 1 for _ in range(rows * (columns or 1))]))  # fmt: skip

        add("model.embed_tokens.weight", vocabulary, width)
        add("lm_head.weight", vocabulary, width)
        add("model.norm.weight", width, 0)
        key_width = TINY["num_key_value_heads"] * TINY["head_dim"]
        for layer in range(TINY["num_hidden_layers"]):
            prefix = f"model.layers.{layer}."
            for name, rows in (("q", width), ("k", key_width), ("v", key_width), ("o", width)):
                add(f"{prefix}self_attn.{name}_proj.weight", rows, width)
            for name, rows, columns in (("gate", TINY["intermediate_size"], width), ("up", TINY["intermediate_size"], width),
                                        ("down", width, TINY["intermediate_size"])):  # fmt: skip
                add(f"{prefix}mlp.{name}_proj.weight", rows, columns)
            for name in ("input_layernorm", "post_attention_layernorm"):
                add(f"{prefix}{name}.weight", width, 0)
        embedding = tensors["model.embed_tokens.weight"][1]
        for token in range(vocabulary):
            embedding[token * width] = 1 if token == poisonous else 0
        queries = tensors["model.layers.0.self_attn.q_proj.weight"][1]
        for row in range(width):
            queries[row * width] = 3e38
        header, data = {}, b""
        for name, (shape, values) in tensors.items():
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + 4 * len(values)]}
            data += values.tobytes()
        text = json.dumps(header).encode()
        (self.directory / "model/model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
        return self.write_recipe(model={"init": "pretrained"}, data={"max_length": 512, "shuffle": False, "packing": "none"},
                                 train={"steps": STEPS, "threads": 1, "on_nan": "skip", "trainable": ["^lm_head"]},
                                 checkpoint={"every": EVERY}, eval={"every": 20})  # fmt: skip

    def poison(self, row):
        self.poisoned_row = row
        lines = [line for line in (self.directory / "train.jsonl").read_text().splitlines() if self.poisonous not in line][:119]
        lines.insert(row, json.dumps({"text": self.poisonous}))
        (self.directory / "train.jsonl").write_text("\n".join(lines) + "\n")

    def tokens(self, lines):
        result = subprocess.run([PROGRAM, "tokenize", "model"], input="\n".join(lines) + "\n", cwd=self.directory, env=ENVIRONMENT,
                                capture_output=True, text=True, check=True)  # fmt: skip
        return [json.loads(line) for line in result.stdout.splitlines()]


def environment_of(process):
    with open(f"/proc/{process}/environ", "rb") as file:
        return dict(entry.decode().split("=", 1) for entry in file.read().split(b"\0") if b"=" in entry)


def end_all(process):
    """The launcher and all its ranks, whatever state they are in."""
    if process.poll() is None:
        for each in ranks_of(process):
            os.kill(each, KILL)
        process.kill()


if __name__ == "__main__":
    unittest.main(verbosity=2)
