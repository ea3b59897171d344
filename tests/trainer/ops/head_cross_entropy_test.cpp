#include "trainer/ops/head_cross_entropy.h"

#include <utility>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "tests/trainer/ops/compare.h"
#include "trainer/ops/gradient.h"
#include "trainer/ops/head_products.h"

namespace temper::trainer {
namespace {

struct Problem {
  at::Tensor hidden, weight, labels;
};

// More supervised tokens than one chunk holds, and some that are not counted.
Problem problem_of(at::ScalarType dtype) {
  at::manual_seed(14);
  Problem p{leaf(at::randn({2, 900, 24}), dtype), leaf(at::randn({77, 24}), dtype),
            at::randint(77, {2, 900}, at::kLong)};
  p.labels.masked_fill_(at::rand({2, 900}) < 0.3, -100);
  return p;
}

TEST(HeadChunk, IsBoundedOnTheCpuAndOnADevice) {
  using Rows = std::pair<int64_t, int64_t>;  // of a chunk, of logits
  const auto chunk = [](int64_t count, int64_t vocabulary, bool on_device, int64_t element) {
    const HeadChunk found = head_chunk({.count = count, .vocabulary = vocabulary}, on_device, element);
    return Rows(found.rows, found.logits);
  };
  EXPECT_EQ(chunk(8192, 131072, false, 2), Rows(256, 256));
  EXPECT_EQ(chunk(8192, 1000000, false, 2), Rows(64, 64));
  EXPECT_EQ(chunk(8192, 131072, true, 2), Rows(1024, 256));
  EXPECT_EQ(chunk(8192, 131072, true, 4), Rows(512, 256));
  EXPECT_EQ(chunk(8192, 50257, true, 2), Rows(2560, 640));
  EXPECT_EQ(chunk(300, 131072, true, 2), Rows(300, 256));
  for (const bool on_device : {false, true}) {
    EXPECT_EQ(chunk(100, 3000, on_device, 2), Rows(100, 100));
    EXPECT_EQ(chunk(0, 3000, on_device, 2), Rows(1, 1));
  }
  const HeadChunk two =
      head_chunk({.count = 8192, .vocabulary = 131072, .models = 2}, true, 2);
  EXPECT_EQ(Rows(two.rows, two.logits), Rows(1024, 128));
  for (int64_t vocabulary = 1000; vocabulary <= 262144; vocabulary += 61) {
    const auto [rows, logits] = chunk(1 << 20, vocabulary, true, 2);
    EXPECT_LE((2 * rows + 4 * logits) * vocabulary, 512 << 20) << vocabulary;
  }
}

TEST(HeadCrossEntropy, ValuesAndGradientsEqualTheWholeLogits) {
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (const auto kind : {TokenLoss::kNll, TokenLoss::kDft}) {
      const Problem p = problem_of(dtype);
      const at::Tensor slow_hidden = exact(p.hidden), slow_weight = exact(p.weight);
      const HeadLoss head = head_cross_entropy(p.hidden, {.weight = p.weight}, p.labels, kind);
      const at::Tensor logits = at::matmul(slow_hidden, slow_weight.t()).view({-1, 77});
      const at::Tensor labels = p.labels.view({-1});
      const at::Tensor nll = at::cross_entropy_loss(logits, labels, {}, at::Reduction::None);
      const at::Tensor slow = (kind == TokenLoss::kNll ? nll : nll * (-nll).exp().detach())
                                  .masked_select(labels.ne(-100))
                                  .sum();
      EXPECT_LT(worst(head.sum, slow), 1e-6);
      const at::Tensor kept = labels.ne(-100);
      const at::Tensor logp = at::log_softmax(logits.detach(), -1);
      const double entropy = -(logp.exp() * logp).sum(-1).masked_select(kept).sum().item<double>();
      EXPECT_NEAR(head.entropy, entropy, 1e-5 * entropy);
      EXPECT_EQ(head.correct, logits.argmax(-1).eq(labels).sum().item<double>());
      head.sum.backward();
      slow.backward();
      EXPECT_LT(worst(p.hidden.grad(), slow_hidden.grad()), tolerance(dtype));
      EXPECT_LT(worst(p.weight.grad(), slow_weight.grad()), tolerance(dtype));
    }
  }
}

// A power of two, so that nothing else is rounded.
TEST(HeadCrossEntropy, IsDifferentiatedWithTheLossGradient) {
  for (const auto kind : {TokenLoss::kNll, TokenLoss::kDft}) {
    const Problem plain = problem_of(at::kFloat), scaled = problem_of(at::kFloat);
    head_cross_entropy(plain.hidden, {.weight = plain.weight}, plain.labels, kind).sum.backward();
    const LossGradient eight(8);
    const HeadLoss head =
        head_cross_entropy(scaled.hidden, {.weight = scaled.weight}, scaled.labels, kind);
    head.sum.backward(at::full_like(head.sum, 8));
    EXPECT_TRUE(scaled.hidden.grad().equal(plain.hidden.grad() * 8));
    EXPECT_TRUE(scaled.weight.grad().equal(plain.weight.grad() * 8));
    const Problem other = problem_of(at::kFloat);
    const HeadLoss unscaled =
        head_cross_entropy(other.hidden, {.weight = other.weight}, other.labels, kind);
    EXPECT_THROW(unscaled.sum.backward(), std::exception);
  }
}

// The loss from whole logits, in double precision.
at::Tensor slow_loss(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& bias,
                     const at::Tensor& labels) {
  at::Tensor logits = at::matmul(hidden, weight.t()).view({-1, 77});
  if (bias.defined()) logits = logits + bias;
  return at::cross_entropy_loss(logits, labels.view({-1}), {}, at::Reduction::Sum, -100);
}

TEST(HeadCrossEntropy, TrainedRowsTakeThePlaceOfTheWeights) {
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (const bool frozen : {false, true}) {
      Problem p = problem_of(dtype);
      if (frozen) p.weight = p.weight.detach();
      const at::Tensor ids = at::tensor({5, 70, 12}, at::kLong);
      const at::Tensor values = leaf(at::randn({3, 24}), dtype);
      const auto context = std::make_shared<AdapterContext>();
      const OutputHead adapted{
          .weight = p.weight,
          .rows = std::make_shared<TrainedRows>(TrainedRows{ids, values, context})};
      const at::Tensor hidden = exact(p.hidden), weight = exact(p.weight), rows = exact(values);
      const at::Tensor slow =
          slow_loss(hidden, weight.index_copy(0, ids, rows), {}, p.labels);
      const HeadLoss head = head_cross_entropy(p.hidden, adapted, p.labels, TokenLoss::kNll);
      EXPECT_LT(worst(head.sum, slow), 1e-6);
      head.sum.backward();
      slow.backward();
      EXPECT_LT(worst(p.hidden.grad(), hidden.grad()), tolerance(dtype));
      EXPECT_LT(worst(values.grad(), rows.grad()), tolerance(dtype));
      if (!frozen) {
        EXPECT_LT(worst(p.weight.grad(), weight.grad()), tolerance(dtype));
      }

      const at::NoGradGuard off;
      const at::Tensor x = p.hidden.view({-1, 24}).narrow(0, 0, 5);
      const at::Tensor whole = exact(p.weight).index_copy(0, ids, exact(values));
      EXPECT_LT(worst(head_logits(x, adapted), at::mm(exact(x), whole.t())), tolerance(dtype));
      context->enabled = false;
      EXPECT_LT(worst(head_logits(x, adapted), at::mm(exact(x), exact(p.weight).t())),
                tolerance(dtype));
    }
  }
}

