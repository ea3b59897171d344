// Every operator on a device against the same operator on the CPU (which tests/trainer/ops holds
// against formulas in double precision): results and gradients, in float32 and bfloat16.
#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/gpu/device.h"
#include "tests/trainer/ops/compare.h"
#include "trainer/ops/attention.h"
#include "trainer/ops/device.h"
#include "trainer/ops/embedding.h"
#include "trainer/ops/float8.h"
#include "trainer/ops/gelu.h"
#include "trainer/ops/gradient.h"
#include "trainer/ops/head_cross_entropy.h"
#include "trainer/ops/head_divergence.h"
#include "trainer/ops/head_products.h"
#include "trainer/ops/head_scores.h"
#include "trainer/ops/layer_norm.h"
#include "trainer/ops/linear.h"
#include "trainer/ops/low_rank.h"
#include "trainer/ops/paged_attention.h"
#include "trainer/ops/qk_norm.h"
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

// With and without packs; a warp, a block; as few registers as hold them, and more than there are.
constexpr int64_t kNormSizes[] = {7, 64, 96, 400, 768, 1031, 1152, 2080, 4104, 8200};
// More of them than one pass of the backward's blocks takes.
constexpr std::array<int64_t, 2> kManyVectors[] = {{2100, 7}, {8300, 16}, {600, 1032}};

TEST_P(Operators, RmsNormWithItsResidual) {
  for (const int64_t dim : kNormSizes) {
    expect_same(
        [](const Tensors& in, at::Device) {
          const auto [residual, y] = rms_norm(in[0], in[1], 1e-5);
          return at::cat({residual, y}, 1);
        },
        {drawn({37, dim}), drawn({dim})}, "dim " + std::to_string(dim));
  }
}

TEST_P(Operators, RmsNormOfManyRows) {
  for (const auto& [rows, dim] : kManyVectors) {
    expect_same([](const Tensors& in, at::Device) { return rms_norm(in[0], in[1], 1e-5).second; },
                {drawn({rows, dim}), drawn({dim})}, "dim " + std::to_string(dim));
  }
}

TEST_P(Operators, LayerNormWithItsResidual) {
  for (const int64_t dim : kNormSizes) {
    expect_same(
        [](const Tensors& in, at::Device) {
          const auto [residual, y] = layer_norm(in[0], in[1], in[2], 1e-5);
          return at::cat({residual, y}, 1);
        },
        {drawn({37, dim}) + 3, drawn({dim}), drawn({dim})}, "dim " + std::to_string(dim));
  }
}

