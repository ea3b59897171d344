#include "trainer/models/rope_frequencies.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "recipes/diagnostic.h"
#include "trainer/ops/device.h"

namespace temper::trainer {
namespace {

// base^(2 i / dim)
std::vector<float> powers(float base, int64_t dim) {
  std::vector<float> result(dim / 2);
  for (int64_t i = 0; i < dim / 2; ++i) {
    result[i] = std::pow(base, static_cast<float>(2 * i) / static_cast<float>(dim));
  }
  return result;
}

std::vector<float> inverse_powers(float base, int64_t dim) {
  std::vector<float> result = powers(base, dim);
  for (float& value : result) value = 1.0f / value;
  return result;
}

RopeFrequencies dynamic(const ModelConfig& config, int64_t length) {
  const float positions = static_cast<float>(config.max_position_embeddings);
  const float factor = static_cast<float>(config.rope.factor);
  const float seen = std::max(static_cast<float>(length), positions);
  const double dim = static_cast<double>(config.head_dim);
  const float stretch = factor * seen / positions - (factor - 1.0f);
  const float base = static_cast<float>(config.rope.theta) *
                     std::pow(stretch, static_cast<float>(dim / (dim - 2)));
  return {.inverse = inverse_powers(base, config.head_dim)};
}

double yarn_mscale(double scale, double mscale) {
  return scale <= 1 ? 1.0 : 0.1 * mscale * std::log(scale) + 1.0;
}

RopeFrequencies yarn(const ModelConfig& config) {
  const RopeConfig& rope = config.rope;
  const double dim = static_cast<double>(config.head_dim);
  const double original = static_cast<double>(rope.original_max_position_embeddings);
  // The dim whose wave turns `rotations` times over the original context.
  const auto correction = [&](double rotations) {
    return dim * std::log(original / (rotations * 2 * std::numbers::pi)) /
           (2 * std::log(rope.theta));
  };
  double low = correction(rope.beta_fast);
  double high = correction(rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1);
  if (low == high) high += 0.001;

  RopeFrequencies result;
  result.inverse = powers(static_cast<float>(rope.theta), config.head_dim);
  for (size_t i = 0; i < result.inverse.size(); ++i) {
    const float power = result.inverse[i];
    const float ramp =
        (static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low);
    const float extrapolated = 1.0f - std::clamp(ramp, 0.0f, 1.0f);
    result.inverse[i] = 1.0f / (static_cast<float>(rope.factor) * power) * (1.0f - extrapolated) +
                        1.0f / power * extrapolated;
  }
  if (rope.attention_factor) {
    result.scaling = static_cast<float>(*rope.attention_factor);
  } else if (rope.mscale.value_or(0) != 0 && rope.mscale_all_dim.value_or(0) != 0) {
    result.scaling = static_cast<float>(yarn_mscale(rope.factor, *rope.mscale) /
                                        yarn_mscale(rope.factor, *rope.mscale_all_dim));
  } else {
    result.scaling = static_cast<float>(yarn_mscale(rope.factor, 1.0));
  }
  return result;
}

RopeFrequencies longrope(const ModelConfig& config, int64_t length) {
  const RopeConfig& rope = config.rope;
  const std::vector<double>& factors =
      length > rope.original_max_position_embeddings ? rope.long_factor : rope.short_factor;
  RopeFrequencies result;
  result.inverse = powers(static_cast<float>(rope.theta), config.head_dim);
  for (size_t i = 0; i < result.inverse.size(); ++i) {
    result.inverse[i] = 1.0f / (static_cast<float>(factors[i]) * result.inverse[i]);
  }
  if (rope.attention_factor) {
    result.scaling = static_cast<float>(*rope.attention_factor);
  } else if (rope.factor > 1.0) {
    const double original = static_cast<double>(rope.original_max_position_embeddings);
    result.scaling = static_cast<float>(std::sqrt(1 + std::log(rope.factor) / std::log(original)));
  }
  return result;
}

RopeFrequencies llama3(const ModelConfig& config) {
  const RopeConfig& rope = config.rope;
  const float original = static_cast<float>(rope.original_max_position_embeddings);
  const float factor = static_cast<float>(rope.factor);
  const float low = static_cast<float>(rope.low_freq_factor);
  const float high = static_cast<float>(rope.high_freq_factor);
  RopeFrequencies result{.inverse =
                             inverse_powers(static_cast<float>(rope.theta), config.head_dim)};
  for (float& frequency : result.inverse) {
    const float wavelength = static_cast<float>(2 * std::numbers::pi) / frequency;
    if (wavelength > original / low) {
      frequency /= factor;
    } else if (wavelength >= original / high) {
      const float smooth = (original / wavelength - low) / (high - low);
      frequency = (1 - smooth) * frequency / factor + smooth * frequency;
    }
  }
  return result;
}

}  // namespace

RopeFrequencies rope_frequencies(const ModelConfig& config, int64_t length) {
  const RopeConfig& rope = config.rope;
  if (rope.type == "dynamic") return dynamic(config, length);
  if (rope.type == "yarn") return yarn(config);
  if (rope.type == "longrope") return longrope(config, length);
  if (rope.type == "llama3") return llama3(config);
  RopeFrequencies result{.inverse =
                             inverse_powers(static_cast<float>(rope.theta), config.head_dim)};
  if (rope.type == "linear") {
    for (float& frequency : result.inverse) frequency /= static_cast<float>(rope.factor);
  }
  return result;
}

bool depends_on_length(const RopeConfig& rope) {
  return rope.type == "dynamic" || rope.type == "longrope";
}

RopeAngles angles_at(const at::Tensor& positions, const at::Tensor& inverse, float scaling) {
  const at::Tensor angles = at::outer(positions.to(at::kFloat), inverse);
  return {.cos = angles.cos().mul_(scaling), .sin = angles.sin().mul_(scaling)};
}

RopeAngles rope_angles(const ModelConfig& config, const at::Tensor& positions,
                       const at::Tensor& document_ends, at::Device device) {
  const int64_t half = config.head_dim / 2;
  const bool by_length = depends_on_length(config.rope);
  const RopeFrequencies common = rope_frequencies(config, 0);
  if (!device.is_cpu() && !by_length) {
    return angles_at(sent_to(device, positions),
                     sent_to(device, at::tensor(common.inverse, at::kFloat)), common.scaling);
  }
  const auto options = positions.options().dtype(at::kFloat);
  RopeAngles angles{.cos = at::empty({positions.numel(), half}, options),
                    .sin = at::empty({positions.numel(), half}, options)};
  const int64_t* position = positions.const_data_ptr<int64_t>();
  const int32_t* ends = document_ends.const_data_ptr<int32_t>();
  float* cos = angles.cos.mutable_data_ptr<float>();
  float* sin = angles.sin.mutable_data_ptr<float>();
  at::parallel_for(0, document_ends.numel() - 1, 1, [&](int64_t first, int64_t last) {
    for (int64_t d = first; d < last; ++d) {
      if (ends[d] == ends[d + 1]) continue;
      const RopeFrequencies own =
          by_length ? rope_frequencies(config, position[ends[d + 1] - 1] + 1) : common;
      for (int64_t t = ends[d]; t < ends[d + 1]; ++t) {
        for (int64_t i = 0; i < half; ++i) {
          const float angle = static_cast<float>(position[t]) * own.inverse[i];
          cos[t * half + i] = std::cos(angle) * own.scaling;
          sin[t * half + i] = std::sin(angle) * own.scaling;
        }
      }
    }
  });
  return {.cos = sent_to(device, angles.cos), .sin = sent_to(device, angles.sin)};
}

}  // namespace temper::trainer
