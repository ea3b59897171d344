"""The share of the gradients' exchange that computing hides, from the trace.json of a run with log.trace = true.

    python3 tests/bench/overlap.py runs/NAME/trace.json [FIRST_STEP]

Only Python's standard library. Of each rank and step from FIRST_STEP (2: the first one warms up) on: the time in which an exchange of
a gradient bucket is under way, and the part of it in which the training thread waits for one. The rest is hidden.
"""

import json
import sys


def read_trace(path):
    """The events; a killed run leaves the file without its last bracket, perhaps in the middle of a record."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    for end in ("", "]"):
        try:
            return json.loads(text + end)
        except json.JSONDecodeError:
            pass
    return json.loads(text[: text.rindex(",\n")] + "]")


def spans_of(events, rank, name, whole=False):
    """[begin, end] in microseconds of the training thread's spans whose name begins with, or is, `name`."""
    spans = [e for e in events if e["ph"] == "X" and e["pid"] == rank]
    return [(e["ts"], e["ts"] + e["dur"]) for e in spans if (e["name"] == name if whole else e["name"].startswith(name))]


def operations_of(events, rank, name):
    """[begin, end, args] of what overlaps."""
    mine = [e for e in events if e["ph"] in "be" and e["pid"] == rank and e["name"].startswith(name)]
    ends = {e["id"]: e["ts"] for e in mine if e["ph"] == "e"}
    return [(e["ts"], ends[e["id"]], e["args"]) for e in mine if e["ph"] == "b"]


def union(intervals):
    merged = []
    for begin, end in sorted(intervals):
        if merged and begin <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([begin, end])
    return merged


def common(left, right):
    return union((max(a, c), min(b, d)) for a, b in union(left) for c, d in union(right) if max(a, c) < min(b, d))


def length(intervals):
    return sum(end - begin for begin, end in union(intervals))


def overlap(events, first_step=2):
    """{rank: (seconds of a step, of its exchange, of that exposed)}, means over steps."""
    result = {}
    for rank in sorted({e["pid"] for e in events}):
        steps = [step for number in steps_in(events) if number >= first_step for step in spans_of(events, rank, f"step {number}", whole=True)]
        buckets = common(steps, [operation[:2] for operation in operations_of(events, rank, "bucket")])
        waits = common(buckets, spans_of(events, rank, "exposed wait"))
        if steps:
            result[rank] = tuple(length(part) / 1e6 / len(steps) for part in (steps, buckets, waits))
    return result


def steps_in(events):
    return sorted({int(e["name"].split()[1]) for e in events if e["name"].startswith("step ")})


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    for rank, (step, exchange, exposed) in overlap(read_trace(sys.argv[1]), int((sys.argv[2:] or ["2"])[0])).items():
        hidden = f"{100 * (1 - exposed / exchange):.0f} % hidden" if exchange > 0 else "nothing is exchanged"
        print(f"rank {rank}: step {step * 1e3:.1f} ms, exchange of gradients {exchange * 1e3:.1f} ms, exposed {exposed * 1e3:.1f} ms: {hidden}")


if __name__ == "__main__":
    main()
