"""What the system tests share: a tiny model, made-up rows, and the program run as a user runs it.

Only Python's standard library. TEMPER_PROGRAM is the program (ctest sets it), TEMPER_SOURCE_DIR the checkout.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SOURCE = Path(os.environ.get("TEMPER_SOURCE_DIR", Path(__file__).resolve().parents[2]))
PROGRAM = os.environ.get("TEMPER_PROGRAM", str(SOURCE / "build-release/bin/temper"))
LONG = os.environ.get("TEMPER_LONG") == "1"
SHARED = Path(os.environ.get("TEMPER_SHARED", SOURCE.parent / "shared"))
ENVIRONMENT = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")

TINY = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "hidden_act": "silu",
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "vocab_size": 4096,
    "tie_word_embeddings": False,
    "eos_token_id": 0,
    "torch_dtype": "float32",
}

WORDS = "int auto const size_t return std vector string for while if else struct class template typename void".split()


def made_up_text(rng, words):
    return " ".join(rng.choice(WORDS) + rng.choice(["", ";", "()", " {", " }", "\n"]) for _ in range(words))


def write_rows(path, rows, seed=1, kind="text"):
    rng = random.Random(seed)
    with open(path, "w", encoding="utf-8") as file:
        for _ in range(rows):
            if kind == "text":
                row = {"text": made_up_text(rng, rng.randint(5, 60))}
            else:
                row = {"prompt": made_up_text(rng, rng.randint(2, 20)), "completion": " " + made_up_text(rng, rng.randint(2, 30))}
            file.write(json.dumps(row) + "\n")


class SystemTest(unittest.TestCase):
    """A test in a directory of its own, with a tiny model in model/ and rows in train.jsonl and eval.jsonl."""

    def setUp(self):
        self.directory = Path(tempfile.mkdtemp(prefix="temper-test-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        model = self.directory / "model"
        model.mkdir()
        (model / "config.json").write_text(json.dumps(TINY))
        for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
            shutil.copy(SOURCE / "configs/quickstart" / name, model / name)
        write_rows(self.directory / "train.jsonl", 120, seed=1)
        write_rows(self.directory / "eval.jsonl", 12, seed=2)

    def write_recipe(self, name="recipe.toml", **overrides):
        """The tests' usual recipe; keyword arguments are whole tables that replace or extend it."""
        tables = {
            "run": {"name": "test"},
            "model": {"path": "model", "init": "random", "dtype": "fp32"},
            "data": {"max_length": 64},
            "optimizer": {"lr": 1e-3},
            "batch": {"global": 8, "micro": 2},
            "train": {"steps": 12, "precision": "fp32"},
            "checkpoint": {"every": 4},
            "eval": {"every": 6},
            "log": {"every": 1},
        }
        for table, values in overrides.items():
            tables.setdefault(table, {}).update(values)
        lines = []
        for table, values in tables.items():
            lines.append(f"[{table}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        lines += ["[[data.train]]", 'path = "train.jsonl"', "[[data.eval]]", 'path = "eval.jsonl"']
        path = self.directory / name
        path.write_text("\n".join(lines) + "\n")
        return path.name

    def command(self, *arguments, ranks=1):
        launcher = ["mpirun", "-n", str(ranks), "--oversubscribe"] if ranks > 1 else []
        return [*launcher, PROGRAM, *[str(a) for a in arguments]]

    def run_temper(self, *arguments, ranks=1, timeout=120, **options):
        return subprocess.run(
            self.command(*arguments, ranks=ranks), cwd=self.directory, env=ENVIRONMENT, timeout=timeout,
            stdin=options.pop("stdin", subprocess.DEVNULL), capture_output=True, text=True, **options
        )  # fmt: skip

    def start_temper(self, *arguments, ranks=1, prefix=()):
        return subprocess.Popen(
            [*prefix, *self.command(*arguments, ranks=ranks)], cwd=self.directory, env=ENVIRONMENT, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )  # fmt: skip

    def assert_done(self, result, code=0):
        self.assertEqual(result.returncode, code, f"stdout:\n{result.stdout}\nstderr:\n{result.stderr}")

    def metrics(self, run="runs/test"):
        with open(self.directory / run / "metrics.jsonl", encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def numbers(self, run="runs/test"):
        """metrics.jsonl without what depends on the clock or on memory."""
        timed = ("tokens_per_second", "step_time", "exchange_time", "mfu", "memory/peak_mib", "memory/device_peak_mib", "eval_runtime")
        return [{k: v for k, v in line.items() if k not in timed} for line in self.metrics(run)]

    def weights(self, run="runs/test"):
        return (self.directory / run / "export/model.safetensors").read_bytes()


def run_tests_unless(reason):
    """The tests of the file that is run, or, where there is a reason not to, that and ctest's code for skipped."""
    if reason:
        print(f"skipped: {reason}")
        sys.exit(77)
    unittest.main(verbosity=2)


def ranks_of(process):
    """Process ids of the temper ranks below an mpirun (or the process itself)."""
    found = subprocess.run(["pgrep", "-s", str(os.getsid(process.pid)), "-f", "bin/temper"], capture_output=True, text=True)
    ids = [int(p) for p in found.stdout.split()]
    return [p for p in ids if Path(f"/proc/{p}/exe").resolve().name == "temper"] if ids else []


def wait_for_step(test, step, run="runs/test", process=None, seconds=60):
    """Waits until metrics.jsonl holds `step`."""
    import time

    end = time.monotonic() + seconds
    path = test.directory / run / "metrics.jsonl"
    while time.monotonic() < end:
        if path.exists() and any(f'"step":{step},' in line.replace(" ", "") for line in path.read_text().splitlines()):
            return
        if process is not None and process.poll() is not None:
            break
        time.sleep(0.01)
    output = process.communicate() if process is not None else ""
    raise AssertionError(f"step {step} was not reached: {output}")


KILL, TERM, USR1, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT
