// Every operator on a device against the same operator on the CPU (which tests/trainer/ops holds
// against formulas in double precision): results and gradients, in float32 and bfloat16.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "recipes/diagnostic.h"
#include "tests/gpu/device.h"
#include "tests/trainer/ops/compare.h"
#include "trainer/generation/draws.h"
#include "trainer/models/quantized_files.h"
#include "trainer/ops/attention.h"
#include "trainer/ops/device.h"
#include "trainer/ops/embedding.h"
#include "trainer/ops/float8.h"
#include "trainer/ops/gelu.h"
#include "trainer/ops/gradient.h"
#include "trainer/ops/head_cross_entropy.h"
#include "trainer/ops/head_divergence.h"
#include "trainer/ops/head_scores.h"
#include "trainer/ops/layer_norm.h"
#include "trainer/ops/linear.h"
#include "trainer/ops/paged_attention.h"
#include "trainer/ops/qk_norm.h"
#include "trainer/ops/quantized.h"
#include "trainer/ops/rms_norm.h"
#include "trainer/ops/rope.h"
#include "trainer/ops/scale_features.h"
#include "trainer/ops/swiglu.h"
#include "trainer/ops/token_log_probs.h"
#include "trainer/ops/token_values.h"

namespace temper::trainer {
namespace {

// Results of a computation, and then the gradients of what it was given.
using Tensors = std::vector<at::Tensor>;
using Computation = std::function<at::Tensor(const Tensors& leaves, at::Device device)>;

// The result, then each leaf's gradient, for dy drawn once.
Tensors run(const Computation& compute, const Tensors& values, at::Device device) {
  Tensors leaves, found;
  for (const at::Tensor& value : values)
    leaves.push_back(value.to(device, value.scalar_type(), false, true).requires_grad_(true));
  const at::Tensor y = compute(leaves, device);
  found.push_back(y.detach().cpu());
  at::manual_seed(5);
  if (y.dim() == 0) {
    y.backward(at::full_like(y, LossGradient::value()));
  } else {
    (y * at::randn(y.sizes()).to(y.options())).sum().backward();
  }
  for (const at::Tensor& leaf : leaves)
    found.push_back(leaf.grad().defined() ? leaf.grad().cpu() : at::zeros_like(leaf).cpu());
  return found;
}

class Operators : public testing::TestWithParam<at::ScalarType> {
 protected:
  void SetUp() override {
    TEMPER_NEEDS_DEVICE();
    at::manual_seed(3);
  }

  void expect_same(const Computation& compute, const Tensors& values, const std::string& what) {
    const Tensors expected = run(compute, values, at::kCPU);
    const OnDevice here;
    const Tensors found = run(compute, values, test_device());
    for (size_t i = 0; i < found.size(); ++i)
      EXPECT_LT(worst(found[i], expected[i]), 4 * tolerance(dtype)) << what << ", tensor " << i;
  }

  at::Tensor drawn(at::IntArrayRef shape) const { return at::randn(shape).to(dtype); }

