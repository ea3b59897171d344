#include "trainer/ops/gemm.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/trainer/ops/compare.h"

namespace temper::trainer {
namespace {

// Shapes with and without remainders in every direction; fewer rows than the blocked product takes;
// k over several blocks.
struct Shape {
  int64_t m, n, k;
};
const Shape kShapes[] = {{1, 5, 7},      {16, 16, 16},     {37, 70, 50},
                         {128, 64, 512}, {200, 130, 1100}, {64, 3000, 96}};

at::Tensor stored(const at::Tensor& matrix, bool transposed) {
  return transposed ? matrix.t().contiguous().t() : matrix.contiguous();
}

TEST(Gemm, EqualsAProductInDoublePrecisionInEveryLayout) {
  at::manual_seed(1);
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (const auto [m, n, k] : kShapes) {
      for (const bool a_transposed : {false, true}) {
        for (const bool b_transposed : {false, true}) {
          const at::Tensor a = stored(at::randn({m, k}).to(dtype), a_transposed);
          const at::Tensor b = stored(at::randn({k, n}).to(dtype), b_transposed);
          const at::Tensor expected = at::mm(a.to(at::kDouble), b.to(at::kDouble));
          const at::Tensor start = at::randn({m, n});
          for (const auto out : {at::kFloat, dtype}) {
            const double tolerance = out == at::kFloat ? 2e-6 : out == at::kHalf ? 5e-4 : 4e-3;
            at::Tensor c = at::empty({m, n}, out);
            gemm(c, a, b);
            EXPECT_LT(worst(c, expected), tolerance) << m << " " << n << " " << k << " " << out;
            const at::Tensor add = start.to(out);
            gemm(c, a, b, {.add = add});
            EXPECT_LT(worst(c, expected + add), tolerance)
                << m << " " << n << " " << k << " " << out << " with add";
          }
          at::Tensor c = start.clone();
          gemm(c, a, b, {.accumulate = true});
          EXPECT_LT(worst(c, expected + start), 2e-6)
              << m << " " << n << " " << k << " " << dtype << " accumulated";
        }
      }
    }
  }
}

TEST(Gemm, AddsASecondProductBeforeItRounds) {
  at::manual_seed(2);
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (const auto [m, n, k] : kShapes) {
      for (const int64_t inner : {1, 6, 16, 600}) {
        for (const bool transposed : {false, true}) {
          const at::Tensor a = at::randn({m, k}).to(dtype), b = at::randn({k, n}).to(dtype);
          const at::Tensor a2 = stored(at::randn({m, inner}).to(dtype), transposed);
          const at::Tensor b2 = stored(at::randn({inner, n}).to(dtype), transposed);
          const at::Tensor expected = at::mm(a.to(at::kDouble), b.to(at::kDouble)) +
                                      at::mm(a2.to(at::kDouble), b2.to(at::kDouble));
          at::Tensor c = at::empty({m, n}, dtype);
          gemm(c, a, b, {.a2 = a2, .b2 = b2});
          EXPECT_LT(worst(c, expected), dtype == at::kFloat  ? 2e-6
                                        : dtype == at::kHalf ? 1e-3
                                                             : 8e-3)
              << m << " " << n << " " << k << " " << inner;
          const at::Tensor start = at::randn({m, n});
          at::Tensor sum = start.clone();
          gemm(sum, a, b, {.accumulate = true, .a2 = a2, .b2 = b2});
          EXPECT_LT(worst(sum, expected + start), 2e-6) << m << " " << n << " " << k << " " << inner;
        }
      }
    }
  }
}

TEST(Gemm, WritesIntoAndReadsFromColumnsOfWiderMatrices) {
  const at::Tensor wide = at::randn({96, 200});
  const at::Tensor weight = at::randn({48, 40});
  at::Tensor out = at::full({96, 100}, 7.0);
  gemm(out.narrow(1, 20, 48), wide.narrow(1, 30, 40), weight.t());
  EXPECT_LT(worst(out.narrow(1, 20, 48),
                  at::mm(wide.narrow(1, 30, 40).to(at::kDouble), weight.t().to(at::kDouble))),
            1e-6);
  EXPECT_TRUE(out.narrow(1, 0, 20).eq(7).all().item<bool>());
  EXPECT_TRUE(out.narrow(1, 68, 32).eq(7).all().item<bool>());
}

// From a single row (decoding) to more than a block of them; k in several blocks; with and without
// a second product.
TEST(Gemm, ARowDoesNotDependOnTheOtherRows) {
  at::manual_seed(2);
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (const auto out : {at::kFloat, dtype}) {
      const at::Tensor a = at::randn({300, 1100}).to(dtype), a2 = at::randn({300, 16}).to(dtype);
      const at::Tensor b = at::randn({100, 1100}).to(dtype).t(), b2 = at::randn({100, 16}).to(dtype).t();
      for (const bool second : {false, true}) {
        const auto rows = [&](int64_t first, int64_t count) {
          at::Tensor c = at::empty({count, 100}, out);
          GemmOptions options;
          if (second) {
            options.a2 = a2.narrow(0, first, count);
            options.b2 = b2;
          }
          gemm(c, a.narrow(0, first, count), b, options);
          return c;
        };
        const at::Tensor whole = rows(0, 300);
        for (const int64_t count : {1, 2, 3, 5, 15, 16, 17, 37, 63, 64, 65, 130, 200}) {
          EXPECT_TRUE(rows(100, count).equal(whole.narrow(0, 100, count)))
              << dtype << " " << out << " " << count << " rows" << (second ? ", two products" : "");
        }
      }
    }
  }
}

TEST(Gemm, KeptWeightsChangeNoBit) {
  at::manual_seed(6);
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (const int64_t limit : {int64_t{1} << 30, int64_t{0}}) {
      const at::Tensor weight = at::randn({130, 1100}).to(dtype);
      const KeptWeights kept(limit);
      for (const int64_t rows : {1, 37, 64, 65}) {
        const at::Tensor a = at::randn({rows, 1100}).to(dtype);
        at::Tensor plain = at::empty({rows, 130}, dtype), found = at::empty({rows, 130}, dtype);
        gemm(plain, a, weight.t());
        gemm(found, a, weight.t(), {.weight = true});
        EXPECT_TRUE(at::equal(found, plain)) << rows;
      }
      // What is packed stays as it was, where there was room to keep it: that is the contract.
      at::Tensor before = at::empty({3, 130}, dtype), after = at::empty({3, 130}, dtype);
      const at::Tensor a = at::randn({3, 1100}).to(dtype);
      gemm(before, a, weight.t(), {.weight = true});
      weight.zero_();
      gemm(after, a, weight.t(), {.weight = true});
      EXPECT_EQ(at::equal(after, before), limit > 0);
    }
  }
}

TEST(Gemm, WeightsAreKeptAsLongAsTheFirstToAskForItLives) {
  const at::Tensor weight = at::ones({130, 64}), a = at::ones({3, 64});
  at::Tensor found = at::empty({3, 130});
  const KeptWeights kept(1 << 20);
  {
    const KeptWeights inner(0);
    gemm(found, a, weight.t(), {.weight = true});
  }
  weight.zero_();
  gemm(found, a, weight.t(), {.weight = true});
  EXPECT_TRUE(at::equal(found, at::full({3, 130}, 64.0)));
}

}  // namespace
}  // namespace temper::trainer
