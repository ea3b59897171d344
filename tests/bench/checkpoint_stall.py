"""How long a run waits for its checkpoints: the share of its time that they take from the loop, saved every 10 steps while it goes on.

    python3 tests/bench/checkpoint_stall.py PROGRAM [--ranks 1 2] [--every 10] [--saves 3] [--repeats 1] [--size medium]

plan_accuracy.py's 58M Llama in float32, one thread a rank, 8 rows of 512 tokens a rank and step, checkpoint.async = true. Two figures,
over the same steps of a run with checkpoints and of one without, which take turns:

- waits: what the training threads spend in "checkpoint ..." spans of the trace (log.trace), over the time of those steps; the rank that waits
  longest counts;
- slower: by how much those steps take longer, which adds what writing takes from the computing beside it, and the noise of the machine.

Only Python's standard library and mpirun.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

from overlap import common, length, read_trace, spans_of
from plan_accuracy import SIZES, write_inputs
from runs import train

ROWS = 8
GOAL = 2  # per cent of step time


def measure(args, directory, ranks, every):
    """Seconds from the end of the first step to the end of the `saves` intervals after it; of these, what each rank waits for checkpoints."""
    # The first step warms up; after the last counted one, a last that always saves.
    last = args.every * args.saves + 1
    train(args.program, directory, args.size, "stall", "checkpoint.async=true", f"checkpoint.every={every}", "log.trace=true",
          f"batch.global={ROWS * ranks}", f"batch.micro={ROWS}", f"train.steps={last + 1}", ranks=ranks)  # fmt: skip
    events = read_trace(directory / "runs/stall/trace.json")
    ends = [spans_of(events, 0, f"step {step}", whole=True)[0][1] for step in (1, last)]
    waits = [length(common([ends], spans_of(events, rank, "checkpoint "))) / 1e6 for rank in range(ranks)]
    return (ends[1] - ends[0]) / 1e6, waits


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=os.path.abspath)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--saves", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--size", choices=list(SIZES), default="medium")
    args = parser.parse_args()
    if args.every * args.saves > 98:
        parser.error("a trace has 100 steps: --every times --saves may be 98 at most")
    with tempfile.TemporaryDirectory(prefix="temper-stall-") as folder:
        directory = Path(folder)
        write_inputs(directory)
        for ranks in args.ranks:
            rounds = [[measure(args, directory, ranks, every) for every in (args.every, 0)] for _ in range(args.repeats)]
            saving = statistics.median(with_saves for (with_saves, _), _ in rounds)
            share = statistics.median(max(waits) / seconds for (seconds, waits), _ in rounds)
            each = statistics.median(max(waits) / args.saves for (_, waits), _ in rounds)
            slower = statistics.median(with_saves / without - 1 for (with_saves, _), (without, _) in rounds)
            print(f"{ranks} rank{'s' if ranks > 1 else ''}: step {saving / args.every / args.saves:.3f} s; waits {each:.3f} s a checkpoint, "
                  f"{100 * share:.2f} % of the time (goal: at most {GOAL} %); {100 * slower:+.2f} % slower than without checkpoints", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
