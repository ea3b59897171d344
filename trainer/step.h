#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "data/loader/loader.h"
#include "parallel/communicator.h"
#include "parallel/replicate/gradient_reducer.h"
#include "trainer/objectives/objective.h"
#include "trainer/recorded_passes.h"

/// What one optimizer step adds up over micro-batches and ranks, and the small exchange that does it.
namespace temper::trainer {

struct StepSums {
  double loss = 0;           // sum over counted things; divide by count
  double count = 0;          // supervised tokens, or pairs
  double input_tokens = 0;
  double rows = 0;
  // Ranks that say so: what one rank finds, all learn at the same step.
  double stopping = 0;       // a signal has come
  double written = 0;        // this rank's share of the pending checkpoint is on disk
  double failed = 0;         // this rank cannot go on (its writer's disk is full, ...)
  double own_not_finite = 0; // this rank's own loss is not a number (not exchanged)
  std::vector<MetricSum> metrics;  // in the objective's order, the same on every rank
};

/// All zero, with the objective's metrics by name: what a rank without rows contributes.
StepSums zero_sums(const Objective& objective);
/// Those of micro-batches, in turn. Waits once where they are on a device.
void add_terms(StepSums& sums, std::span<const LossTerms> terms);
inline void add_terms(StepSums& sums, const LossTerms& terms) { add_terms(sums, std::span(&terms, 1)); }

/// Forward and backward over this rank's micro-batches; gradients are left, exchanged but unnormalised and times `loss_gradient`, in
/// the reducer's buckets. `before`, where given, is called with the number of each micro-batch before its forward pass (dropout's seed).
/// `recorded`, where given, replays passes but those whose gradients are exchanged while they are computed.
StepSums forward_backward(Model& model, Objective& objective, parallel::GradientReducer& reducer,
                          const data::StepBatches& batches, const std::function<void(int64_t)>& before = {},
                          float loss_gradient = 1, RecordedPasses* recorded = nullptr);

/// What StepSums::count will be after the exchange, before any forward pass. Collective.
double coming_count(const Objective& objective, const data::StepBatches& batches, parallel::Communicator& communicator);

/// Adds the sums of all ranks, in place; of metrics that are extremes, takes the ranks' extreme. Collective.
void exchange(StepSums& sums, parallel::Communicator& communicator);

}  // namespace temper::trainer
