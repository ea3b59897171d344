"""Two ranks of `temper train` beside two processes of torch's DistributedDataParallel over gloo, in one run: same model, same rows, same machine.

    python tests/bench/ddp_throughput.py PROGRAM [--steps 4] [--repeats 3]

sft_throughput.py's 58M Llama and full rows in float32, 8 rows of 512 tokens a rank and step, one thread a rank; mpirun starts Temper, torchrun
the peer: sft_throughput.py's plain loop (forward, backward, clip, fused AdamW) over DDP, whose gradients are views of its buckets, the
quicker of its two ways. Each also runs on one rank alone with the same rows a rank, which makes the efficiency of scaling: tokens per
second on two ranks over twice those on one. The four take turns, `--repeats` times; a figure is the median of its rounds (of a round:
of its steps but the first), a ratio the median of the rounds' ratios.

Needs the reference packages (launch/setup.sh --peers), the quick start's text (launch/gather_headers.py), mpirun and two cores.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from sft_throughput import make_model, make_rows, peer_model, result, run_temper, train

SPEED_GOAL, SCALING_GOAL = 1.3, 0.9


def run_rank_of_peer(args):
    """One of torchrun's processes; a lone one is the plain loop."""
    import torch

    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = peer_model(args, lora=False)
    model.train()
    forward = model
    if ranks > 1:
        torch.distributed.init_process_group("gloo")
        forward = torch.nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
    times, tokens = train(args, model, forward, rank, ranks)
    if ranks > 1:
        torch.distributed.destroy_process_group()
    if rank == 0:
        print("RESULT " + json.dumps(result(times, [count * ranks for count in tokens])))


def run_peer(args, ranks):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", ranks, __file__, args.program, "--rank-of-peer",
               "--directory", args.directory, "--steps", args.steps]  # fmt: skip
    run = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    line = next((line for line in run.stdout.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        sys.exit(f"torch on {ranks} failed:\n{run.stdout}\n{run.stderr}")
    return json.loads(line[7:])


CONTESTANTS = {
    ("Temper", 1): lambda args: run_temper(args, ranks=1),
    ("torch", 1): lambda args: run_peer(args, 1),
    ("Temper", 2): lambda args: run_temper(args, ranks=2),
    ("torch", 2): lambda args: run_peer(args, 2),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=os.path.abspath)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rank-of-peer", action="store_true", help=argparse.SUPPRESS)  # this process is one
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.dtype, args.threads = "fp32", 1
    if args.directory:
        args.model = args.directory / "model"
    if args.rank_of_peer:
        return run_rank_of_peer(args)

    os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    with tempfile.TemporaryDirectory(prefix="temper-ddp-") as folder:
        args.directory = Path(folder)
        args.model = args.directory / "model"
        make_model(args.model)
        make_rows(args.directory, "equal", args.model, 2 * (args.steps + 1))
        found = {contestant: [] for contestant in CONTESTANTS}
        for number in range(1, args.repeats + 1):
            for contestant, measure in CONTESTANTS.items():
                found[contestant].append(measure(args))
                print(f"round {number}: {contestant[0]} on {contestant[1]}: {found[contestant][-1]['tokens_per_second']:.0f} tokens/s", flush=True)
    report(found)


def report(found):
    speeds = {contestant: [numbers["tokens_per_second"] for numbers in rounds] for contestant, rounds in found.items()}

    def ratio(over, under):
        return statistics.median(a / b for a, b in zip(speeds[over], speeds[under]))

    print(f"\n{'':8s} {'1 rank, tokens/s':>17s} {'2 ranks, tokens/s':>18s} {'scaling':>8s}")
    for name in ("Temper", "torch"):
        one, two = (statistics.median(speeds[name, ranks]) for ranks in (1, 2))
        print(f"{name:8s} {one:17.0f} {two:18.0f} {ratio((name, 2), (name, 1)) / 2:8.2f}")
    print(f"Temper over torch: {ratio(('Temper', 1), ('torch', 1)):.2f} on 1 rank, {ratio(('Temper', 2), ('torch', 2)):.2f} on 2 (goal: {SPEED_GOAL}); "
          f"goal of Temper's scaling: {SCALING_GOAL}")  # fmt: skip


if __name__ == "__main__":
    main()
