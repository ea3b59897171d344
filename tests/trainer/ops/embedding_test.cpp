#include "trainer/ops/embedding.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/trainer/ops/compare.h"

namespace temper::trainer {
namespace {

// Tokens that come several times, some of them with trained rows.
struct Problem {
  at::Tensor weight, ids, dy;
  std::shared_ptr<AdapterContext> context = std::make_shared<AdapterContext>();
};

Problem problem_of(at::ScalarType dtype) {
  at::manual_seed(3);
  Problem p{.weight = at::randn({50, 24}).to(dtype),
            .ids = at::randint(50, {200}, at::kLong),
            .dy = at::randn({200, 24}).to(dtype)};
  p.ids[7] = 31;
  return p;
}

TEST(Embedding, TrainedRowsTakeThePlaceOfTheirOwn) {
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const Problem p = problem_of(dtype);
    const at::Tensor rows = at::tensor({31, 4, 49}, at::kLong);
    const at::Tensor values = leaf(at::randn({3, 24}), dtype), slow_values = exact(values);
    const auto trained = std::make_shared<TrainedRows>(TrainedRows{rows, values, p.context});
    const at::Tensor y = embed(p.ids, {.weight = p.weight, .rows = trained, .low_rank = {}});
    const at::Tensor slow =
        exact(p.weight).index_copy(0, rows, slow_values).index_select(0, p.ids);
    EXPECT_EQ(worst(y, slow), 0);
    y.backward(p.dy);
    slow.backward(p.dy.to(at::kDouble));
    EXPECT_LT(worst(values.grad(), slow_values.grad()), 1e-6);

    p.context->enabled = false;
    EXPECT_TRUE(at::equal(embed(p.ids, {.weight = p.weight, .rows = trained, .low_rank = {}}),
                          p.weight.index_select(0, p.ids)));
  }
}

TEST(Embedding, LowRankRowsEqualTheFullProduct) {
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const Problem p = problem_of(dtype);
    const at::Tensor a = leaf(at::randn({4, 50}), dtype), b = leaf(at::randn({24, 4}), dtype);
    const at::Tensor slow_a = exact(a), slow_b = exact(b);
    const auto lora = std::make_shared<LowRankRows>(LowRankRows{a, b, 1.5, p.context});
    const at::Tensor y = embed(p.ids, {.weight = p.weight, .rows = {}, .low_rank = lora});
    const at::Tensor slow =
        (exact(p.weight) + 1.5 * at::mm(slow_b, slow_a).t()).index_select(0, p.ids);
    EXPECT_LT(worst(y, slow), tolerance(dtype));
    y.backward(p.dy);
    slow.backward(p.dy.to(at::kDouble));
    EXPECT_LT(worst(a.grad(), slow_a.grad()), tolerance(dtype));
    EXPECT_LT(worst(b.grad(), slow_b.grad()), tolerance(dtype));

    p.context->enabled = false;
    EXPECT_TRUE(at::equal(embed(p.ids, {.weight = p.weight, .rows = {}, .low_rank = lora}),
                          p.weight.index_select(0, p.ids)));
  }
}

}  // namespace
}  // namespace temper::trainer