TEST_P(Operators, LayerNormOfManyRows) {
  for (const auto& [rows, dim] : kManyVectors) {
    expect_same(
        [](const Tensors& in, at::Device) { return layer_norm(in[0], in[1], in[2], 1e-5).second; },
        {drawn({rows, dim}), drawn({dim}), drawn({dim})}, "dim " + std::to_string(dim));
  }
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

// Where exp() overflows and shares are 0 or 1.
TEST_P(Operators, SwigluAndGeluFarFromZero) {
  const at::Tensor far =
      at::tensor({-1e4, -100.0, -89.0, -88.0, -87.5, -9.0, 9.0, 88.0, 100.0, 1e4}).to(dtype);
  expect_same([](const Tensors& in, at::Device) { return swiglu(in[0]); },
              {at::cat({far, at::ones_like(far)}).view({1, -1})}, "swiglu");
  for (const Gelu form : {Gelu::kErf, Gelu::kTanh}) {
    expect_same([form](const Tensors& in, at::Device) { return gelu(in[0], form); },
                {far.view({1, -1})}, "gelu");
  }
}

// In packs; an odd number; not aligned.
TEST_P(Operators, DropoutHasTheCpusBits) {
  AdapterContext context;
  context.training = true;
  context.seed = 11;
  for (const int64_t count : {int64_t{4096}, int64_t{35}, int64_t{4097}}) {
    const at::Tensor x = drawn({count});
    const auto drop = [&](at::Device device) {
      const at::Tensor there = x.to(device);
      const at::Tensor from = count == 4097 ? there.narrow(0, 1, 4096) : there;
      return adapter_dropout(from, 0.25, "m", context).cpu();
    };
    const at::Tensor expected = drop(at::kCPU);
    const OnDevice here;
    EXPECT_TRUE(drop(test_device()).equal(expected)) << count;
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

// Vocabularies of any length: packs of four with what is left, many packs a thread, parts of a row.
TEST_P(Operators, HeadAndCrossEntropy) {
  for (const int64_t vocabulary : {30, 1031, 9003}) {
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

// More rows than a device's chunk: one that is full, another that ends within its logits.
class LargeHeads : public Operators {
 protected:
  static constexpr int64_t kVocabulary = 37, kDim = 8;

  int64_t rows_for(int64_t models) const {
    const HeadChunk chunk =
        head_chunk({.count = 1 << 20, .vocabulary = kVocabulary, .models = models}, true,
                   static_cast<int64_t>(c10::elementSize(dtype)));
    return chunk.rows + chunk.logits + 77;
  }
};

TEST_P(LargeHeads, CrossEntropy) {
  const int64_t rows = rows_for(1);
  const at::Tensor labels = at::randint(kVocabulary, {rows}, at::kLong);
  labels[5].fill_(-100);
  expect_same(
      [&](const Tensors& in, at::Device) {
        return head_cross_entropy(in[0], {.weight = in[1]}, labels, TokenLoss::kNll).sum;
      },
      {drawn({rows, kDim}), drawn({kVocabulary, kDim})}, "cross-entropy");
}

// With LoRA, whose inner product all logits of a chunk have in common.
TEST_P(LargeHeads, TokenLogProbabilities) {
  const int64_t rows = rows_for(1);
  const at::Tensor positions = at::randint(rows, {rows}, at::kLong);
  const at::Tensor labels = at::randint(kVocabulary, {rows}, at::kLong);
  const at::Tensor weight = drawn({kVocabulary, kDim});
  expect_same(
      [&](const Tensors& in, at::Device device) {
        auto lora = std::make_shared<LowRank>();
        lora->a = in[1].detach();
        lora->parts = {{.part = 0, .module = "m", .a = in[1], .b = in[2], .bias = {}, .scale = 2}};
        lora->context = std::make_shared<AdapterContext>();
        const TokenLogProbs found = token_log_probs(
            in[0], {.weight = weight.to(device), .rows = {}, .low_rank = lora}, positions, labels,
            {.temperature = 0.7, .entropy_gradient = true});
        return at::cat({found.log_probs, found.entropy, found.mean_logits});
      },
      {drawn({rows, kDim}), drawn({3, kDim}), drawn({kVocabulary, 3})}, "log probabilities");
}

// With trained rows, which are computed beside the logits.
TEST_P(LargeHeads, Divergence) {
  const int64_t rows = rows_for(2);
  const at::Tensor positions = at::arange(rows);
  const at::Tensor labels = at::randint(kVocabulary, {rows}, at::kLong);
  const at::Tensor weight = drawn({kVocabulary, kDim});
  const at::Tensor teacher = drawn({rows, 12}), teacher_weight = drawn({kVocabulary, 12});
  const at::Tensor ids = at::tensor({36, 5}, at::kLong);
  const auto context = std::make_shared<AdapterContext>();
  expect_same(
      [&](const Tensors& in, at::Device device) {
        const OutputHead head{.weight = weight.to(device),
                              .rows = std::make_shared<TrainedRows>(
                                  TrainedRows{ids.to(device), in[1], context})};
        return head_divergence(in[0], head, teacher.to(device),
                               {.weight = teacher_weight.to(device)}, positions, labels,
                               {.beta = 0.3, .temperature = 0.7})
            .sum;
      },
      {drawn({rows, kDim}), drawn({2, kDim})}, "divergence");
}

INSTANTIATE_TEST_SUITE_P(Types, LargeHeads, testing::Values(at::kFloat, at::kBFloat16));

TEST_P(Operators, OfTokensThatAreAsProbableTheFirstIsTheMostProbable) {
  const at::Tensor positions = at::arange(4), labels = at::tensor({4600, 9001, 4601, 0}, at::kLong);
  at::Tensor weight = at::zeros({9003, 4}).to(dtype);
  weight.narrow(0, 4600, 2).fill_(1);
  weight[9001].fill_(1);
  const OnDevice here;
  const TokenLogProbs found =
      token_log_probs(at::ones({4, 4}).to(dtype).to(test_device()),
                      {.weight = weight.to(test_device())}, positions, labels);
  EXPECT_TRUE(found.correct.cpu().equal(at::tensor({1, 0, 0, 0}, at::kFloat)));
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

// All codes, what lies in the middle of two, and what is beside that, with a scale of 1.
TEST_P(Float8Operators, CastsToFloat8RoundAsTheCpu) {
  for (const auto role : {Float8Role::kValue, Float8Role::kGradient}) {
    const bool wide = role == Float8Role::kGradient;
    const at::Tensor codes = at::arange(wide ? 0x7c : 0x7f, at::kInt)
                                 .to(at::kByte)
                                 .view(wide ? at::kFloat8_e5m2 : at::kFloat8_e4m3fn)
                                 .to(at::kFloat);
    const at::Tensor middles =
        (codes.narrow(0, 1, codes.size(0) - 1) + codes.narrow(0, 0, codes.size(0) - 1)) / 2;
    const at::Tensor positive =
        at::cat({codes, middles, at::nextafter(middles, at::zeros({})),
                 at::nextafter(middles, at::full({}, std::numeric_limits<float>::infinity()))});
    const at::Tensor all = at::stack({positive, -positive}).to(dtype);
    for (const bool transposed : {false, true}) {
      const auto cast = [&](at::Device device) {
        const at::Tensor matrix = all.to(device);
        return to_float8(transposed ? matrix.t() : matrix, role, Float8Scaling::kTensorwise)
            .codes.view(at::kByte)
            .cpu();
      };
      const at::Tensor expected = cast(at::kCPU);
      const OnDevice here;
      EXPECT_TRUE(cast(test_device()).equal(expected)) << wide << transposed;
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

}  // namespace
}  // namespace temper::trainer
