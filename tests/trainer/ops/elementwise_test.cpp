// RMSNorm, LayerNorm, SwiGLU, GELU, rotary embedding, query/key norm and embedding against the same formulas in
// double precision, with LibTorch's own derivatives.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/trainer/ops/compare.h"
#include "trainer/ops/embedding.h"
#include "trainer/ops/gelu.h"
#include "trainer/ops/layer_norm.h"
#include "trainer/ops/qk_norm.h"
#include "trainer/ops/rms_norm.h"
#include "trainer/ops/rope.h"
#include "trainer/ops/swiglu.h"

namespace temper::trainer {
namespace {

constexpr double kEps = 1e-5;

at::Tensor slow_rms_norm(const at::Tensor& x, const at::Tensor& weight) {
  return x * (x.pow(2).mean(-1, true) + kEps).rsqrt() * weight;
}

at::Tensor slow_rope(const at::Tensor& x, const RopeAngles& angles, int64_t heads, int64_t dim) {
  const int64_t half = angles.cos.size(1);
  const at::Tensor turned = x.narrow(1, 0, heads * dim).view({x.size(0), heads, dim});
  const at::Tensor cos = angles.cos.to(at::kDouble).unsqueeze(1),
                   sin = angles.sin.to(at::kDouble).unsqueeze(1);
  const at::Tensor a = turned.narrow(2, 0, half), b = turned.narrow(2, half, half);
  const at::Tensor both =
      at::cat({a * cos - b * sin, b * cos + a * sin}, 2).view({x.size(0), heads * dim});
  return at::cat({both, x.narrow(1, heads * dim, x.size(1) - heads * dim)}, 1);
}

class Elementwise : public testing::TestWithParam<at::ScalarType> {
 protected:
  void SetUp() override { at::manual_seed(3); }
  at::ScalarType dtype = GetParam();
};

TEST_P(Elementwise, RmsNormAndItsGradientsEqualTheFormula) {
  for (const int64_t dim : {7, 32, 100}) {
    const at::Tensor x = leaf(at::randn({130, dim}), dtype),
                     weight = leaf(at::rand({dim}) + 0.5, dtype);
    const at::Tensor dy = at::randn({130, dim}).to(dtype),
                     dresidual = at::randn({130, dim}).to(dtype);
    const at::Tensor slow_x = exact(x), slow_weight = exact(weight);
    const auto [residual, y] = rms_norm(x, weight, kEps);
    const at::Tensor slow_y = slow_rms_norm(slow_x, slow_weight);
    EXPECT_TRUE(residual.equal(x));
    EXPECT_LT(worst(y, slow_y), tolerance(dtype)) << dim;
    EXPECT_TRUE(rms_norm_again(x, weight, kEps).equal(y));
    (y * dy + residual * dresidual).sum().backward();
    (slow_y * dy.to(at::kDouble) + slow_x * dresidual.to(at::kDouble)).sum().backward();
    EXPECT_LT(worst(x.grad(), slow_x.grad()), tolerance(dtype)) << dim;
    EXPECT_LT(worst(weight.grad(), slow_weight.grad()), tolerance(dtype)) << dim;
    EXPECT_EQ(weight.grad().scalar_type(), at::kFloat);
  }
}

// Rows whose mean is far from zero: one pass over squares would lose them.
TEST_P(Elementwise, LayerNormAndItsGradientsEqualTheFormula) {
  for (const int64_t dim : {7, 32, 100}) {
    const at::Tensor x = leaf(at::randn({130, dim}) + 30, dtype),
                     weight = leaf(at::rand({dim}) + 0.5, dtype),
                     bias = leaf(at::randn({dim}), dtype);
    const at::Tensor dy = at::randn({130, dim}).to(dtype),
                     dresidual = at::randn({130, dim}).to(dtype);
    const at::Tensor slow_x = exact(x), slow_weight = exact(weight), slow_bias = exact(bias);
    const auto [residual, y] = layer_norm(x, weight, bias, kEps);
    const at::Tensor slow_y = at::layer_norm(slow_x, {dim}, slow_weight, slow_bias, kEps);
    EXPECT_TRUE(residual.equal(x));
    EXPECT_LT(worst(y, slow_y), tolerance(dtype)) << dim;
    EXPECT_TRUE(layer_norm_again(x, weight, bias, kEps).equal(y));
    (y * dy + residual * dresidual).sum().backward();
    (slow_y * dy.to(at::kDouble) + slow_x * dresidual.to(at::kDouble)).sum().backward();
    EXPECT_LT(worst(x.grad(), slow_x.grad()), tolerance(dtype)) << dim;
    EXPECT_LT(worst(weight.grad(), slow_weight.grad()), tolerance(dtype)) << dim;
    EXPECT_LT(worst(bias.grad(), slow_bias.grad()), tolerance(dtype)) << dim;
    EXPECT_EQ(bias.grad().scalar_type(), at::kFloat);
  }
}

TEST_P(Elementwise, GeluAndItsGradientEqualTheFormula) {
  for (const Gelu form : {Gelu::kErf, Gelu::kTanh}) {
    for (const int64_t dim : {5, 48}) {
      const at::Tensor x = leaf(at::randn({33, dim}) * 3, dtype),
                       dy = at::randn({33, dim}).to(dtype);
      const at::Tensor slow = exact(x);
      const at::Tensor y = gelu(x, form);
      const at::Tensor slow_y = at::gelu(slow, form == Gelu::kTanh ? "tanh" : "none");
      EXPECT_LT(worst(y, slow_y), tolerance(dtype));
      EXPECT_TRUE(gelu_again(x, form).equal(y));
      y.backward(dy);
      slow_y.backward(dy.to(at::kDouble));
      EXPECT_LT(worst(x.grad(), slow.grad()), tolerance(dtype));
    }
    const at::Tensor far = leaf(at::tensor({-200.0, 200.0}), dtype);
    const at::Tensor y = gelu(far, form);
    y.sum().backward();
    EXPECT_NEAR(y[0].item<float>(), 0.0f, 1e-30f);
    EXPECT_EQ(y[1].item<float>(), 200.0f);
    EXPECT_NEAR(far.grad()[0].item<float>(), 0.0f, 1e-30f);
    EXPECT_EQ(far.grad()[1].item<float>(), 1.0f);
  }
}

TEST_P(Elementwise, SwigluAndItsGradientEqualTheFormula) {
  for (const int64_t dim : {5, 48}) {
    const at::Tensor gate_up = leaf(at::randn({33, 2 * dim}) * 3, dtype),
                     dy = at::randn({33, dim}).to(dtype);
    const at::Tensor slow = exact(gate_up);
    const at::Tensor y = swiglu(gate_up);
    const at::Tensor slow_y = at::silu(slow.narrow(1, 0, dim)) * slow.narrow(1, dim, dim);
    EXPECT_LT(worst(y, slow_y), tolerance(dtype));
    y.backward(dy);
    slow_y.backward(dy.to(at::kDouble));
    EXPECT_LT(worst(gate_up.grad(), slow.grad()), tolerance(dtype));
  }
}

TEST_P(Elementwise, SwigluOfLargeGatesIsFiniteAndSaturates) {
  const at::Tensor gate_up = at::tensor({-200.0, 200.0, 1.0, 1.0}).view({1, 4}).to(dtype);
  const at::Tensor y = swiglu(gate_up).to(at::kFloat);
  EXPECT_NEAR(y[0][0].item<float>(), 0.0f, 1e-30f);
  EXPECT_EQ(y[0][1].item<float>(), 200.0f);
}

TEST_P(Elementwise, RopeTurnsQueriesAndKeysAndLeavesValuesAlone) {
  constexpr int64_t kHeads = 3, kDim = 10;
  const at::Tensor angle = at::randn({20, kDim / 2}) * 5;
  const RopeAngles angles{.cos = angle.cos(), .sin = angle.sin()};
  const at::Tensor x = leaf(at::randn({20, (kHeads + 1) * kDim}), dtype),
                   dy = at::randn({20, (kHeads + 1) * kDim}).to(dtype);
  const at::Tensor slow = exact(x);
  const at::Tensor y = rope(x.clone(), angles, kHeads, kDim),
                   slow_y = slow_rope(slow, angles, kHeads, kDim);
  EXPECT_LT(worst(y, slow_y), tolerance(dtype));
  EXPECT_TRUE(y.narrow(1, kHeads * kDim, kDim).equal(x.narrow(1, kHeads * kDim, kDim)));
  y.backward(dy.clone());
  slow_y.backward(dy.to(at::kDouble));
  EXPECT_LT(worst(x.grad(), slow.grad()), tolerance(dtype));
}

TEST_P(Elementwise, QkNormNormsEachHeadOfQueriesAndKeys) {
  constexpr int64_t kQueries = 4, kKeys = 2, kDim = 12, kRows = 70;
  const at::Tensor x = leaf(at::randn({kRows, (kQueries + 2 * kKeys) * kDim}), dtype),
                   dy = at::randn(x.sizes()).to(dtype);
  const at::Tensor q = leaf(at::rand({kDim}) + 0.5, dtype), k = leaf(at::rand({kDim}) + 0.5, dtype);
  const at::Tensor slow_x = exact(x), slow_q = exact(q), slow_k = exact(k);
  const at::Tensor y = qk_norm(x, q, k, kQueries, kKeys, kEps);
  const at::Tensor heads = slow_x.view({kRows, kQueries + 2 * kKeys, kDim});
  const at::Tensor slow_y = at::cat({slow_rms_norm(heads.narrow(1, 0, kQueries), slow_q),
                                     slow_rms_norm(heads.narrow(1, kQueries, kKeys), slow_k),
                                     heads.narrow(1, kQueries + kKeys, kKeys)},
                                    1)
                                .view(x.sizes());
  EXPECT_LT(worst(y, slow_y), tolerance(dtype));
  y.backward(dy);
  slow_y.backward(dy.to(at::kDouble));
  EXPECT_LT(worst(x.grad(), slow_x.grad()), tolerance(dtype));
  EXPECT_LT(worst(q.grad(), slow_q.grad()), tolerance(dtype));
  EXPECT_LT(worst(k.grad(), slow_k.grad()), tolerance(dtype));
}

TEST_P(Elementwise, EmbeddingGradientsAddUpOnTopOfWhatIsThere) {
  const at::Tensor weight = leaf(at::randn({6, 20}), dtype);
  weight.mutable_grad() = at::ones({6, 20});
  const at::Tensor ids = at::tensor({1, 5, 1, 1}, at::kLong);
  const at::Tensor y = embed(ids, {.weight = weight, .rows = {}, .low_rank = {}});
  EXPECT_TRUE(y.equal(weight.index_select(0, ids)));
  y.backward(at::full({4, 20}, 0.5, dtype));
  EXPECT_TRUE(weight.grad().select(0, 1).eq(2.5).all().item<bool>());
  EXPECT_TRUE(weight.grad().select(0, 5).eq(1.5).all().item<bool>());
  EXPECT_TRUE(weight.grad().select(0, 0).eq(1.0).all().item<bool>());
}

INSTANTIATE_TEST_SUITE_P(Types, Elementwise, testing::Values(at::kFloat, at::kBFloat16, at::kHalf),
                         [](const auto& parameter) {
                           return parameter.param == at::kFloat  ? "fp32"
                                  : parameter.param == at::kHalf ? "fp16"
                                                                 : "bf16";
                         });

}  // namespace
}  // namespace temper::trainer
