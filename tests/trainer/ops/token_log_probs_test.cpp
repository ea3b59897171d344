#include "trainer/ops/token_log_probs.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "tests/trainer/ops/compare.h"

namespace temper::trainer {
namespace {

constexpr int64_t kVocabulary = 77;

// More targets than one chunk holds; several hidden states predict more than one.
struct Problem {
  at::Tensor hidden, weight, positions, labels;
};

Problem problem_of(at::ScalarType dtype) {
  at::manual_seed(15);
  return {leaf(at::randn({2, 900, 24}), dtype), leaf(at::randn({kVocabulary, 24}), dtype),
          at::randint(1800, {2500}, at::kLong), at::randint(kVocabulary, {2500}, at::kLong)};
}

TEST(TokenLogProbs, ValuesAndGradientsEqualTheWholeLogits) {
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (const double temperature : {1.0, 0.7}) {
      const Problem p = problem_of(dtype);
      const at::Tensor hidden = exact(p.hidden), weight = exact(p.weight);
      const TokenLogProbs ours =
          token_log_probs(p.hidden, {.weight = p.weight}, p.positions, p.labels,
                          {.temperature = temperature, .entropy_gradient = true});
      const at::Tensor logits =
          at::matmul(hidden.view({-1, 24}).index_select(0, p.positions), weight.t());
      const at::Tensor all = at::log_softmax(logits / temperature, -1);
      const at::Tensor log_probs = all.gather(1, p.labels.unsqueeze(1)).squeeze(1);
      const at::Tensor entropy = -(all.exp() * all).sum(-1);
      EXPECT_LT(worst(ours.log_probs, log_probs), 1e-6);
      EXPECT_LT(worst(ours.entropy, entropy), 1e-5);
      EXPECT_LT(worst(ours.mean_logits, logits.mean(-1)), 1e-5);
      EXPECT_EQ(worst(ours.correct, logits.argmax(-1).eq(p.labels)), 0);

      const at::Tensor of_log_prob = at::randn({2500}), of_entropy = at::randn({2500});
      at::Tensor masked = of_log_prob.masked_fill(at::rand({2500}) < 0.4, 0);
      ((ours.log_probs * masked).sum() + (ours.entropy * of_entropy).sum()).backward();
      ((log_probs * masked).sum() + (entropy * of_entropy).sum()).backward();
      EXPECT_LT(worst(p.hidden.grad(), hidden.grad()), tolerance(dtype));
      EXPECT_LT(worst(p.weight.grad(), weight.grad()), tolerance(dtype));
    }
  }
}

TEST(TokenLogProbs, TargetsWithoutAGradientAddNothing) {
  const Problem p = problem_of(at::kFloat);
  const TokenLogProbs ours =
      token_log_probs(p.hidden, {.weight = p.weight}, p.positions, p.labels);
  EXPECT_FALSE(ours.entropy.requires_grad());
  (ours.log_probs * 0).sum().backward();
  EXPECT_EQ(p.hidden.grad().abs().max().item<float>(), 0);
  EXPECT_TRUE(!p.weight.grad().defined() || p.weight.grad().abs().max().item<float>() == 0);
}

// The gradient of half of the targets and that of the others are together that of all.
TEST(TokenLogProbs, DropoutDropsTheSameForSomeTargetsAsForAll) {
  const auto lora = std::make_shared<LowRank>();
  lora->dropout = 0.5;
  lora->context = std::make_shared<AdapterContext>(AdapterContext{.training = true, .seed = 7});
  const at::Tensor factors = at::randn({2500}), some = factors.masked_fill(at::rand({2500}) < 0.5, 0);
  at::manual_seed(16);
  const at::Tensor a = at::randn({4, 24}), b = at::randn({kVocabulary, 4});
  const auto gradient = [&](const at::Tensor& of_log_prob) {
    const Problem p = problem_of(at::kFloat);
    const at::Tensor own_a = leaf(a, at::kFloat), own_b = leaf(b, at::kFloat);
    lora->a = own_a.detach();
    lora->parts = {{.part = 0, .module = "lm_head", .a = own_a, .b = own_b, .bias = {}, .scale = 2}};
    const OutputHead head{.weight = p.weight.detach(), .rows = {}, .low_rank = lora};
    (token_log_probs(p.hidden, head, p.positions, p.labels).log_probs * of_log_prob).sum().backward();
    return at::cat({p.hidden.grad().flatten(), own_a.grad().flatten(), own_b.grad().flatten()});
  };
  const at::Tensor parts = gradient(some) + gradient(factors - some);
  EXPECT_LT(worst(parts, gradient(factors)), tolerance(at::kFloat));
}

TEST(TokenLogProbs, GivesTheSameBitsOnAnyNumberOfThreads) {
  std::vector<at::Tensor> gradients;
  const int threads = at::get_num_threads();
  for (const int count : {1, 2}) {
    at::set_num_threads(count);
    const Problem p = problem_of(at::kFloat);
    token_log_probs(p.hidden, {.weight = p.weight}, p.positions, p.labels)
        .log_probs.sum()
        .backward();
    gradients.push_back(p.hidden.grad());
  }
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(gradients[0], gradients[1]));
}

}  // namespace
}  // namespace temper::trainer
