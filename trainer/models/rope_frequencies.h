#pragma once

#include <cstdint>
#include <vector>

#include "trainer/models/config.h"
#include "trainer/ops/rope.h"

namespace temper::trainer {

/// Inverse frequencies of a rotary embedding for a sequence of `length` tokens (only dynamic and
/// longrope depend on it), and the factor on cos and sin, in float32 steps as transformers 5.23
/// computes them.
///
/// linear: positions / factor. dynamic: NTK-aware base. yarn: arXiv:2309.00071. longrope:
/// arXiv:2402.13753. llama3: Llama 3.1's bands.
struct RopeFrequencies {
  std::vector<float> inverse;  // [head_dim / 2]
  float scaling = 1.0f;
};
RopeFrequencies rope_frequencies(const ModelConfig& config, int64_t length);

/// Whether a token's angle depends on how long its document is: then documents of different lengths
/// cannot share a prefix.
bool depends_on_length(const RopeConfig& rope);

/// Angles of the tokens at `positions` [N] int64, where `inverse` [head_dim / 2] float32 is: of
/// models whose angles do not depend on a document's length.
RopeAngles angles_at(const at::Tensor& positions, const at::Tensor& inverse, float scaling);

/// Angles of the tokens at `positions` [N] int64 whose documents end at `document_ends` [S + 1]
/// int32. The length that dynamic and longrope look at is the document's own, so that packing
/// changes nothing. Both on the host; the angles are made on `device`.
RopeAngles rope_angles(const ModelConfig& config, const at::Tensor& positions,
                       const at::Tensor& document_ends, at::Device device);

}  // namespace temper::trainer
