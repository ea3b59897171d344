#include "trainer/ops/quantized.h"

#include <cmath>
#include <limits>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "recipes/diagnostic.h"
#include "tests/trainer/ops/compare.h"

namespace temper::trainer {
namespace {

at::Tensor drawn(at::IntArrayRef shape, uint64_t seed = 1) {
  return at::randn(shape, at::detail::createCPUGenerator(seed)) * 0.02;
}

std::string refusal(const at::Tensor& weight, QuantKind kind, bool double_quant = false) {
  try {
    quantize(weight, kind, double_quant, "model.layers.0.mlp.up_proj.weight");
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

bool equal(const QuantizedMatrix& a, const QuantizedMatrix& b) {
  const auto same = [](const at::Tensor& x, const at::Tensor& y) {
    return x.defined() == y.defined() && (!x.defined() || at::equal(x, y));
  };
  return same(a.codes, b.codes) && same(a.absmax, b.absmax) &&
         same(a.absmax_codes, b.absmax_codes) && same(a.nested_absmax, b.nested_absmax) &&
         a.offset == b.offset;
}

TEST(Quantized, CodesOfABlockAreNearestToItsShareOfTheLargest) {
  at::Tensor weight = at::zeros({1, 64});
  weight[0][0] = -4.0f;  // the largest: code 0
  weight[0][1] = 4.0f;   // code 15
  weight[0][2] = 1.0f;   // 0.25 of it, nearest 0.2461: code 10
  const QuantizedMatrix m = quantize(weight, QuantKind::kNf4, false, "w");
  const uint8_t* codes = m.codes.const_data_ptr<uint8_t>();
  EXPECT_EQ(codes[0], 0x0f);
  EXPECT_EQ(codes[1], 0xa7);
  EXPECT_EQ(codes[2], 0x77);
  EXPECT_EQ(m.absmax.item<float>(), 4.0f);
  EXPECT_EQ(m.bytes(), 32 + 4);
  EXPECT_EQ(dequantize(m, at::kFloat)[0][2].item<float>(), 4.0f * 0.24611230194568634f);
}

TEST(Quantized, ValuesWithoutAQuantisedFormAreRefusedByName) {
  for (const auto kind : {QuantKind::kNf4, QuantKind::kFp4, QuantKind::kInt8}) {
    for (const double bad : {static_cast<double>(NAN), HUGE_VAL, -HUGE_VAL}) {
      for (const int64_t at : {0, 63, 64, 6998}) {
        at::Tensor weight = drawn({70, 100});
        weight.view(-1)[at] = bad;
        EXPECT_EQ(refusal(weight, kind),
                  "model.layers.0.mlp.up_proj.weight: holds NaN or infinite values, which have no "
                  "quantised form");
      }
    }
  }
  at::Tensor weight = drawn({2, 64});
  weight[1][3] = 1e6;
  EXPECT_NE(refusal(weight, QuantKind::kInt8).find("above 65504"), std::string::npos);
  EXPECT_EQ(refusal(weight, QuantKind::kNf4), "");
  weight[0][3] = weight[1][3] = std::numeric_limits<float>::max();
  EXPECT_EQ(refusal(weight, QuantKind::kNf4), "");
  EXPECT_NE(refusal(weight, QuantKind::kNf4, true).find("model.double_quant = false"),
            std::string::npos);
}

TEST(Quantized, ARowOfZerosStaysZeroIn8Bits) {
  at::Tensor weight = drawn({3, 20});
  weight[1].zero_();
  const at::Tensor back = dequantize(quantize(weight, QuantKind::kInt8, false, "w"), at::kFloat);
  EXPECT_TRUE(back.isfinite().all().item<bool>());
  EXPECT_EQ(back[1].abs().max().item<float>(), 0.0f);
  EXPECT_LE((back - weight).abs().max().item<double>(), weight.abs().max().item<double>() / 253);
}

TEST(Quantized, ThreadsChangeNoBit) {
  const int before = at::get_num_threads();
  const at::Tensor weight = drawn({2100, 1027});  // more than 32768 blocks
  for (const auto kind : {QuantKind::kNf4, QuantKind::kInt8}) {
    const bool double_quant = kind == QuantKind::kNf4;
    at::set_num_threads(1);
    const QuantizedMatrix one = quantize(weight, kind, double_quant, "w");
    const at::Tensor values = dequantize(one, at::kFloat);
    at::set_num_threads(3);
    EXPECT_TRUE(equal(one, quantize(weight, kind, double_quant, "w")));
    EXPECT_TRUE(at::equal(values, dequantize(one, at::kFloat)));
    EXPECT_EQ(at::get_num_threads(), 3);
  }
  at::set_num_threads(before);
}

TEST(Quantized, RowsMayBeginAnywhereInABlock) {
  for (const int64_t columns : {1, 15, 33, 80, 100, 128}) {
    for (const auto kind : {QuantKind::kNf4, QuantKind::kFp4, QuantKind::kInt8}) {
      const QuantizedMatrix m = quantize(drawn({23, columns}), kind, kind != QuantKind::kInt8, "w");
      const at::Tensor whole = dequantize(m, at::kBFloat16);
      for (const auto& [begin, end] : {std::pair{0, 23}, {1, 2}, {5, 5}, {7, 23}, {22, 23}}) {
        at::Tensor rows = at::full({end - begin, columns}, 7.0, at::kBFloat16);
        dequantize_rows(m, begin, end, rows);
        EXPECT_TRUE(at::equal(rows, whole.slice(0, begin, end))) << columns << " " << begin;
      }
    }
  }
}

class QuantizedProduct : public testing::TestWithParam<std::pair<QuantKind, at::ScalarType>> {};

TEST_P(QuantizedProduct, EqualsTheProductWithDequantisedWeights) {
  const auto [kind, dtype] = GetParam();
  for (const auto& [outputs, columns] :
       {std::pair<int64_t, int64_t>{37, 192}, {9, 100}, {5, 33}, {1, 64}, {130, 512}}) {
    const QuantizedMatrix m =
        quantize(drawn({outputs, columns}), kind, kind != QuantKind::kInt8, "w");
    const at::Tensor weight = dequantize(m, dtype).to(at::kDouble);
    for (const int64_t rows : {1, 2, 3, 4, 7, 8, 9, 16}) {
      const at::Tensor x = drawn({rows, columns}, 7).to(dtype);
      at::Tensor y = at::empty({rows, outputs}, dtype);
      multiply_quantized(y, x, m);
      EXPECT_LE(worst(y, x.to(at::kDouble).mm(weight.t())), tolerance(dtype))
          << outputs << " " << columns << " " << rows;
    }
  }
}

TEST_P(QuantizedProduct, ARowDependsNeitherOnTheOthersNorOnThreads) {
  const auto [kind, dtype] = GetParam();
  const int before = at::get_num_threads();
  for (const int64_t columns : {256, 90}) {
    const QuantizedMatrix m = quantize(drawn({67, columns}), kind, false, "w");
    const at::Tensor x = drawn({16, columns}, 3).to(dtype);
    at::set_num_threads(1);
    at::Tensor all = at::empty({16, 67}, dtype);
    multiply_quantized(all, x, m);
    at::set_num_threads(3);
    for (const int64_t rows : {1, 2, 5, 8}) {
      at::Tensor wide = at::zeros({rows, 80}, dtype);  // rows of y may be apart
      multiply_quantized(wide.narrow(1, 0, 67), x.slice(0, 2, 2 + rows), m);
      EXPECT_TRUE(at::equal(wide.narrow(1, 0, 67), all.slice(0, 2, 2 + rows))) << rows;
      EXPECT_EQ(wide.narrow(1, 67, 13).abs().max().item<float>(), 0.0f);
    }
  }
  at::set_num_threads(before);
}

INSTANTIATE_TEST_SUITE_P(Kinds, QuantizedProduct,
                         testing::Values(std::pair{QuantKind::kNf4, at::kFloat},
                                         std::pair{QuantKind::kNf4, at::kBFloat16},
                                         std::pair{QuantKind::kFp4, at::kBFloat16},
                                         std::pair{QuantKind::kInt8, at::kFloat},
                                         std::pair{QuantKind::kInt8, at::kBFloat16},
                                         std::pair{QuantKind::kNf4, at::kHalf},
                                         std::pair{QuantKind::kInt8, at::kHalf}));

}  // namespace
}  // namespace temper::trainer
