#pragma once

#include "trainer/objectives/advantages.h"
#include "trainer/objectives/objective.h"

namespace temper::trainer {

/// A loss that learns from rewards of what the model itself has said (trainer/rollouts): its
/// batches have a data::Rollout.
class RolloutObjective : public Objective {
 public:
  /// Of N completions of all ranks, the G of a prompt side by side. kl [N]: summed over tokens,
  /// log p - log p_ref where penalizes_kl(), else undefined.
  virtual Advantages advantages(const Scores& scores, const at::Tensor& kl) const = 0;
  /// The divergence from the reference is part of the reward, so that it is needed before
  /// advantages are.
  virtual bool penalizes_kl() const { return false; }
};

}  // namespace temper::trainer
