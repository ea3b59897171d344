#pragma once

#include <ATen/core/Tensor.h>

#include "trainer/objectives/dpo_losses.h"
#include "trainer/objectives/objective.h"

/// Online DPO (Guo et al. 2024, arXiv:2402.04792), as TRL 1.16.0 computes it: of two sampled
/// completions the one with the higher reward is chosen, the first where they are equal, and DPO's
/// loss is taken of the two.
namespace temper::trainer {

/// C = 2 B completions, chosen and rejected in turn; all [C] float32.
struct SampledPairs {
  at::Tensor log_probs;            // of whole completions; differentiable
  at::Tensor reference_log_probs;
  at::Tensor rewards;
};

/// sigmoid and ipo of sums over completions; the count is of pairs.
LossTerms online_dpo_loss(const SampledPairs& pairs, const DpoOptions& options);

}  // namespace temper::trainer
