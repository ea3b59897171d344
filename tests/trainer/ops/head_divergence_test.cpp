#include "trainer/ops/head_divergence.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "tests/trainer/ops/compare.h"
#include "trainer/ops/gradient.h"

namespace temper::trainer {
namespace {

constexpr int64_t kVocabulary = 77;  // a last group of lanes that is not full

struct Problem {
  at::Tensor hidden, weight;                  // of the student
  at::Tensor teacher_hidden, teacher_weight;  // of another width
  at::Tensor positions, labels;
};

// More targets than one chunk holds, and hidden states that predict none.
Problem problem_of(at::ScalarType dtype) {
  at::manual_seed(14);
  Problem p{leaf(at::randn({2, 900, 24}), dtype),
            leaf(at::randn({kVocabulary, 24}), dtype),
            at::randn({2, 900, 40}).to(dtype),
            at::randn({kVocabulary, 40}).to(dtype),
            at::rand({1800}).gt(0.3).nonzero().squeeze(1),
            {}};
  p.labels = at::randint(kVocabulary, {p.positions.numel()}, at::kLong);
  return p;
}

// Eq. 1 of the paper over whole logits, a token's divergence each.
at::Tensor slow_divergence(const at::Tensor& student_logits, const at::Tensor& teacher_logits,
                           const DivergenceOptions& options) {
  const at::Tensor log_s = at::log_softmax(student_logits / options.temperature, -1);
  const at::Tensor log_t = at::log_softmax(teacher_logits / options.temperature, -1);
  const auto kl = [](const at::Tensor& log_p, const at::Tensor& log_q) {
    return (log_p.exp() * (log_p - log_q)).sum(-1);
  };
  if (options.beta == 0) return kl(log_t, log_s);
  if (options.beta == 1) return kl(log_s, log_t);
  const at::Tensor log_m = (options.beta * log_t.exp() + (1 - options.beta) * log_s.exp()).log();
  return options.beta * kl(log_t, log_m) + (1 - options.beta) * kl(log_s, log_m);
}

at::Tensor at_targets(const at::Tensor& hidden, const Problem& p) {
  return hidden.view({-1, hidden.size(-1)}).index_select(0, p.positions);
}

at::Tensor teacher_logits_of(const Problem& p) {
  return at::mm(at_targets(exact(p.teacher_hidden), p), exact(p.teacher_weight).t());
}

TEST(HeadDivergence, ValuesAndGradientsEqualTheWholeLogits) {
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (const double beta : {0.0, 0.1, 0.5, 1.0}) {
      for (const double temperature : {1.0, 0.9, 3.0}) {
        const DivergenceOptions options{.beta = beta, .temperature = temperature};
        const Problem p = problem_of(dtype);
        const HeadDivergence found =
            head_divergence(p.hidden, {.weight = p.weight}, p.teacher_hidden,
                            {.weight = p.teacher_weight}, p.positions, p.labels, options);
        const at::Tensor hidden = exact(p.hidden), weight = exact(p.weight);
        const at::Tensor logits = at::mm(at_targets(hidden, p), weight.t());
        const at::Tensor slow = slow_divergence(logits, teacher_logits_of(p), options).sum();
        // Terms of both signs cancel: to the precision of the larger ones.
        EXPECT_LT(worst(found.sum, slow), 2e-6) << beta << " " << temperature;
        const at::Tensor log_p = at::log_softmax(logits.detach() / temperature, -1);
        const double entropy = -(log_p.exp() * log_p).sum().item<double>();
        EXPECT_NEAR(found.entropy, entropy, 1e-5 * entropy);
        EXPECT_EQ(found.correct, logits.argmax(-1).eq(p.labels).sum().item<double>());
        found.sum.backward();
        slow.backward();
        EXPECT_LT(worst(p.hidden.grad(), hidden.grad()), tolerance(dtype)) << beta << " " << temperature;
        EXPECT_LT(worst(p.weight.grad(), weight.grad()), tolerance(dtype)) << beta << " " << temperature;
      }
    }
  }
}

// A power of two, so that nothing else is rounded.
TEST(HeadDivergence, IsDifferentiatedWithTheLossGradient) {
  for (const double beta : {0.0, 0.5, 1.0}) {
    const DivergenceOptions options{.beta = beta, .temperature = 0.9};
    const auto backward = [&](float loss_gradient) {
      const LossGradient scaled(loss_gradient);
      const Problem p = problem_of(at::kFloat);
      const at::Tensor sum =
          head_divergence(p.hidden, {.weight = p.weight}, p.teacher_hidden,
                          {.weight = p.teacher_weight}, p.positions, p.labels, options)
              .sum;
      sum.backward(at::full_like(sum, loss_gradient));
      return std::pair(p.hidden.grad(), p.weight.grad());
    };
    const auto plain = backward(1), scaled = backward(8);
    EXPECT_LT(worst(scaled.first, plain.first * 8), 1e-6);
    EXPECT_LT(worst(scaled.second, plain.second * 8), 1e-6);
  }
}

TEST(HeadDivergence, LowRankUpdatesEqualTheFullProduct) {
  const DivergenceOptions options{.beta = 0.3};
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const Problem p = problem_of(dtype);
    const at::Tensor base = p.weight.detach();
    const at::Tensor a = leaf(at::randn({4, 24}) / 5, dtype), b = leaf(at::randn({kVocabulary, 4}), dtype);
    const auto lora = std::make_shared<LowRank>();
    lora->a = a.detach();
    lora->parts = {{.part = 0, .module = "lm_head", .a = a, .b = b, .bias = {}, .scale = 1.5}};
    lora->context = std::make_shared<AdapterContext>();
    const HeadDivergence found =
        head_divergence(p.hidden, {.weight = base, .rows = {}, .low_rank = lora}, p.teacher_hidden,
                        {.weight = p.teacher_weight}, p.positions, p.labels, options);
    const at::Tensor hidden = exact(p.hidden), slow_a = exact(a), slow_b = exact(b);
    const at::Tensor whole = exact(base) + 1.5 * at::mm(slow_b, slow_a);
    const at::Tensor slow =
        slow_divergence(at::mm(at_targets(hidden, p), whole.t()), teacher_logits_of(p), options).sum();
    EXPECT_LT(worst(found.sum, slow), dtype == at::kFloat ? 2e-6 : 1e-3);
    found.sum.backward();
    slow.backward();
    EXPECT_LT(worst(p.hidden.grad(), hidden.grad()), tolerance(dtype));
    EXPECT_LT(worst(a.grad(), slow_a.grad()), tolerance(dtype));
    EXPECT_LT(worst(b.grad(), slow_b.grad()), tolerance(dtype));
    EXPECT_FALSE(base.grad().defined());
  }
}

