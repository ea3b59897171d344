#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "data/loader/batch.h"
#include "parallel/communicator.h"

/// What was sampled for the prompts of a generation batch and what is known of it. Every rank holds
/// all of it, so that a step's micro-batches, and a checkpoint, do not depend on who has sampled
/// what.
namespace temper::trainer {

struct SampledCompletion {
  std::vector<int32_t> ids{};
  bool truncated = false;                  // ended at max_completion_length
  std::vector<float> sampling_log_probs{};   // of ids
  std::vector<float> old_log_probs{};        // of ids; empty where not needed
  std::vector<float> reference_log_probs{};  // of ids; empty where not needed
  std::vector<float> values{};               // a value head's, of ids; empty where there is none
  std::vector<float> scores{};               // one a reward; NaN: none
  float reward = 0;                        // their weighted sum; NaN: not scored
  // What the objective has made of it (RolloutObjective::judge): of the completion, or of each of
  // its tokens where advantages and returns differ from token to token.
  float advantage = 0;
  std::vector<float> token_advantages{}, returns{};
};

/// A prompt and its completions.
struct SampledGroup {
  int32_t slice = 0;      // which of the generation batch's steps
  int32_t place = 0;      // of the prompt in the step, over all ranks
  bool left_out = false;  // not trained on: its rewards say nothing (objective.zero_variance)
  std::vector<int32_t> prompt;
  std::vector<SampledCompletion> completions;
};

using SampledGroups = std::vector<SampledGroup>;

/// The groups of all ranks, by slice and place. Collective.
SampledGroups gather(const SampledGroups& own, parallel::Communicator& communicator);

/// Groups as two flat tensors, int32 and float32, and back.
struct PackedGroups {
  at::Tensor integers, numbers;
};
PackedGroups pack(const SampledGroups& groups);
SampledGroups unpack(const PackedGroups& packed);

/// How completions become micro-batches.
struct CompletionLayout {
  int64_t micro = 1;            // completions
  bool mask_truncated = false;  // truncated completions have no targets
  double temperature = 1;
  bool share_prompts = true;    // among the completions of one that meet in a micro-batch
};

/// The completions that are trained on, in the order of `groups` and cut into runs of `micro`, are
/// the micro-batches of all ranks, however many those are; this rank's, so that each has about as
/// many tokens (balance.h). A Rollout has all but entropy_coef.
std::vector<data::Batch> micro_batches(const SampledGroups& groups, int32_t slice, int rank,
                                       int ranks, const CompletionLayout& layout);

/// Targets of the mean completion that is trained on; at least as if there were one in all.
double mean_tokens(const SampledGroups& groups, bool mask_truncated);

}  // namespace temper::trainer
