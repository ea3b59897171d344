#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/objectives/objective.h"

/// From rewards to advantages, as TRL 1.16.0 computes them: in float32, over the completions of all
/// ranks. Legend: N = P * G completions, the G of a prompt side by side, scored by F functions.
namespace temper::trainer {

struct Scores {
  at::Tensor values;            // [N, F] float32; NaN: this function has no score for it
  int64_t group = 1;            // G
  std::vector<double> weights;  // [F]
};

struct Advantages {
  at::Tensor values;  // [N]; 0 for a completion that no function has scored
  double zero_std_share =
      0;  // of groups (where scaled by the batch: of all) whose rewards are equal
};

enum class Aggregation { kSumThenNormalize, kNormalizeThenSum };
enum class Scale { kGroup, kBatch, kNone };

/// sum_f w_f r_f over the functions that scored a completion, [N]; NaN where none did.
at::Tensor weighted_rewards(const Scores& scores);

/// GRPO (Shao et al. 2024, arXiv:2402.03300): A = (R - mean of the group) / (s + 1e-4), s the
/// standard deviation (N - 1) of the group or of the batch (Liu et al. 2025, arXiv:2508.08221), or
/// no division (Liu et al. 2025, arXiv:2503.20783). kNormalizeThenSum (GDPO, arXiv:2601.05242):
/// each function's scores are normalised in their group, weighted, added, and normalised over the
/// batch; `scale` is not used.
Advantages grpo_advantages(const Scores& scores, Aggregation aggregation, Scale scale);

/// RLOO (Ahmadian et al. 2024, arXiv:2402.14740): A = R - mean of the group's other scored ones;
/// with `normalize` (A - mean) / (std + 1e-4) over all. rewards [N], NaN: not scored.
Advantages rloo_advantages(const at::Tensor& rewards, int64_t group, bool normalize);

/// reward, reward_std, rewards/<name>/{mean,std}; a metric that would be NaN has denominator 0.
std::vector<MetricSum> reward_metrics(const Scores& scores, const std::vector<std::string>& names);

/// [P] bool: all completions of the group that have a reward have the same one.
at::Tensor without_variance(const Scores& scores);

}  // namespace temper::trainer
