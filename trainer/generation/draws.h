#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/generation/sampling.h"

/// Many tokens at once, drawn where the logits are: on the CPU by sampling.h, on a device by a
/// kernel that follows it, to which a few bytes a draw are sent and which sends back an id and its
/// log-probabilities.
namespace temper::trainer {

/// A sequence's tokens so far, as a repetition penalty asks for them. A device has a bit for each
/// token of the vocabulary, and is told of new ones only.
struct SeenTokens {
  std::vector<int32_t> ids;
  at::Tensor bits{};  // on a device
  size_t marked = 0;  // of ids, in bits
};

struct Draw {
  int64_t row = 0;  // of the logits; draws may share one
  uint64_t seed = 0;
  int64_t sample = 0, index = 0;  // draw `index` of sample `sample` of `seed`
  SeenTokens* seen = nullptr;     // looked at with a repetition penalty only
};

/// The choice of each draw from logits [M, V] float32, as `choose` makes it. Waits for the device.
/// Throws RunError where logits are not finite.
std::vector<Choice> choose(const at::Tensor& logits, std::span<const Draw> draws,
                           const SamplingSettings& settings);

}  // namespace temper::trainer
