#pragma once

#include <vector>

#include "trainer/objectives/objective.h"
#include "trainer/rollouts/generation_batch.h"

namespace temper::trainer {

/// TRL's completions/{mean,min,max}_length, completions/clipped_ratio and
/// completions/{mean,min,max}_terminated_length (0 where none ended by itself).
std::vector<MetricSum> length_metrics(const SampledGroups& groups);

/// Per completion, sum over its tokens of log p_old - log p_ref; [N] float32.
at::Tensor reference_divergence(const SampledGroups& groups);

/// Tokens that the sums of reference_divergence() are of, at least 1.
double sampled_tokens(const SampledGroups& groups);

}  // namespace temper::trainer