TEST(HeadCrossEntropy, LowRankUpdatesEqualTheFullProduct) {
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const Problem p = problem_of(dtype);
    const at::Tensor weight = p.weight.detach();
    const at::Tensor a = leaf(at::randn({4, 24}) / 5, dtype), b = leaf(at::randn({77, 4}), dtype);
    const at::Tensor bias = leaf(at::randn({77}), dtype);
    const auto context = std::make_shared<AdapterContext>();
    const auto lora = std::make_shared<LowRank>();
    lora->a = a.detach();
    lora->parts = {{.part = 0, .module = "lm_head", .a = a, .b = b, .bias = bias, .scale = 1.5}};
    lora->context = context;
    const OutputHead adapted{.weight = weight, .rows = {}, .low_rank = lora};
    const at::Tensor hidden = exact(p.hidden), slow_a = exact(a), slow_b = exact(b);
    const at::Tensor slow_bias = exact(bias);
    const at::Tensor whole = exact(weight) + 1.5 * at::mm(slow_b, slow_a);
    const at::Tensor slow = slow_loss(hidden, whole, 1.5 * slow_bias, p.labels);
    const HeadLoss head = head_cross_entropy(p.hidden, adapted, p.labels, TokenLoss::kNll);
    EXPECT_LT(worst(head.sum, slow), dtype == at::kFloat ? 1e-6 : 1e-3);
    head.sum.backward();
    slow.backward();
    EXPECT_LT(worst(p.hidden.grad(), hidden.grad()), tolerance(dtype));
    EXPECT_LT(worst(a.grad(), slow_a.grad()), tolerance(dtype));
    EXPECT_LT(worst(b.grad(), slow_b.grad()), tolerance(dtype));
    EXPECT_LT(worst(bias.grad(), slow_bias.grad()), tolerance(dtype));
    EXPECT_FALSE(weight.grad().defined());

    context->enabled = false;
    const at::Tensor x = p.hidden.detach().view({-1, 24}).narrow(0, 0, 5);
    EXPECT_LT(worst(head_logits(x, adapted), at::mm(exact(x), exact(weight).t())),
              tolerance(dtype));
  }
}