TEST(HeadDivergence, TrainedRowsTakeThePlaceOfTheWeights) {
  const DivergenceOptions options{.beta = 0.7};
  const Problem p = problem_of(at::kFloat);
  const at::Tensor ids = at::tensor({5, 70, 12}, at::kLong);
  const at::Tensor values = leaf(at::randn({3, 24}), at::kFloat);
  const OutputHead head{.weight = p.weight.detach(),
                        .rows = std::make_shared<TrainedRows>(
                            TrainedRows{ids, values, std::make_shared<AdapterContext>()})};
  const HeadDivergence found =
      head_divergence(p.hidden, head, p.teacher_hidden, {.weight = p.teacher_weight}, p.positions,
                      p.labels, options);
  const at::Tensor hidden = exact(p.hidden), rows = exact(values);
  const at::Tensor whole = exact(p.weight).detach().index_copy(0, ids, rows);
  const at::Tensor slow =
      slow_divergence(at::mm(at_targets(hidden, p), whole.t()), teacher_logits_of(p), options).sum();
  found.sum.backward();
  slow.backward();
  EXPECT_LT(worst(found.sum, slow), 2e-6);
  EXPECT_LT(worst(p.hidden.grad(), hidden.grad()), tolerance(at::kFloat));
  EXPECT_LT(worst(values.grad(), rows.grad()), tolerance(at::kFloat));
}

