#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "data/io/json.h"
#include "recipes/recipe.h"
#include "trainer/metrics/device_rates.h"
#include "trainer/models/config.h"

/// How long a step takes, as a pure function of recipe, model, a rank's share of a step and the
/// rates of its device.
///
/// A product takes its FLOPs at the rate of products with such weights, or its bytes at the speed
/// of memory where that takes longer (Williams et al. 2009, the roofline model); attention, and
/// logits up to their gradient, take their own rates; what is left moves bytes. The device does one
/// thing after the other, and only exchanges go on beside it.
namespace temper::trainer {

/// Of one rank in one step.
struct StepWork {
  double tokens = 0;
  double supervised = 0;      // of these, those whose logits are needed
  double attended = 0;        // tokens that a token attends to in the mean, itself included
  int64_t micro_batches = 1;  // that they come in
  int64_t trainable = 0;      // elements that have gradients (MemoryPlan)
  int64_t ranks = 1;
  /// Of a reference or a teacher that goes through the same tokens without gradients.
  std::optional<ModelConfig> second_model{};
};

/// Seconds.
struct StepTime {
  double products = 0;  // forward and backward, low-rank ones of adapters too
  double attention = 0;
  double elementwise = 0;    // norms, rotations, activations, residuals, the embedding
  double loss = 0;           // from logits to their gradient
  double recomputation = 0;  // train.activation_checkpointing; logits, of losses of pairs
  double quantization = 0;   // weights in 4 or 8 bits, made whole for each product
  double second_model = 0;
  double optimizer = 0;  // its pass, the norm and the zeroing of gradients
  double exchange = 0;   // what of it nothing hides
  double total() const {
    return products + attention + elementwise + loss + recomputation + quantization + second_model +
           optimizer + exchange;
  }
};

/// Why predict_step() is not made for this recipe, as "objective.kind = \"grpo\" samples
/// completions"; empty: it is.
std::string not_predicted(const recipes::Recipe& recipe);

/// `rates.of(recipe.train.precision)` is complete. `link`: between ranks, measured with any number
/// of them: by the bytes that the best all-reduce of n ranks has to send, 2 (n - 1) / n of the
/// tensor (Thakur et al. 2005), it is that of another number; unset: exchanges are not counted.
///
/// Buckets of gradients leave while backward makes the next ones: not hidden is the last one, or
/// what is longer than the backward pass that it goes beside. Updated values are gathered after the
/// step, in the open (ZeRO 1 and 2), or block by block beside each pass through the model (ZeRO 3).
StepTime predict_step(const recipes::Recipe& recipe, const ModelConfig& config,
                      const StepWork& work, const DeviceRates& rates,
                      const std::optional<LinkRates>& link = {});

/// One JSON name a component, in the order of the struct.
data::Json to_json(const StepTime& time);

}  // namespace temper::trainer
