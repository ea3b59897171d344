"""What the programs here share that measure `temper train` alone: plan_accuracy.py's models and rows in float32, one thread a rank, on one
rank or on several of this machine. Only Python's standard library.
"""

import json
import os
import subprocess

ENVIRONMENT = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")


class Refused(Exception):
    """The program does not take this recipe: its own message."""


def launcher(ranks):
    return ["mpirun", "-n", str(ranks)] if ranks > 1 else []


def command(program, directory, size, name, *settings):
    """`temper train` as run `name` in the directory that plan_accuracy.write_inputs has filled."""
    return [program, "train", directory / "recipe.toml", f"model.path={directory / size}", f"run.name={name}", "model.dtype=fp32",
            "train.precision=fp32", "train.threads=1", "checkpoint.every=0", *settings]  # fmt: skip


def run(words, directory, name):
    """Runs it and returns the lines of its metrics.jsonl."""
    done = subprocess.run([str(word) for word in words], env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode == 2:
        raise Refused(next(line for line in done.stderr.splitlines() if line.strip()))
    if done.returncode != 0:
        raise SystemExit(f"{name} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    with open(directory / "runs" / name / "metrics.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def train(program, directory, size, name, *settings, ranks=1):
    return run([*launcher(ranks), *command(program, directory, size, name, *settings)], directory, name)


def column(lines, name):
    """Of every step but the first, which warms up."""
    return [line[name] for line in lines if name in line][1:]
