"""TensorBoard's own reader against metrics.jsonl: every number of the one is in the other, once, also after a resume.

    python tests/parity/check_tensorboard.py RUN_DIRECTORY
"""

import json
import pathlib
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def check(run):
    run = pathlib.Path(run)
    expected = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        metrics = json.loads(line)
        for name, value in metrics.items():
            if name != "step":
                expected.setdefault(name, []).append((metrics["step"], float(value)))
    reader = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    reader.Reload()
    names = set(reader.Tags()["scalars"])
    assert names == set(expected), f"names differ: {names ^ set(expected)}"
    for name, points in expected.items():
        found = [(event.step, event.value) for event in reader.Scalars(name)]
        assert [step for step, _ in found] == [step for step, _ in points], f"{name}: steps differ: {found}"
        for (step, theirs), (_, ours) in zip(found, points):
            same = theirs == ours or abs(theirs - ours) <= 1e-6 * abs(ours) or (theirs != theirs and ours != ours)
            assert same, f"{name} at step {step}: {theirs} against {ours}"
    return sum(len(points) for points in expected.values())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(f"{check(sys.argv[1])} numbers agree")
