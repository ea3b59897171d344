#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/text/tokenizer.h"
#include "trainer/rollouts/generation_batch.h"

namespace temper::trainer {

struct RunDirectory;

/// samples/step-000200.jsonl: the completions of a step's slice, one a line: step, prompt,
/// completion, each reward by its name (null: not scored), their weighted sum as `reward`,
/// advantage.
void write_completions(const RunDirectory& directory, int64_t step, int32_t slice,
                       const SampledGroups& groups, const std::vector<std::string>& rewards,
                       const data::Tokenizer& tokenizer);

}  // namespace temper::trainer