TEST(HeadDivergence, OfEqualModelsIsZeroAndSoIsItsGradient) {
  for (const double beta : {0.0, 0.5, 1.0}) {
    const Problem p = problem_of(at::kFloat);
    const HeadDivergence found =
        head_divergence(p.hidden, {.weight = p.weight}, p.hidden.detach(),
                        {.weight = p.weight.detach()}, p.positions, p.labels, {.beta = beta});
    found.sum.backward();
    // A rounding of log M each token: beside divergences of the order of one.
    EXPECT_NEAR(found.sum.item<double>() / static_cast<double>(p.labels.numel()), 0, 1e-6);
    EXPECT_LT(p.hidden.grad().abs().max().item<double>(), 1e-5);
  }
}

// Probabilities of tokens that neither model gives a chance are no floats any more.
TEST(HeadDivergence, StaysFiniteWhereProbabilitiesUnderflow) {
  const at::Tensor rows = at::tensor({0.0f, -200.0f, -300.0f, 0.0f, -400.0f, 1.0f}).view({2, 3});
  const at::Tensor identity = at::eye(3);
  const at::Tensor positions = at::tensor({0, 1}, at::kLong), labels = at::tensor({0, 2}, at::kLong);
  for (const double beta : {0.0, 0.5, 1.0}) {
    const at::Tensor hidden = leaf(rows, at::kFloat);
    const at::Tensor teacher = at::tensor({0.0f, -250.0f, -150.0f, 0.0f, -350.0f, 2.0f}).view({2, 3});
    const HeadDivergence found = head_divergence(hidden, {.weight = identity}, teacher,
                                                 {.weight = identity}, positions, labels, {.beta = beta});
    found.sum.backward();
    EXPECT_TRUE(std::isfinite(found.sum.item<double>()));
    EXPECT_TRUE(at::isfinite(hidden.grad()).all().item<bool>());
  }
}

TEST(HeadDivergence, WithoutGradientsOnlyValuesAreComputed) {
  const Problem p = problem_of(at::kBFloat16);
  const auto sum = [&] {
    return head_divergence(p.hidden, {.weight = p.weight}, p.teacher_hidden,
                           {.weight = p.teacher_weight}, p.positions, p.labels, {})
        .sum.item<double>();
  };
  const double with = sum();
  p.weight.mutable_grad().reset();
  const at::NoGradGuard off;
  EXPECT_EQ(sum(), with);
  EXPECT_FALSE(p.weight.grad().defined());
}

TEST(HeadDivergence, IsZeroWithoutTargets) {
  const Problem p = problem_of(at::kFloat);
  const at::Tensor none = at::empty({0}, at::kLong);
  const HeadDivergence found = head_divergence(p.hidden, {.weight = p.weight}, p.teacher_hidden,
                                               {.weight = p.teacher_weight}, none, none, {});
  EXPECT_EQ(found.sum.item<double>(), 0.0);
  found.sum.backward();
  EXPECT_EQ(p.hidden.grad().abs().max().item<double>(), 0.0);
}

TEST(HeadDivergence, ALossThatIsNotANumberStaysVisible) {
  const at::NoGradGuard off;
  for (const bool teacher : {false, true}) {
    const Problem p = problem_of(at::kFloat);
    (teacher ? p.teacher_hidden : p.hidden).view({1800, -1})[p.positions[0].item<int64_t>()].fill_(NAN);
    EXPECT_TRUE(std::isnan(head_divergence(p.hidden, {.weight = p.weight}, p.teacher_hidden,
                                           {.weight = p.teacher_weight}, p.positions, p.labels, {})
                               .sum.item<double>()));
  }
}

}  // namespace
}  // namespace temper::trainer
