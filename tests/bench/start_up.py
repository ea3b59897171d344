"""Process start to first finished step, tiny model, data already prepared: wall seconds, median of ten.

    python3 tests/bench/start_up.py PROGRAM

Only Python's standard library. The run has one step and no export of its own to wait for: the time is taken when the step's line
appears in metrics.jsonl.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "system"))
os.environ.setdefault("TEMPER_SOURCE_DIR", str(Path(__file__).resolve().parents[2]))
os.environ["TEMPER_PROGRAM"] = os.path.abspath(sys.argv[1]) if len(sys.argv) == 2 else sys.exit(__doc__)

from harness import SystemTest  # noqa: E402  (it reads TEMPER_PROGRAM)


def first_step(test):
    recipe = test.write_recipe(train={"steps": 1000000}, eval={"every": 0}, checkpoint={"every": 0}, run={"name": "start", "overwrite": True})
    metrics = test.directory / "runs/start/metrics.jsonl"
    metrics.unlink(missing_ok=True)
    start = time.perf_counter()
    process = subprocess.Popen(test.command("train", recipe), cwd=test.directory, stdout=subprocess.DEVNULL)
    while not (metrics.exists() and metrics.stat().st_size > 0):
        if process.poll() is not None:
            sys.exit("the run ended before its first step")
        time.sleep(0.001)
    seconds = time.perf_counter() - start
    process.kill()
    process.wait()
    return seconds


def main():
    test = SystemTest()
    test.setUp()
    try:
        first_step(test)  # prepares the data and warms the page cache
        times = [first_step(test) for _ in range(10)]
        print(f"start to first finished step: median {statistics.median(times):.2f} s, min {min(times):.2f}, max {max(times):.2f}")
    finally:
        test.doCleanups()


if __name__ == "__main__":
    main()
