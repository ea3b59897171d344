#include "trainer/ops/head_cross_entropy.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "tests/trainer/ops/compare.h"

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

TEST(HeadCrossEntropy, ValuesAndGradientsEqualTheWholeLogits) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
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