TEST(HeadCrossEntropy, DropoutDropsTheSameInForwardAndBackward) {
  const Problem p = problem_of(at::kFloat);
  const at::Tensor weight = p.weight.detach();
  const at::Tensor a = leaf(at::randn({4, 24}) / 5, at::kFloat), b = leaf(at::randn({77, 4}), at::kFloat);
  const auto context = std::make_shared<AdapterContext>(AdapterContext{.training = true, .seed = 7});
  const auto lora = std::make_shared<LowRank>();
  lora->a = a.detach();
  lora->parts = {{.part = 0, .module = "lm_head", .a = a, .b = b, .bias = {}, .scale = 2}};
  lora->dropout = 0.25;
  lora->context = context;
  // One chunk of tokens: each has a mask of its own.
  const at::Tensor x = leaf(p.hidden.detach().view({-1, 24}).narrow(0, 0, 60), at::kFloat);
  const at::Tensor labels = p.labels.view({-1}).narrow(0, 0, 60);
  const at::Tensor kept = labels.ne(-100).nonzero().squeeze(1);
  const at::Tensor supervised = x.detach().index_select(0, kept);
  const at::Tensor mask = masked(at::ones_like(supervised), 0.25, dropout_seed("lm_head/0", *context));
  const at::Tensor hidden = exact(supervised).requires_grad_(true), slow_a = exact(a), slow_b = exact(b);
  const at::Tensor logits =
      at::mm(hidden, exact(weight).t()) +
      2 * at::mm(at::mm(hidden * mask.to(at::kDouble), slow_a.t()), slow_b.t());
  const at::Tensor slow = at::cross_entropy_loss(logits, labels.index_select(0, kept), {}, at::Reduction::Sum);
  const HeadLoss head =
      head_cross_entropy(x, {.weight = weight, .rows = {}, .low_rank = lora}, labels, TokenLoss::kNll);
  EXPECT_LT(worst(head.sum, slow), 1e-6);
  head.sum.backward();
  slow.backward();
  EXPECT_LT(worst(x.grad().index_select(0, kept), hidden.grad()), 3e-6);
  EXPECT_LT(worst(a.grad(), slow_a.grad()), 3e-6);
  EXPECT_LT(worst(b.grad(), slow_b.grad()), 3e-6);
}

TEST(HeadCrossEntropy, WithoutGradientsOnlyValuesAreComputed) {
  const at::NoGradGuard off;
  const Problem p = problem_of(at::kFloat);
  EXPECT_GT(head_cross_entropy(p.hidden, {.weight = p.weight}, p.labels, TokenLoss::kNll).sum.item<double>(),
            0);
  EXPECT_FALSE(p.weight.grad().defined());
}

TEST(HeadCrossEntropy, IsZeroWhenNothingIsSupervised) {
  const Problem p = problem_of(at::kFloat);
  const HeadLoss head =
      head_cross_entropy(p.hidden, {.weight = p.weight}, at::full_like(p.labels, -100), TokenLoss::kNll);
  EXPECT_EQ(head.sum.item<double>(), 0.0);
  head.sum.backward();
  EXPECT_EQ(p.hidden.grad().abs().max().item<double>(), 0.0);
}

TEST(HeadCrossEntropy, ALossThatIsNotANumberStaysVisible) {
  const Problem p = problem_of(at::kFloat);
  const at::NoGradGuard off;
  p.hidden[0][3].fill_(NAN);
  p.labels[0][3] = 1;
  EXPECT_TRUE(std::isnan(
      head_cross_entropy(p.hidden, {.weight = p.weight}, p.labels, TokenLoss::kNll).sum.item<double>()));
}

TEST(HeadCrossEntropy, RefusesAnyOtherOutgoingGradient) {
  const Problem p = problem_of(at::kFloat);
  const HeadLoss head = head_cross_entropy(p.hidden, {.weight = p.weight}, p.labels, TokenLoss::kNll);
  EXPECT_ANY_THROW((head.sum * 0.5).backward());
}

}  // namespace
}  // namespace temper::trainer
