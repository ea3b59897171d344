// Every instruction set that this machine runs gives what the baseline gives.
#include "trainer/ops/cpu/kernels.h"

#include <cmath>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace temper::trainer::cpu {

extern const Kernels kernels_baseline;
#ifdef __x86_64__
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;
#endif

namespace {

std::vector<const Kernels*> sets() {
  std::vector<const Kernels*> result = {&kernels_baseline};
#ifdef __x86_64__
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("f16c"))
    result.push_back(&kernels_avx2);
  if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
    result.push_back(&kernels_avx512);
#endif
  return result;
}

std::vector<float> random_floats(size_t count, float scale) {
  std::mt19937 generator(1);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

TEST(Kernels, SoftmaxOfARowEqualsDoublePrecision) {
  for (const Kernels* set : sets()) {
    for (const int64_t dim : {1, 15, 16, 100, 1000}) {
      const std::vector<float> logits = random_floats(dim, 8);
      double peak = -1e30, total = 0, weighted = 0;
      int64_t argmax = 0;
      for (int64_t i = 0; i < dim; ++i) {
        if (logits[i] > peak) argmax = i;
        peak = std::max<double>(peak, logits[i]);
      }
      for (const float x : logits) {
        total += std::exp(x - peak);
        weighted += std::exp(x - peak) * (x - peak);
      }
      const SoftmaxRow row = set->softmax_row(logits.data(), dim);
      EXPECT_NEAR(row.log_sum_exp, peak + std::log(total), 2e-6 * (1 + std::abs(peak)))
          << set->name << " " << dim;
      EXPECT_NEAR(row.entropy, std::log(total) - weighted / total, 1e-5) << set->name << " " << dim;
      EXPECT_EQ(row.argmax, argmax) << set->name;
    }
  }
}

TEST(Kernels, ProductWithoutMicroKernelsEqualsDoublePrecision) {
  for (const Kernels* set : sets()) {
    constexpr int64_t kM = 7, kN = 53, kK = 29;
    const std::vector<float> a = random_floats(kM * kK, 1), b = random_floats(kK * kN, 1);
    std::vector<float> c(kM * kN, 1.0f);
    set->gemm(kM, kN, kK, a.data(), kK, b.data(), kN, c.data(), kN, true);
    for (int64_t i = 0; i < kM; ++i) {
      for (int64_t j = 0; j < kN; ++j) {
        double expected = 1;
        for (int64_t k = 0; k < kK; ++k)
          expected += static_cast<double>(a[i * kK + k]) * b[k * kN + j];
        EXPECT_NEAR(c[i * kN + j], expected, 1e-5) << set->name;
      }
    }
  }
}

TEST(Kernels, RoundingToBfloat16IsToNearestEvenAndKeepsNan) {
  for (const Kernels* set : sets()) {
    // 1 + 2^-8 is half way between 1 and 1 + 2^-7: to even, 1. 1 + 3 * 2^-8: up to even, 1 + 2^-6.
    const std::vector<float> values = {1.00390625f, 1.01171875f, -2.5f, NAN, INFINITY, 3.0e38f};
    std::vector<Bf16> rounded(values.size());
    set->bf16.store(values.data(), 0, rounded.data(), 0, 1, static_cast<int64_t>(values.size()));
    EXPECT_EQ(rounded[0].bits, 0x3f80) << set->name;
    EXPECT_EQ(rounded[1].bits, 0x3f82) << set->name;
    EXPECT_EQ(rounded[2].bits, 0xc020) << set->name;
    EXPECT_EQ(rounded[3].bits & 0x7fff, 0x7fc0) << set->name;
    EXPECT_EQ(rounded[4].bits, 0x7f80) << set->name;
    EXPECT_EQ(rounded[5].bits, 0x7f62) << set->name;
  }
}

float value_of(uint16_t half) {
  const int exponent = (half >> 10) & 31, mantissa = half & 0x3ff;
  const float magnitude = exponent == 0    ? std::ldexp(static_cast<float>(mantissa), -24)
                          : exponent == 31 ? (mantissa == 0 ? INFINITY : NAN)
                                           : std::ldexp(1024.0f + static_cast<float>(mantissa), exponent - 25);
  return (half & 0x8000) != 0 ? -magnitude : magnitude;
}

// All of them, and what lies between two: the midpoint goes to the even one. 65520 is the midpoint
// to what would be 65536.
TEST(Kernels, EveryFloat16IsWidenedExactlyAndRoundedToNearestEven) {
  std::vector<Fp16> halves(65536);
  for (size_t i = 0; i < halves.size(); ++i) halves[i].bits = static_cast<uint16_t>(i);
  std::vector<float> exact(halves.size()), between;
  std::vector<uint16_t> rounded;
  for (size_t i = 0; i < halves.size(); ++i) exact[i] = value_of(halves[i].bits);
  for (uint16_t half = 0; half < 0x7c00; ++half) {
    const float low = value_of(half), high = half == 0x7bff ? 65536.0f : value_of(static_cast<uint16_t>(half + 1));
    const float middle = (low + high) / 2;
    const auto up = static_cast<uint16_t>(half + 1), even = half % 2 == 0 ? half : up;
    for (const auto& [value, bits] : {std::pair{std::nextafter(middle, 0.0f), half},
                                      {middle, even},
                                      {std::nextafter(middle, INFINITY), up}}) {
      between.push_back(value);
      rounded.push_back(bits);
      between.push_back(-value);
      rounded.push_back(static_cast<uint16_t>(bits | 0x8000));
    }
  }
  for (const float beyond : {65536.0f, 1e30f, INFINITY}) {
    between.push_back(beyond);
    rounded.push_back(0x7c00);
  }
  for (const Kernels* set : sets()) {
    std::vector<float> wide(halves.size());
    set->fp16.load(halves.data(), 0, wide.data(), 0, 1, 65536, 1.0f);
    std::vector<Fp16> back(halves.size()), found(between.size());
    set->fp16.store(exact.data(), 0, back.data(), 0, 1, 65536);
    set->fp16.store(between.data(), 0, found.data(), 0, 1, static_cast<int64_t>(between.size()));
    int64_t wrong = 0;
    for (size_t i = 0; i < halves.size(); ++i) {
      const bool same = std::isnan(exact[i])
                            ? std::isnan(wide[i]) && std::isnan(value_of(back[i].bits))
                            : wide[i] == exact[i] && back[i].bits == halves[i].bits;
      wrong += same ? 0 : 1;
    }
    for (size_t i = 0; i < between.size(); ++i) wrong += found[i].bits == rounded[i] ? 0 : 1;
    EXPECT_EQ(wrong, 0) << set->name;
    // The last, shorter group of a row.
    Fp16 some[3];
    const float three[3] = {-2.5f, 1e-7f, 65519.0f};
    set->fp16.store(three, 0, some, 0, 1, 3);
    EXPECT_EQ(some[0].bits, 0xc100) << set->name;
    EXPECT_EQ(some[1].bits, 2) << set->name;
    EXPECT_EQ(some[2].bits, 0x7bff) << set->name;
  }
}

TEST(Kernels, PackedOperandsHoldTwoBfloat16OfConsecutiveKInAWord) {
  for (const Kernels* set : sets()) {
    constexpr int64_t kK = 37, kColumns = 21, kWide = 24;
    std::vector<Bf16> rows(kK * kColumns), columns(kK * kColumns);
    for (int64_t k = 0; k < kK; ++k) {
      for (int64_t c = 0; c < kColumns; ++c) {
        rows[k * kColumns + c].bits = columns[c * kK + k].bits = static_cast<uint16_t>(k * 100 + c);
      }
    }
    std::vector<Bf16> from_rows((kK + 1) * kWide), from_columns((kK + 1) * kWide);
    set->pack_bf16.rows(rows.data(), kColumns, from_rows.data(), kWide, kK, kColumns);
    set->pack_bf16.columns(columns.data(), kK, from_columns.data(), kWide, kK, kColumns);
    std::vector<Bf16> transposed(kColumns * 40);
    set->pack_bf16.transposed(rows.data(), kColumns, transposed.data(), 40, kK, kColumns);
    for (int64_t k = 0; k < kK + 1; ++k) {
      for (int64_t c = 0; c < kColumns; ++c) {
        const int expected = k < kK ? static_cast<int>(k * 100 + c) : 0;
        const int64_t word = (k / 2 * kWide + c) * 2 + k % 2;
        EXPECT_EQ(from_rows[word].bits, expected) << set->name << " " << k << " " << c;
        EXPECT_EQ(from_columns[word].bits, expected) << set->name << " " << k << " " << c;
        EXPECT_EQ(transposed[c * 40 + k].bits, expected) << set->name << " " << k << " " << c;
      }
    }
  }
}

TEST(Kernels, QuantisedBitsAreTheSameInEveryInstructionSet) {
  constexpr int64_t kCount = 5 * 64 + 37;
  FourBitCode code{};
  for (int k = 0; k < 16; ++k) {
    code.values[k] = static_cast<float>(k) / 7.5f - 1.0f;
    code.sorted[k] = k;
  }
  for (int k = 0; k < 15; ++k) code.bounds[k] = (code.values[k] + code.values[k + 1]) / 2;
  std::vector<uint8_t> nearest(65536);
  for (size_t i = 0; i < nearest.size(); ++i) nearest[i] = static_cast<uint8_t>(i >> 8);

  std::vector<float> x = random_floats(kCount, 3);
  std::fill(x.begin() + 64, x.begin() + 128, 0.0f);
  for (int64_t i = 128; i < 192; ++i) x[i] *= 1e-39f;

  struct Result {
    std::vector<uint8_t> codes = std::vector<uint8_t>((kCount + 1) / 2 + 256);
    std::vector<float> absmax = std::vector<float>(6 + 1);
    std::vector<float> values = std::vector<float>(kCount + 256);
    std::vector<uint16_t> rounded = std::vector<uint16_t>(kCount + 256);
    std::vector<uint16_t> halves = std::vector<uint16_t>(kCount + 256);
    bool operator==(const Result&) const = default;
  };
  std::vector<Result> results;
  for (const Kernels* set : sets()) {
    Result& r = results.emplace_back();
    EXPECT_TRUE(set->quantize4(x.data(), kCount, code, r.codes.data(), r.absmax.data()));
    r.absmax[6] = set->quantize8(x.data() + 1, 256, nearest.data(), &r.codes[(kCount + 1) / 2]);
    std::vector<Bf16> narrow(kCount + 256);
    std::vector<Fp16> half(kCount + 256);
    const auto* bytes = reinterpret_cast<const int8_t*>(&r.codes[(kCount + 1) / 2]);
    constexpr int64_t kBegin = 77;  // in the middle of a byte and of a block
    set->quant_f32.dequantize4(r.codes.data(), code.values, &r.absmax[1], kBegin, kCount,
                               r.values.data());
    set->quant_f32.dequantize8(bytes, r.absmax[6], &r.values[kCount], 250);
    set->quant_bf16.dequantize4(r.codes.data(), code.values, &r.absmax[1], kBegin, kCount,
                                narrow.data());
    set->quant_bf16.dequantize8(bytes, r.absmax[6], &narrow[kCount], 250);
    set->quant_fp16.dequantize4(r.codes.data(), code.values, &r.absmax[1], kBegin, kCount,
                                half.data());
    set->quant_fp16.dequantize8(bytes, r.absmax[6], &half[kCount], 250);
    for (size_t i = 0; i < narrow.size(); ++i) {
      r.rounded[i] = narrow[i].bits;
      r.halves[i] = half[i].bits;
    }
    EXPECT_EQ(r, results[0]) << set->name;
  }
}

TEST(Kernels, ProductsWithFourBitCodesEqualDoublePrecision) {
  constexpr int64_t kDim = 192, kOutputs = 7;
  FourBitCode code{};
  for (int k = 0; k < 16; ++k) code.values[k] = static_cast<float>(k) / 7.5f - 1.0f;
  std::vector<uint8_t> codes(kOutputs * kDim / 2);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i * 37 + 11);
  const std::vector<float> scales = random_floats(kOutputs * kDim / 64, 1);
  std::vector<float> weights(kOutputs * kDim);
  kernels_baseline.quant_f32.dequantize4(codes.data(), code.values, scales.data(), 0,
                                         kOutputs * kDim, weights.data());
  for (const Kernels* set : sets()) {
    for (const auto& [rows, padded] :
         {std::pair<int64_t, int64_t>{1, 1}, {2, 2}, {3, 4}, {7, 8}, {9, 16}}) {
      const std::vector<float> x = random_floats(padded * kDim, 1);
      std::vector<float> y(rows * kOutputs), plain(rows * kOutputs);
      set->quant_f32.multiply4(x.data(), kDim, rows, codes.data(), code.values, scales.data(), kDim,
                               kOutputs, y.data(), kOutputs);
      set->quant_f32.multiply(x.data(), kDim, rows, weights.data(), kDim, kOutputs, plain.data(),
                              kOutputs);
      EXPECT_EQ(y, plain) << set->name;
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t o = 0; o < kOutputs; ++o) {
          double expected = 0;
          for (int64_t i = 0; i < kDim; ++i)
            expected += static_cast<double>(x[r * kDim + i]) * weights[o * kDim + i];
          EXPECT_NEAR(y[r * kOutputs + o], expected, 1e-4) << set->name << " " << rows;
        }
      }
    }
  }
}

}  // namespace
}  // namespace temper::trainer::cpu
