#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "recipes/recipe.h"

namespace temper::data {
struct Batch;
}

/// A loss: its sum over this micro-batch, the number of things it is a sum over, and metrics that add up.
///
/// The trainer adds sums and counts over micro-batches and ranks and divides once (references.md 1.2, row 1), so no result
/// depends on how a batch is cut. An objective therefore never divides by a local count.
namespace temper::trainer {

class Model;

/// A metric is numerator / denominator, both summed over micro-batches and ranks before the division.
struct MetricSum {
  std::string name;      // "mean_token_accuracy", as TRL names it
  double numerator = 0;
  double denominator = 0;
};

struct LossTerms {
  at::Tensor sum;        // [] float32; differentiate it with gradient one (ops accumulate weight gradients while going forward)
  double count = 0;      // supervised tokens, or pairs
  std::vector<MetricSum> metrics;
};

class Objective {
 public:
  virtual ~Objective() = default;
  /// With gradients enabled `sum` is differentiable; in no-grad mode only values are computed.
  virtual LossTerms loss(Model& model, const data::Batch& batch) = 0;
  /// The metrics that loss() returns, in its order: ranks without rows add zeros under the same names.
  virtual std::vector<std::string> metric_names() const = 0;
  /// How many things `batch` contributes to the global count, known before any forward pass.
  virtual double count(const data::Batch& batch) const = 0;
};

/// From the registry (registry.cpp: kind, builder, sentence, paper).
std::unique_ptr<Objective> build_objective(const recipes::Objective& objective);

}  // namespace temper::trainer
