#pragma once

#include <array>
#include <cstdint>

/// Blocks of 256 numbers in 8 bits with the dynamic code (Dettmers 2016, arXiv:1511.04561; Dettmers
/// et al. 2022, arXiv:2110.02861), bit for bit as bitsandbytes 0.50.2 makes them on the CPU: there
/// x / absmax is first rounded to one of 65536 steps, so about 0.2% of the codes differ from CUDA's
/// nearest ones. The scales of NF4 blocks and the states of 8-bit AdamW are stored like this.
namespace temper::trainer {

inline constexpr int64_t kBlock8 = 256;
/// Of weights in 4 bits (quantized.h).
inline constexpr int64_t kBlock4 = 64;

struct DynamicCode {
  std::array<float, 256> values;       // ascending, the largest is 1
  std::array<uint8_t, 65536> nearest;  // code of the value nearest to -1 + 2 i / 65535
};

/// `with_sign`: seven decades on both sides of zero; else the same bits for positive numbers alone.
const DynamicCode& dynamic_code(bool with_sign);

/// count <= 256 elements to codes; returns their scale, the largest magnitude. Zeros get code 0, a
/// NaN does too.
float quantize_block(const DynamicCode& code, const float* x, int64_t count, uint8_t* codes);

/// x = values[codes] * absmax.
void dequantize_block(const DynamicCode& code, const uint8_t* codes, int64_t count, float absmax,
                      float* x);

}  // namespace temper::trainer
