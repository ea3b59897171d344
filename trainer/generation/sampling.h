#pragma once

#include <cstdint>
#include <span>

#include "trainer/generation/generate.h"

/// From the logits of the next position to a token: the processors of transformers 5.23 in its
/// order (repetition_penalty, and where sampling temperature, top_k, top_p, min_p), then a draw.
/// Pure functions of their arguments; no state, no LibTorch.
namespace temper::trainer {

/// Applies `settings` to logits [V] in place; what may not be drawn becomes -infinity. `seen`:
/// prompt and completion so far. At temperature 0 (greedy) only the repetition penalty applies.
void process_logits(std::span<float> logits, std::span<const int32_t> seen,
                    const SamplingSettings& settings);

/// Index of the largest logit, the first of equals. Throws RunError when that is not finite (the
/// weights give NaN).
int32_t greedy_token(std::span<const float> logits);

/// Draws from softmax(logits). Draw number `index` of `seed` is a pure function of both: the same
/// on every machine, and the same whether or not other sequences are drawn from beside it.
int32_t draw_token(std::span<const float> logits, uint64_t seed, int64_t index);

}  // namespace temper::trainer
