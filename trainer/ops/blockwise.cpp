#include "trainer/ops/blockwise.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "trainer/ops/cpu/kernels.h"

namespace temper::trainer {

namespace {

// n points from 0.1 to 1 as torch.linspace takes them for so few: from the nearer end, each with
// one rounding.
std::vector<float> tenth_to_one(int64_t n) {
  const float begin = 0.1f;
  const float end = 1.0f;
  const float step = (end - begin) / static_cast<float>(n - 1);
  std::vector<float> points;
  for (int64_t i = 0; i < n; ++i) {
    points.push_back(i < n / 2 ? std::fma(step, static_cast<float>(i), begin)
                               : std::fma(-step, static_cast<float>(n - 1 - i), end));
  }
  return points;
}

// A decade 10^-6 .. 1 has twice the values of the one below it: the middles of equal intervals of
// [0.1, 1].
DynamicCode make_code(bool with_sign) {
  DynamicCode code;
  std::vector<float> values = {0.0f, 1.0f};
  for (int decade = 0; decade < 7; ++decade) {
    const int64_t count = int64_t{with_sign ? 1 : 2} << decade;
    const std::vector<float> points = tenth_to_one(count + 1);
    const float scale = static_cast<float>(std::pow(10.0, decade - 6));
    for (int64_t i = 0; i < count; ++i) {
      const float value = scale * ((points[i] + points[i + 1]) / 2);
      values.push_back(value);
      if (with_sign) values.push_back(-value);
    }
  }
  std::sort(values.begin(), values.end());
  std::copy(values.begin(), values.end(), code.values.begin());

  size_t nearest = 0;
  for (int i = 0; i < 65536; ++i) {
    const float x = -1.0f + 2.0f * static_cast<float>(i) / 65535.0f;
    while (nearest < 255 && 0.5f * (code.values[nearest] + code.values[nearest + 1]) < x) ++nearest;
    code.nearest[i] = static_cast<uint8_t>(nearest);
  }
  return code;
}

}  // namespace

const DynamicCode& dynamic_code(bool with_sign) {
  static const DynamicCode with = make_code(true);
  static const DynamicCode without = make_code(false);
  return with_sign ? with : without;
}

float quantize_block(const DynamicCode& code, const float* x, int64_t count, uint8_t* codes) {
  return cpu::kernels().quantize8(x, count, code.nearest.data(), codes);
}

void dequantize_block(const DynamicCode& code, const uint8_t* codes, int64_t count, float absmax,
                      float* x) {
  for (int64_t i = 0; i < count; ++i) x[i] = code.values[codes[i]] * absmax;
}

}  // namespace temper::trainer
