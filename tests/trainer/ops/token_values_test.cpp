#include "trainer/ops/token_values.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "tests/trainer/ops/compare.h"

namespace temper::trainer {
namespace {

struct Problem {
  at::Tensor hidden, weight, bias, positions;
};

// Some hidden states have several values.
Problem problem_of(at::ScalarType dtype) {
  at::manual_seed(3);
  return {leaf(at::randn({2, 90, 24}), dtype), leaf(at::randn({1, 24}), at::kFloat),
          leaf(at::randn({1}), at::kFloat), at::randint(180, {200}, at::kLong)};
}

TEST(TokenValues, AndTheirGradientsAreThoseOfALinearLayer) {
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const Problem p = problem_of(dtype);
    const at::Tensor hidden = exact(p.hidden), weight = exact(p.weight), bias = exact(p.bias);
    const at::Tensor ours = token_values(p.hidden, p.weight, p.bias, p.positions);
    const at::Tensor values =
        at::linear(hidden.view({-1, 24}).index_select(0, p.positions), weight, bias).squeeze(1);
    EXPECT_EQ(ours.scalar_type(), at::kFloat);
    EXPECT_LT(worst(ours, values), 1e-6);
    const at::Tensor gradient = at::randn({200});
    (ours * gradient).sum().backward();
    (values * gradient).sum().backward();
    EXPECT_LT(worst(p.hidden.grad(), hidden.grad()), tolerance(dtype));
    EXPECT_LT(worst(p.weight.grad(), weight.grad()), tolerance(at::kFloat));
    EXPECT_LT(worst(p.bias.grad(), bias.grad()), tolerance(at::kFloat));
  }
}

TEST(TokenValues, AddTheirGradientsToThoseThatAreThere) {
  const Problem p = problem_of(at::kFloat);
  for (int i = 0; i < 2; ++i) token_values(p.hidden, p.weight, p.bias, p.positions).sum().backward();
  EXPECT_FLOAT_EQ(p.bias.grad().item<float>(), 400);
}

TEST(TokenValues, HaveTheSameBitsOnAnyNumberOfThreads) {
  std::vector<at::Tensor> results;
  const int threads = at::get_num_threads();
  for (const int count : {1, 2}) {
    at::set_num_threads(count);
    const Problem p = problem_of(at::kFloat);
    const at::Tensor values = token_values(p.hidden, p.weight, p.bias, p.positions);
    (values * values.detach()).sum().backward();
    results.push_back(at::cat({values.detach(), p.hidden.grad().flatten(),
                               p.weight.grad().flatten(), p.bias.grad()}));
  }
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(results[0], results[1]));
}

}  // namespace
}  // namespace temper::trainer
