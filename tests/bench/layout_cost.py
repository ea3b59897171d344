"""What run.deterministic = "layout" costs: step time beside the usual mode, on one rank and on two, replicated and sharded.

    python3 tests/bench/layout_cost.py PROGRAM [--steps 4] [--repeats 3] [--size medium]

plan_accuracy.py's 58M Llama in float32, one thread a rank, 8 rows of 512 tokens a rank and step in micro-batches of 2 rows, so that sums over
micro-batches and over ranks both count. The layouts take turns, `--repeats` times; a figure is the median of its rounds (of a round: of
its steps but the first), a ratio the median of the rounds' ratios. A stage that the program refuses is named and left out.

Only Python's standard library and mpirun.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

from plan_accuracy import SIZES, write_inputs
from runs import Refused, column, train

ROWS, MICRO = 8, 2
GOAL = 5  # per cent of step time
LAYOUTS = {  # ranks and settings
    "1 rank": (1, []),
    "2 ranks, replicated": (2, []),
    **{f"2 ranks, zero {stage}": (2, ["parallel.shard=2", f"parallel.zero={stage}"]) for stage in (1, 2, 3)},
}
MODES = ("true", "layout")


def measure(args, directory):
    """{(layout, mode): (step time, exposed exchange) of each round}, seconds."""
    found, refused = {}, {}
    for _ in range(args.repeats):
        for layout, (ranks, settings) in LAYOUTS.items():
            for mode in MODES:
                if (layout, mode) in refused:
                    continue
                try:
                    lines = train(args.program, directory, args.size, "layout", f"run.deterministic={mode}", f"batch.global={ROWS * ranks}",
                                  f"batch.micro={MICRO}", f"train.steps={args.steps + 1}", *settings, ranks=ranks)  # fmt: skip
                except Refused as message:
                    refused[layout, mode] = str(message)
                    print(f"{layout}, {mode}: {message}", flush=True)
                    continue
                exposed = column(lines, "exchange_time") if ranks > 1 else [0.0]
                found.setdefault((layout, mode), []).append((statistics.median(column(lines, "step_time")), statistics.median(exposed)))
    return found


def ratio(over, under):
    return statistics.median(a[0] / b[0] for a, b in zip(over, under))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=os.path.abspath)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", choices=list(SIZES), default="medium")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="temper-layout-") as folder:
        directory = Path(folder)
        write_inputs(directory)
        found = measure(args, directory)

    print(f"\n{'':22s} {'mode':8s} {'step, s':>8s} {'of it exposed exchange, s':>26s} {'over the usual mode':>20s} {'over replicated':>16s}")
    for (layout, mode), rounds in found.items():
        step, exposed = (statistics.median(part) for part in zip(*rounds))
        usual, replicated = found.get((layout, "true")), found.get(("2 ranks, replicated", mode))
        cost = f"{100 * (ratio(rounds, usual) - 1):+.1f} %" if mode == "layout" and usual else ""
        beside = f"{100 * (ratio(rounds, replicated) - 1):+.1f} %" if "zero" in layout and replicated else ""
        print(f"{layout:22s} {mode:8s} {step:8.3f} {exposed:26.3f} {cost:>20s} {beside:>16s}")
    print(f"goal: at most +{GOAL} % over the usual mode")


if __name__ == "__main__":
    main()
