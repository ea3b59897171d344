#pragma once

#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/objectives/objective.h"

/// From numbers of target tokens to numbers of completions: what losses over whole completions
/// share. Legend: n targets, C completions, B rows; of pairs C = 2 B, chosen and rejected in turn.
/// Values and what is made of them are where the model is, a batch's own tensors on the host: those
/// that meet values are sent there (ops/device.h), and nothing here waits for a device.
namespace temper::trainer {

/// Which completion each target belongs to, [n] int64 on the host. `ends`: data::Targets.
at::Tensor owners(const at::Tensor& ends);

/// Sums of values [n] float32 over each completion, [C] float32; differentiable. Added up in
/// float64 in the order of the tokens.
at::Tensor sum_per_completion(const at::Tensor& values, const at::Tensor& ends);

/// Supervised tokens of each completion, [C] float32 on the host, at least 1: also a first token of
/// its document, which nothing predicts.
at::Tensor completion_lengths(const data::Batch& batch);

/// Where a classification head reads each document of the batch's rows, [C] int64 into the flattened
/// positions: at its last token other than `pad_id` (its first where there is none), as transformers
/// finds it.
at::Tensor score_positions(const data::Batch& batch, const std::optional<int32_t>& pad_id);

/// Every second of values [2 B]: [B].
at::Tensor chosen_of(const at::Tensor& values);
at::Tensor rejected_of(const at::Tensor& values);

/// The sum of all values, [] float64; differentiable. In order on the CPU.
at::Tensor total_of(const at::Tensor& values);

/// Means over targets of the completions `which` (all, or every second from 0 or 1) of the batch's
/// rows, as a metric.
enum class Which { kAll, kChosen, kRejected };
LateMetric token_mean(const std::string& name, const at::Tensor& values, const at::Tensor& ends,
                      Which which);

/// The metrics of every loss over pairs, each argument [B]: rewards/{chosen, rejected, accuracies,
/// margins}, logps/{chosen, rejected}; means over pairs.
struct PairValues {
  at::Tensor chosen_rewards, rejected_rewards, chosen_logps, rejected_logps;
};
std::vector<LateMetric> pair_metrics(const PairValues& values);

}  // namespace temper::trainer
