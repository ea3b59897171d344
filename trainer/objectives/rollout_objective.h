#pragma once

#include <vector>

#include "trainer/objectives/advantages.h"
#include "trainer/objectives/objective.h"
#include "trainer/rollouts/generation_batch.h"

namespace temper::trainer {

/// A loss that learns from what the model itself has said, and from its rewards (trainer/rollouts):
/// its batches have a data::Rollout.
class RolloutObjective : public Objective {
 public:
  /// From what is known of a generation batch, all ranks' completions and their scores, to what
  /// loss() learns from: writes advantages, and may reorder the completions of a group or leave
  /// groups out. Returns metrics of it. The same on every rank.
  virtual std::vector<MetricSum> judge(SampledGroups& groups, const Scores& scores) const = 0;
  /// The policy's own log-probabilities, as it was when it sampled, are needed even where a
  /// generation batch lasts one step.
  virtual bool needs_old_log_probs() const { return false; }
  /// What the loss divides logits by, where completions are sampled at `sampling`.
  virtual double temperature(double sampling) const { return sampling; }
  /// What a value head expects at each of the batch's n targets, [n] float32; undefined: the
  /// objective has none. `hidden`: of the batch.
  virtual at::Tensor values(Model& /*model*/, const at::Tensor& /*hidden*/,
                            const data::Batch& /*batch*/) const {
    return {};
  }
};

}  // namespace temper::trainer
