#pragma once

#include <cstdint>
#include <span>

#include "trainer/generation/generate.h"

/// From the logits of the next position to a token: the processors of transformers 5.23 in its
/// order (repetition_penalty, and where sampling temperature, top_k, top_p, min_p), then a draw.
/// Pure functions of their arguments; no state, no LibTorch. Several threads may call them.
namespace temper::trainer {

/// Applies `settings` to logits [V] in place; what may not be drawn becomes -infinity. `seen`:
/// prompt and completion so far. At temperature 0 (greedy) only the repetition penalty applies.
void process_logits(std::span<float> logits, std::span<const int32_t> seen,
                    const SamplingSettings& settings);

/// Index of the largest logit, the first of equals. Throws RunError when that is not finite (the
/// weights give NaN).
int32_t greedy_token(std::span<const float> logits);

/// What draw `index` of sample `sample` of `seed` is made of: a number in [0, 1).
double uniform_of(uint64_t seed, int64_t sample, int64_t index);

/// Draws from softmax(logits). Draw number `index` of sample `sample` of `seed` is a pure function
/// of the three and the logits: the same whether or not other sequences are drawn from beside it.
int32_t draw_token(std::span<const float> logits, uint64_t seed, int64_t index, int64_t sample = 0);

/// The token that follows, and what its log-probability is.
struct Choice {
  int32_t id = 0;
  float log_prob = 0;  // softmax of logits / temperature (greedy: of the logits): what training
                       // computes
  float drawn_log_prob = 0;  // in the distribution drawn from; greedy: 0, nothing is drawn
};

/// Draw `index` of sample `sample`, or the greedy token at temperature 0. Throws RunError where
/// logits are not finite.
Choice choose(std::span<const float> logits, std::span<const int32_t> seen,
              const SamplingSettings& settings, uint64_t seed, int64_t sample, int64_t index);

}  // namespace temper::trainer
