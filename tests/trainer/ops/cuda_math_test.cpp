// The arithmetic of trainer/ops/cuda, thread by thread on the host, against the CPU's kernels. What
// a device does beside it (launches, shuffles within a warp) is not seen here.
#include <algorithm>
#include <cmath>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include "trainer/ops/blockwise.h"
#include "trainer/ops/cuda/adamw_8bit_math.h"
#include "trainer/ops/cuda/float8_math.h"
#include "trainer/ops/cuda/quantized_math.h"
#include "trainer/ops/quantized.h"
#include "trainer/optimizers/adamw.h"
#include "trainer/optimizers/adamw_8bit.h"
#include "trainer/optimizers/kernels.h"

namespace temper::trainer {
namespace {

struct Way {
  QuantKind kind;
  bool double_quant;
};

// A matrix whose rows are no whole blocks, so that a block's elements lie in two rows.
QuantizedMatrix quantized(const Way& way, int64_t columns = 90) {
  const at::Tensor weight = at::randn({37, columns}, at::detail::createCPUGenerator(3)) * 0.02;
  return quantize(weight, way.kind, way.double_quant, "weight");
}

cuda::QuantizedView view_of(const QuantizedMatrix& m) {
  cuda::QuantizedView view{.codes = static_cast<const uint8_t*>(m.codes.const_data_ptr()),
                           .offset = m.offset,
                           .rows = m.rows,
                           .columns = m.columns};
  if (m.kind != QuantKind::kInt8) view.values = values_of_4bit(m.kind);
  if (m.absmax.defined()) {
    view.absmax = m.absmax.const_data_ptr<float>();
  } else {
    view.absmax_codes = m.absmax_codes.const_data_ptr<uint8_t>();
    view.nested_absmax = m.nested_absmax.const_data_ptr<float>();
    view.dynamic_values = dynamic_code(true).values.data();
  }
  return view;
}

class CudaMath : public testing::TestWithParam<Way> {};

// Rows 5 to 36, kWide elements at a time.
template <int kWide, class T>
at::Tensor dequantized(const QuantizedMatrix& m, at::ScalarType dtype) {
  const cuda::QuantizedView view = view_of(m);
  const int64_t begin = 5 * m.columns, end = 36 * m.columns;
  at::Tensor out = at::empty({31, m.columns}, dtype);
  for (int64_t i = begin; i < end; i += kWide)
    cuda::store_pack(static_cast<T*>(out.mutable_data_ptr()) + (i - begin),
                     cuda::rounded_elements<kWide, T>(view, i));
  return out;
}

TEST_P(CudaMath, DequantisesToTheCpusBits) {
  const QuantizedMatrix m = quantized(GetParam()), in_packs = quantized(GetParam(), 328);
  const auto expected = [](const QuantizedMatrix& matrix, at::ScalarType dtype) {
    return dequantize(matrix, dtype).narrow(0, 5, 31);
  };
  EXPECT_TRUE((dequantized<1, float>(m, at::kFloat).equal(expected(m, at::kFloat))));
  EXPECT_TRUE((dequantized<1, cuda::Bf16Bits>(m, at::kBFloat16).equal(expected(m, at::kBFloat16))));
  EXPECT_TRUE((dequantized<4, float>(in_packs, at::kFloat).equal(expected(in_packs, at::kFloat))));
  EXPECT_TRUE((dequantized<8, cuda::Bf16Bits>(in_packs, at::kBFloat16)
                   .equal(expected(in_packs, at::kBFloat16))));
}

TEST_P(CudaMath, ThirtyTwoLanesMakeTheCpusProduct) {
  for (const int64_t columns : {int64_t{90}, int64_t{128}, int64_t{328}}) {
    const QuantizedMatrix m = quantized(GetParam(), columns);
    const cuda::QuantizedView view = view_of(m);
    const at::Tensor x =
        at::randn({4, columns}, at::detail::createCPUGenerator(4)).to(at::kBFloat16);
    at::Tensor expected = at::empty({4, m.rows}, at::kBFloat16);
    multiply_quantized(expected, x, m);
    const auto* in = static_cast<const cuda::Bf16Bits*>(x.const_data_ptr());
    at::Tensor found = at::zeros({4, m.rows}, at::kFloat);
    for (int64_t output = 0; output < m.rows; ++output) {
      float sums[4] = {};
      for (int64_t lane = 0; lane < 32; ++lane)
        if (columns % 8 == 0) {
          cuda::add_lane_products<4, 8>(view, in, columns, output, lane, sums);
        } else {
          cuda::add_lane_products<4, 1>(view, in, columns, output, lane, sums);
        }
      for (int64_t row = 0; row < 4; ++row) found[row][output] = sums[row];
    }
    const at::Tensor exact = at::mm(x.to(at::kDouble), dequantize(m, at::kBFloat16).to(at::kDouble).t());
    EXPECT_LT((found - exact).abs().max().item<double>(), 1e-5);
    EXPECT_LT((found.to(at::kBFloat16) - expected).abs().max().item<double>(),
              0.01 * expected.abs().max().item<double>());
  }
}

INSTANTIATE_TEST_SUITE_P(Ways, CudaMath,
                         testing::Values(Way{QuantKind::kNf4, true}, Way{QuantKind::kNf4, false},
                                         Way{QuantKind::kFp4, true}, Way{QuantKind::kFp4, false},
                                         Way{QuantKind::kInt8, false}));

// The state of one tensor, stepped as adamw_8bit.cu does it: all elements of a block, then its
// largest, then the codes.
TEST(CudaMath, AdamW8bitStepsToTheCpusBits) {
  const int64_t count = 4096 + 100;
  Parameter parameter;
  parameter.name = "w";
  parameter.value = at::randn({count}, at::detail::createCPUGenerator(1));
  parameter.value.requires_grad_(true);
  parameter.master = parameter.value;
  recipes::Optimizer options;
  options.lr = 1e-2;
  options.weight_decay = 0.1;
  std::vector<float> weight(parameter.value.const_data_ptr<float>(),
                            parameter.value.const_data_ptr<float>() + count);
  std::vector<Parameter> parameters = {parameter};
  const auto optimizer = build_adamw_8bit(options, parameters);

  std::vector<uint8_t> m_codes(count), v_codes(count);
  std::vector<float> m_absmax((count + 255) / 256), v_absmax((count + 255) / 256);
  cuda::AdamW8bitView view{.weight = weight.data(),
                           .m_codes = m_codes.data(),
                           .v_codes = v_codes.data(),
                           .m_absmax = m_absmax.data(),
                           .v_absmax = v_absmax.data(),
                           .signed_values = dynamic_code(true).values.data(),
                           .unsigned_values = dynamic_code(false).values.data(),
                           .signed_nearest = dynamic_code(true).nearest.data(),
                           .unsigned_nearest = dynamic_code(false).nearest.data(),
                           .value = {},
                           .count = count};
  for (int64_t step = 1; step <= 4; ++step) {
    const at::Tensor gradient = at::randn({count}, at::detail::createCPUGenerator(10 + step));
    parameter.value.mutable_grad() = gradient.clone();
    optimizer->step(1e-2, 0.5);
    view.gradient = gradient.const_data_ptr<float>();
    const AdamWStep numbers = adamw_step(options, parameter, step, 1e-2, 0.5);
    for (int64_t block = 0; block < count; block += 256) {
      std::vector<cuda::Moments> moments;
      float m_peak = 0, v_peak = 0;
      const int64_t end = std::min(block + 256, count);
      for (int64_t i = block; i < end; ++i) {
        moments.push_back(cuda::update_element(view, numbers, i));
        m_peak = std::max(m_peak, std::fabs(moments.back().m));
        v_peak = std::max(v_peak, std::fabs(moments.back().v));
      }
      for (int64_t i = block; i < end; ++i)
        cuda::store_element(view, i, moments[static_cast<size_t>(i - block)], m_peak, v_peak);
    }
  }
  const float* expected = parameter.value.const_data_ptr<float>();
  for (int64_t i = 0; i < count; ++i) ASSERT_EQ(weight[static_cast<size_t>(i)], expected[i]) << i;
  for (const auto& [name, tensor] : optimizer->state()) {
    if (name != "exp_avg/w") continue;
    const uint8_t* codes = tensor.const_data_ptr<uint8_t>();
    for (int64_t i = 0; i < count; ++i) ASSERT_EQ(m_codes[static_cast<size_t>(i)], codes[i]) << i;
  }
}

// All that bfloat16 can say, and float32 beside the middles of all codes.
TEST(CudaFloat8, CodesAreLibTorchs) {
  const at::Tensor every = at::arange(1 << 16, at::kInt).to(at::kShort).view(at::kBFloat16).to(at::kFloat);
  for (const auto format : {at::kFloat8_e4m3fn, at::kFloat8_e5m2}) {
    const bool wide = format == at::kFloat8_e5m2;
    const at::Tensor codes =
        at::arange(wide ? 0x7c : 0x7f, at::kInt).to(at::kByte).view(format).to(at::kFloat);
    const at::Tensor middles =
        (codes.narrow(0, 1, codes.size(0) - 1) + codes.narrow(0, 0, codes.size(0) - 1)) / 2;
    const at::Tensor below = at::nextafter(middles, at::zeros({})), above = at::nextafter(middles, at::full({}, HUGE_VAL));
    const at::Tensor positive = at::cat({codes, middles, below, above});
    const at::Tensor x = at::cat({every, positive, -positive});
    const double largest = wide ? 57344 : 448;
    const at::Tensor expected = x.clamp(-largest, largest).to(format).view(at::kByte);
    int64_t wrong = 0;
    for (int64_t i = 0; i < x.numel(); ++i) {
      const float number = x.const_data_ptr<float>()[i];
      const uint8_t found = cuda::float8_code(number, wide);
      // The sign of a NaN is anything.
      wrong += std::isnan(number) ? (found & 0x7f) != 0x7f
                                  : found != expected.const_data_ptr<uint8_t>()[i];
    }
    EXPECT_EQ(wrong, 0) << format;
  }
}

}  // namespace
}  // namespace temper::trainer
