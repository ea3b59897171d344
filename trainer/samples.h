#pragma once

#include <cstdint>

namespace temper::trainer {

struct Run;
struct RunDirectory;

/// With log.samples, a few greedy continuations of evaluation rows, in samples/step-000200.jsonl (prompt, completion, expected):
/// what the numbers look like as text. Rank 0 only; the others do not wait here.
void write_samples(Run& run, const RunDirectory& directory, int64_t step);

}  // namespace temper::trainer
