#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <ATen/core/Tensor.h>

#include "data/loader/collate.h"
#include "data/loader/loader.h"
#include "parallel/communicator.h"
#include "recipes/recipe.h"

/// A loss: its sum over this micro-batch, the number of things it is a sum over, and metrics that add up.
///
/// The trainer adds sums and counts over micro-batches and ranks and divides once (references.md 1.2, row 1), so no result
/// depends on how a batch is cut. An objective therefore never divides by a local count.
namespace temper::trainer {

class Model;
class Reference;  // reference.h

/// A metric is numerator / denominator, both summed over micro-batches and ranks before the division. One whose name ends in "/min"
/// or "/max" is the least or the greatest numerator of those that have a denominator, which then is 1.
struct MetricSum {
  std::string name;      // "mean_token_accuracy", as TRL names it
  double numerator = 0;
  double denominator = 0;
};

/// What the host knows, or a tensor [] float64, no gradient, that a device may still compute.
using LateNumber = std::variant<double, at::Tensor>;

/// A metric of one micro-batch, to be a MetricSum once it is known.
struct LateMetric {
  std::string name;
  LateNumber numerator = 0.0;
  LateNumber denominator = 0.0;
};

/// On a device loss() waits for nothing: add_terms (step.h) fetches the numbers of many micro-batches at once.
struct LossTerms {
  at::Tensor sum;        // [] float32; differentiate it with LossGradient::value() (ops accumulate weight gradients going forward)
  double count = 0;      // supervised tokens, or pairs
  std::vector<LateMetric> metrics;
};

/// What an objective may use before the gradients of a step are computed.
struct Preparation {
  Model& model;
  Reference* reference;  // null unless needs_reference()
  parallel::Communicator& communicator;
  int64_t step;          // from 1; 0: an evaluation
  int64_t max_length = std::numeric_limits<int64_t>::max();  // data.max_length
  double temperature = 1;                                    // generation.temperature
};

class Objective {
 public:
  virtual ~Objective() = default;
  /// Unset: batches of packed documents with a label each position (data::collate); else rows of
  /// documents (data::collate_rows), never packed with others.
  virtual std::optional<data::RowLayout> row_layout() const { return std::nullopt; }
  virtual bool needs_reference() const { return false; }
  virtual bool needs_value_head() const { return false; }  // models/value_head.h
  /// What the step's losses need besides their own batch, written into the batches: the reference's
  /// log-probabilities, means over all ranks. Called once a step on every rank, in no-grad mode, also
  /// where a rank has no micro-batches (of an evaluation: once for each round of one micro-batch a
  /// rank), so it may use collectives, after end_passes() where it has been through the policy.
  virtual void prepare(data::StepBatches& /*batches*/, const Preparation& /*with*/) {}
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