  at::ScalarType dtype = GetParam();
};

TEST_P(Operators, RmsNormWithItsResidual) {
  for (const int64_t dim : {7, 64, 96, 1152, 2080}) {
    expect_same(
        [](const Tensors& in, at::Device) {
          const auto [residual, y] = rms_norm(in[0], in[1], 1e-5);
          return at::cat({residual, y}, 1);
        },
        {drawn({37, dim}), drawn({dim})}, "dim " + std::to_string(dim));
  }
}

// More vectors than one pass of the backward's blocks takes.
TEST_P(Operators, RmsNormOfManyRows) {
  expect_same([](const Tensors& in, at::Device) { return rms_norm(in[0], in[1], 1e-5).second; },
              {drawn({2100, 16}), drawn({16})}, "many rows");
}

TEST_P(Operators, LayerNormWithItsResidual) {
  for (const int64_t dim : {7, 64, 768, 1152, 2080}) {
    expect_same(
        [](const Tensors& in, at::Device) {
          const auto [residual, y] = layer_norm(in[0], in[1], in[2], 1e-5);
          return at::cat({residual, y}, 1);
        },
        {drawn({37, dim}) + 3, drawn({dim}), drawn({dim})}, "dim " + std::to_string(dim));
  }
}

TEST_P(Operators, LayerNormOfManyRows) {
  expect_same(
      [](const Tensors& in, at::Device) { return layer_norm(in[0], in[1], in[2], 1e-5).second; },
      {drawn({2100, 16}), drawn({16}), drawn({16})}, "many rows");
}

TEST_P(Operators, QueryAndKeyNorm) {
  for (const int64_t dim : {6, 32}) {
    expect_same(
        [](const Tensors& in, at::Device) { return qk_norm(in[0], in[1], in[2], 4, 2, 1e-6); },
        {drawn({19, 8 * dim}), drawn({dim}), drawn({dim})}, "dim " + std::to_string(dim));
  }
}

TEST_P(Operators, RotaryEmbedding) {
  for (const int64_t dim : {6, 32}) {
    const at::Tensor angles = at::randn({11, dim / 2});
    expect_same(
        [&](const Tensors& in, at::Device device) {
          return rope(in[0] * 1, {angles.cos().to(device), angles.sin().to(device)}, 3, dim) * 1;
        },
        {drawn({11, 4 * dim})}, "dim " + std::to_string(dim));
  }
}

TEST_P(Operators, Swiglu) {
  for (const int64_t dim : {5, 48, 2064}) {
    expect_same([](const Tensors& in, at::Device) { return swiglu(in[0]); }, {drawn({9, 2 * dim})},
                "dim " + std::to_string(dim));
  }
}

TEST_P(Operators, GeluInBothForms) {
  for (const Gelu form : {Gelu::kErf, Gelu::kTanh}) {
    for (const int64_t dim : {5, 48, 2064}) {
      expect_same([form](const Tensors& in, at::Device) { return gelu(in[0], form); },
                  {drawn({9, dim}) * 3}, "dim " + std::to_string(dim));
    }
  }
}

TEST_P(Operators, ScaledFeatures) {
  expect_same([](const Tensors& in, at::Device) { return scale_features(in[0], in[1]); },
              {drawn({9, 24}), drawn({24})}, "scale");
}

TEST_P(Operators, EmbeddingWithRepeatedTokens) {
  const at::Tensor ids = at::randint(11, {40}, at::kLong);
  expect_same(
      [&](const Tensors& in, at::Device device) {
        return embed(ids.to(device), {.weight = in[0], .rows = {}, .low_rank = {}});
      },
      {drawn({11, 12})}, "embedding");
}

// Documents of unequal lengths; a window; branches that share a prefix.
struct Shape {
  AttentionHeads heads;
  std::vector<int32_t> ends, prefixes;
};

TEST_P(Operators, AttentionWithinDocuments) {
  const std::vector<Shape> shapes = {
      {{4, 2, 16, 0}, {0, 1, 35, 50}, {}},
      {{2, 2, 40, 0}, {0, 33, 33, 40}, {}},
      {{6, 2, 8, 5}, {0, 37, 44}, {}},
      {{4, 2, 16, 0}, {0, 27, 36, 42, 45}, {-1, 0, 0, -1}},
      {{4, 1, 16, 9}, {0, 12, 37, 40, 50}, {-1, 0, -1, 0}},
  };
  for (size_t i = 0; i < shapes.size(); ++i) {
    const Shape& s = shapes[i];
    const DocumentLayout layout{
        at::tensor(s.ends, at::kInt),
        s.prefixes.empty() ? at::Tensor() : at::tensor(s.prefixes, at::kInt)};
    const int64_t width = (s.heads.heads + 2 * s.heads.kv_heads) * s.heads.head_dim;
    expect_same([&](const Tensors& in, at::Device) { return attention(in[0], layout, s.heads); },
                {drawn({s.ends.back(), width})}, "shape " + std::to_string(i));
  }
}

// Sequences that end anywhere in a page get a token more, one of them three; of the largest head
// sizes, with and without packs, in windows, and with more heads of a key than a block has warps.
// What no token has written is NaN.
TEST_P(Operators, AttentionInPages) {
  const std::vector<AttentionHeads> all = {
      {4, 2, 16, 0},  {2, 2, 64, 0},   {3, 1, 64, 20}, {5, 1, 80, 0},
      {4, 1, 128, 0}, {2, 1, 128, 33}, {4, 2, 200, 0}, {2, 1, 256, 17},
      {2, 1, 18, 0},  {2, 2, 20, 5},   {4, 2, 99, 0},  {18, 2, 8, 0},
  };
  const std::vector<int64_t> lengths = {37, 0, 15, 16, 150};
  const int64_t kPages = 3 + 1 + 1 + 2 + 10;
  for (const AttentionHeads& heads : all) {
    const int64_t width = (heads.heads + 2 * heads.kv_heads) * heads.head_dim;
    const at::Tensor qkv = drawn({150, width}), next = drawn({7, width});
    const auto decode = [&](at::Device device) {
      const PageShape shape{
          .layers = 2, .kv_heads = heads.kv_heads, .head_dim = heads.head_dim, .dtype = dtype};
      const at::Tensor memory =
          at::full({kPages, shape.bytes()}, 0xff, at::TensorOptions(device).dtype(at::kByte));
      std::vector<char*> pages;
      for (int64_t p = kPages; p-- > 0;) pages.push_back(static_cast<char*>(memory[p].data_ptr()));
      std::span<char* const> left(pages);
      std::vector<PagedRun> runs;
      for (const int64_t length : lengths) {
        const int64_t more = length == 150 ? 3 : 1;
        const auto count = static_cast<size_t>((length + more + kPageTokens - 1) / kPageTokens);
        runs.push_back({left.first(count), length, more});
        left = left.subspan(count);
        if (length == 0) continue;
        const PagedRun before[] = {{runs.back().pages, 0, length}};
        store_in_pages(qkv.narrow(0, 0, length).to(device), page_table(before, device), shape, 1);
      }
      const at::Tensor table = page_table(runs, device);
      store_in_pages(next.to(device), table, shape, 1);
      return attention_in_pages(next.to(device), table, shape, 1, heads).cpu();
    };
    const at::Tensor expected = decode(at::kCPU);
    const OnDevice here;
    EXPECT_LT(worst(decode(test_device()), expected), 4 * tolerance(dtype))
        << heads.heads << " heads of " << heads.head_dim;
  }
}

TEST_P(Operators, HeadAndCrossEntropy) {
  for (const int64_t vocabulary : {30, 1031}) {
    at::Tensor labels = at::randint(vocabulary, {5, 7}, at::kLong);
    labels[0].fill_(-100);
    for (const TokenLoss kind : {TokenLoss::kNll, TokenLoss::kDft}) {
      const LossGradient scaled(kind == TokenLoss::kNll ? 1 : 8);
      HeadLoss loss;
      const auto compute = [&](const Tensors& in, at::Device) {
        loss = head_cross_entropy(in[0], {.weight = in[1]}, labels, kind);
        return loss.sum;
      };
      const Tensors values = {drawn({5, 7, 16}), drawn({vocabulary, 16})};
      run(compute, values, at::kCPU);
      const HeadLoss expected = loss;
      expect_same(compute, values, "vocabulary " + std::to_string(vocabulary));
      EXPECT_EQ(loss.correct, expected.correct);
      EXPECT_NEAR(loss.entropy, expected.entropy, 1e-3 * expected.entropy);
    }
  }
}

TEST_P(Operators, TokenLogProbabilitiesAndEntropy) {
  const at::Tensor positions = at::tensor({0, 3, 3, 8, 9}, at::kLong);
  const at::Tensor labels = at::tensor({1, 2, 3, 4, 99}, at::kLong);
  const LogProbOptions options{
      .temperature = 0.7, .entropy_gradient = true, .sum_of_squares = true};
  expect_same(
      [&](const Tensors& in, at::Device) {
        const TokenLogProbs found =
            token_log_probs(in[0], {.weight = in[1]}, positions, labels, options);
        return at::cat({found.log_probs, found.entropy, found.mean_logits, found.correct,
                        found.log_sum_squares});
      },
      {drawn({10, 16}), drawn({100, 16})}, "log probabilities");
}

TEST_P(Operators, HeadAndDivergence) {
  const at::Tensor positions = at::tensor({0, 3, 4, 8, 9}, at::kLong);
  const at::Tensor labels = at::tensor({1, 2, 3, 4, 99}, at::kLong);
  const at::Tensor teacher = drawn({10, 24}), teacher_weight = drawn({100, 24});
  for (const double beta : {0.0, 0.3, 1.0}) {
    const LossGradient scaled(beta == 0 ? 1 : 8);
    HeadDivergence divergence;
    const auto compute = [&](const Tensors& in, at::Device device) {
      divergence = head_divergence(in[0], {.weight = in[1]}, teacher.to(device),
                                   {.weight = teacher_weight.to(device)}, positions, labels,
                                   {.beta = beta, .temperature = 0.7});
      return divergence.sum;
    };
    const Tensors values = {drawn({10, 16}), drawn({100, 16})};
    run(compute, values, at::kCPU);
    const HeadDivergence expected = divergence;
    expect_same(compute, values, "beta " + std::to_string(beta));
    EXPECT_EQ(divergence.correct, expected.correct);
    EXPECT_NEAR(divergence.entropy, expected.entropy, 1e-3 * expected.entropy);
  }
}

TEST_P(Operators, ScoresAndValues) {
  const at::Tensor positions = at::tensor({0, 3, 8}, at::kLong);
  expect_same([&](const Tensors& in,
                  at::Device) { return head_scores(in[0], {.weight = in[1]}, positions); },
              {drawn({10, 16}), drawn({3, 16})}, "scores");
}

TEST_P(Operators, ValuesOfTokens) {
  const at::Tensor positions = at::tensor({0, 3, 3}, at::kLong);
  expect_same(
      [&](const Tensors& in, at::Device device) {
        const at::Tensor weight = at::linspace(-1, 1, 16).view({1, 16}).to(device);
        return token_values(in[0], weight.requires_grad_(true),
                            at::ones({1}).to(device).requires_grad_(true), positions);
      },
      {drawn({10, 16})}, "values");
}

// Two parts, the second with LoRA, and a residual.
TEST_P(Operators, LinearWithLowRankAndBias) {
  for (const double dropout : {0.0, 0.25}) {
    auto context = std::make_shared<AdapterContext>();
    context->training = true;
    context->seed = 11;
    expect_same(
        [&](const Tensors& in, at::Device) {
          Projection p;
          p.weight = in[1].detach();
          p.rows = {12, 20};
          p.weights = {in[1]};
          p.bias = in[2].detach();
          p.biases = {in[2].detach().narrow(0, 0, 12), in[2].detach().narrow(0, 12, 20)};
          auto lora = std::make_shared<LowRank>();
          lora->a = in[3].detach();
          lora->parts = {
              {.part = 1, .module = "m", .a = in[3], .b = in[4], .bias = {}, .scale = 2}};
          lora->dropout = dropout;
          lora->context = context;
          p.low_rank = lora;
          return linear(in[0], p, in[5]);
        },
        {drawn({9, 16}), drawn({32, 16}), drawn({32}), drawn({4, 16}), drawn({20, 4}),
         drawn({9, 32})},
        "dropout " + std::to_string(dropout));
  }
}

INSTANTIATE_TEST_SUITE_P(Types, Operators, testing::Values(at::kFloat, at::kBFloat16, at::kHalf));

// train.float8 is refused with fp16.
class Float8Operators : public Operators {};

// Sizes within and across tiles, with and without packs of elements, and rows that are apart.
TEST_P(Float8Operators, CastsToFloat8HaveTheCpusBits) {
  struct Size {
    int64_t rows, columns, first;
  };
  for (const Size& s : {Size{1, 1, 0}, Size{70, 16, 0}, Size{37, 272, 16}, Size{131, 50, 3},
                        Size{64, 128, 0}}) {
    at::Tensor all = drawn({s.rows, s.first + s.columns + 5});
    all[0].mul_(1e-3);
    if (s.rows > 8) all.narrow(0, 3, 1).zero_();
    if (s.rows > 8) all[5][s.first + 1] = std::nan("");
    for (const auto role : {Float8Role::kValue, Float8Role::kGradient}) {
      for (const auto scaling : {Float8Scaling::kTensorwise, Float8Scaling::kRowwise}) {
        for (const bool transposed : {false, true}) {
          const auto cast = [&](at::Device device) {
            const at::Tensor matrix = all.to(device).narrow(1, s.first, s.columns);
            return to_float8(transposed ? matrix.t() : matrix, role, scaling);
          };
          const Float8Matrix expected = cast(at::kCPU);
          const OnDevice here;
          const Float8Matrix found = cast(test_device());
          EXPECT_EQ(found.codes.scalar_type(), expected.codes.scalar_type());
          // The sign of a NaN is anything.
          const at::Tensor number = expected.codes.to(at::kFloat).isfinite();
          EXPECT_TRUE(number.equal(found.codes.cpu().to(at::kFloat).isfinite()));
          EXPECT_TRUE((found.codes.view(at::kByte).cpu() * number)
                          .equal(expected.codes.view(at::kByte) * number))
              << s.rows << " x " << s.columns << (transposed ? ", transposed" : "");
          EXPECT_TRUE(at::equal(found.inverse_scales.cpu().nan_to_num(),
                                expected.inverse_scales.nan_to_num()));
        }
      }
    }
  }
}

// Two parts, the second with LoRA; another one that does not fit.
TEST_P(Float8Operators, LinearInFloat8) {
  if (test_device().is_cuda() && compute_capability(test_device()) < 89) {
    return;  // it has no float8 products
  }
  for (const auto scaling : {Float8Scaling::kTensorwise, Float8Scaling::kRowwise}) {
    auto context = std::make_shared<AdapterContext>();
    const auto compute = [&](const Tensors& in, at::Device) {
      Projection p;
      p.weights = {in[4], in[5], in[6]};
      p.weight = at::cat(p.weights).detach();
      p.rows = {32, 16, 24};
      p.float8 = scaling;
      auto lora = std::make_shared<LowRank>();
      lora->a = in[1].detach();
      lora->parts = {{.part = 1, .module = "m", .a = in[1], .b = in[2], .bias = {}, .scale = 2}};
      lora->context = context;
      p.low_rank = lora;
      return linear(in[0], p, in[3]);
    };
    const Tensors values = {drawn({41, 48}), drawn({4, 48}),  drawn({16, 4}), drawn({41, 72}),
                            drawn({32, 48}), drawn({16, 48}), drawn({24, 48})};
    const Tensors expected = run(compute, values, at::kCPU);
    const OnDevice here;
    const Tensors found = run(compute, values, test_device());
    for (size_t i = 0; i < found.size(); ++i) {
      // By row CUDA rounds to bfloat16 first, and forward's sums are its fast ones.
      EXPECT_LT(worst(found[i], expected[i]), 4 * tolerance(at::kBFloat16)) << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, Float8Operators, testing::Values(at::kFloat, at::kBFloat16));

TEST(DeviceQuantized, DequantisesToTheCpusBitsAndMultiplies) {
  TEMPER_NEEDS_DEVICE();
  at::manual_seed(3);
  for (const QuantKind kind : {QuantKind::kNf4, QuantKind::kFp4, QuantKind::kInt8}) {
    for (const bool twice : {false, true}) {
      if (twice && kind == QuantKind::kInt8) continue;
      const QuantizedMatrix m = quantize(at::randn({37, 90}) * 0.02, kind, twice, "weight");
      const at::Tensor x = at::randn({13, 90}).to(at::kBFloat16);
      at::Tensor expected = at::empty({13, 37}, at::kBFloat16);
      multiply_quantized(expected, x, m);
      const at::Tensor wide = dequantize(m, at::kFloat), narrow = dequantize(m, at::kBFloat16);
      const OnDevice here;
      const QuantizedMatrix there = on_device(m, test_device());
      EXPECT_TRUE(dequantize(there, at::kFloat).cpu().equal(wide));
      EXPECT_TRUE(dequantize(there, at::kBFloat16).cpu().equal(narrow));
      at::Tensor y = at::empty({13, 37}, x.options().device(test_device()));
      multiply_quantized(y, x.to(test_device()), there);
      EXPECT_LT(worst(y.cpu(), expected), 2 * tolerance(at::kBFloat16));
    }
  }
}

// Rows whose logits are all different, equal in part or all alike, and rows that leave out tokens.
at::Tensor rows_to_draw_from(int64_t vocabulary) {
  const at::Tensor all = at::randn({5, vocabulary}) * 3;
  all[1].round_();
  all[2].fill_(0.25);
  all[3].masked_fill_(at::rand({vocabulary}) < 0.7, -std::numeric_limits<double>::infinity());
  all[3][vocabulary / 2] = 1;
  all[4].mul_(100);
  return all;
}

// Two draws of each row, then two more of sequences that have got the first two.
std::vector<Choice> draw_from(const at::Tensor& logits, const SamplingSettings& settings) {
  const int64_t vocabulary = logits.size(1);
  std::vector<SeenTokens> seen(static_cast<size_t>(2 * logits.size(0)));
  std::vector<Choice> all;
  for (int64_t index = 0; index < 2; ++index) {
    std::vector<Draw> draws;
    for (size_t i = 0; i < seen.size(); ++i) {
      const auto sample = static_cast<int64_t>(i);
      if (index == 0) {
        seen[i].ids = {0, static_cast<int32_t>(sample % vocabulary), 0,
                       static_cast<int32_t>(vocabulary + 3)};
      } else {
        seen[i].ids.push_back(all[i].id);
      }
      draws.push_back(
          {.row = sample / 2, .seed = 7, .sample = sample, .index = index, .seen = &seen[i]});
    }
    const std::vector<Choice> some = choose(logits, draws, settings);
    all.insert(all.end(), some.begin(), some.end());
  }
  return all;
}

void expect_same_draws(const at::Tensor& logits, const SamplingSettings& settings,
                       const std::string& what) {
  const std::vector<Choice> expected = draw_from(logits, settings);
  const OnDevice here;
  const std::vector<Choice> found = draw_from(logits.to(test_device()), settings);
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i].id, expected[i].id) << what << ", draw " << i;
    const auto close = [](float x) { return 2e-6 * std::max(1.0f, std::abs(x)); };
    EXPECT_NEAR(found[i].log_prob, expected[i].log_prob, close(expected[i].log_prob))
        << what << ", draw " << i;
    EXPECT_NEAR(found[i].drawn_log_prob, expected[i].drawn_log_prob,
                close(expected[i].drawn_log_prob))
        << what << ", draw " << i;
  }
}

TEST(DeviceSampling, DrawsTheCpusTokens) {
  TEMPER_NEEDS_DEVICE();
  at::manual_seed(3);
  const std::vector<SamplingSettings> all = {
      {},
      {.repetition_penalty = 1.7},
      {.temperature = 1},
      {.temperature = 0.7},
      {.temperature = 1e4},
      {.temperature = 1e-2},
      {.temperature = 1, .top_k = 1},
      {.temperature = 1, .top_k = 5},
      {.temperature = 1, .top_k = 5000},
      {.temperature = 1, .top_p = 0.9},
      {.temperature = 1, .top_p = 0.5},
      {.temperature = 1, .top_p = 1e-6},
      {.temperature = 1, .min_p = 0.05},
      {.temperature = 1, .min_p = 1},
      {.temperature = 1, .repetition_penalty = 0.6},
      {.temperature = 0.8, .top_p = 0.95, .top_k = 20, .min_p = 0.02, .repetition_penalty = 1.2},
  };
  for (const int64_t vocabulary : {1, 30, 1031, 2304}) {
    const at::Tensor logits = rows_to_draw_from(vocabulary);
    for (size_t i = 0; i < all.size(); ++i) {
      expect_same_draws(logits, all[i],
                        "settings " + std::to_string(i) + " of " + std::to_string(vocabulary));
    }
  }
}

// Powers of two: no sum is rounded, and what is cut off lies exactly between equal ones.
TEST(DeviceSampling, CutsBetweenEqualsWhereTheCpuDoes) {
  TEMPER_NEEDS_DEVICE();
  const at::Tensor logits = at::zeros({1, 512});
  for (const double top_p : {0.25, 0.5 + 1.0 / 512, 0.75, 1.0 / 512}) {
    expect_same_draws(logits, {.temperature = 1, .top_p = top_p}, std::to_string(top_p));
  }
  expect_same_draws(logits, {.temperature = 1, .top_k = 3}, "as likely as the third");
}

TEST(DeviceSampling, DrawsFromALargeVocabulary) {
  TEMPER_NEEDS_DEVICE();
  at::manual_seed(3);
  for (const int64_t vocabulary : {128256, 262145}) {
    const at::Tensor logits = at::randn({1, vocabulary}) * 2;
    expect_same_draws(logits, {.temperature = 1}, "all");
    expect_same_draws(logits, {.temperature = 1, .top_p = 0.9, .top_k = 1000}, "some");
  }
}

TEST(DeviceSampling, LogitsThatAreNotFiniteAreFound) {
  TEMPER_NEEDS_DEVICE();
  const double infinity = std::numeric_limits<double>::infinity();
  for (const double value : {std::nan(""), infinity}) {
    for (const double temperature : {0.0, 1.0}) {
      const at::Tensor logits = at::zeros({1, 300}).to(test_device());
      logits[0][299].fill_(value);
      const OnDevice here;
      EXPECT_THROW(draw_from(logits, {.temperature = temperature}), RunError) << value;
    }
  }
  const at::Tensor none = at::full({1, 300}, -infinity).to(test_device());
  const OnDevice here;
  EXPECT_THROW(draw_from(none, {.temperature = 1}), RunError);
}

}  // namespace
}  // namespace temper::trainer
