#include "trainer/adapters/combine.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "recipes/diagnostic.h"

namespace temper::trainer {
namespace {

LoraFactors factors(int64_t rank, double scaling, int64_t in = 40, int64_t out = 30) {
  return {.a = at::randn({rank, in}), .b = at::randn({out, rank}), .scaling = scaling};
}

double difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

at::Tensor delta(const LoraFactors& lora) { return lora.b.matmul(lora.a) * lora.scaling; }

TEST(Combine, CatAndSvdOfEnoughRankAreTheWeightedSum) {
  at::manual_seed(1);
  const LoraFactors one = factors(2, 2.0);
  const LoraFactors two = factors(3, 0.5);
  const at::Tensor sum = 0.7 * delta(one) - 0.2 * delta(two);
  const std::vector<LoraModules> adapters = {{{"x", one}}, {{"x", two}}};
  const CombinedLora cat = combine_adapters(adapters, {0.7, -0.2}, {.type = "cat"});
  EXPECT_EQ(cat.r, 5);
  EXPECT_LT(difference(delta(cat.modules.at("x")), sum), 1e-5);
  // Rank 3 holds the difference of an adapter to itself and a part of the other.
  const CombinedLora svd =
      combine_adapters({{{"x", one}}, {{"x", one}}, {{"x", two}}}, {1, -1, 1}, {.type = "svd"});
  EXPECT_EQ(svd.r, 3);
  EXPECT_LT(difference(delta(svd.modules.at("x")), delta(two)), 1e-5);
}

TEST(Combine, ModulesThatOneAdapterLacksAreFilledWithZeros) {
  const CombinedLora cat =
      combine_adapters({{{"x", factors(2, 1)}, {"y", factors(2, 1)}}, {{"x", factors(3, 1)}}},
                       {1, 1}, {.type = "cat"});
  EXPECT_EQ(cat.modules.at("y").a.sizes(), (std::vector<int64_t>{5, 40}));
  EXPECT_EQ(cat.modules.at("y").b.sizes(), (std::vector<int64_t>{30, 5}));
  EXPECT_EQ(cat.modules.at("y").a.narrow(0, 2, 3).abs().max().item<float>(), 0.0f);
}

TEST(Combine, OneAdapterIsScaledWhateverTheCombination) {
  const LoraFactors one = factors(2, 2.0);
  const CombinedLora combined =
      combine_adapters({{{"x", one}}}, {-0.5}, {.type = "ties", .density = 0.5});
  EXPECT_LT(difference(delta(combined.modules.at("x")), -0.5 * delta(one)), 1e-5);
}

TEST(Combine, DareKeepsThePartThatDensitySaysAndItsExpectation) {
  at::manual_seed(2);
  LoraFactors one = factors(8, 1.0, 2000, 2000);
  LoraFactors two = factors(8, 1.0, 2000, 2000);
  one.a.fill_(1.0);
  two.a.fill_(3.0);
  const std::vector<LoraModules> adapters = {{{"x", one}}, {{"x", two}}};
  const at::Tensor a =
      combine_adapters(adapters, {1, 1}, {.type = "dare_linear", .density = 0.25, .seed = 7})
          .modules.at("x")
          .a;
  // Entries are 0, 1/0.25, 3/0.25 or both: each adapter keeps a quarter on its own.
  EXPECT_NEAR(a.eq(0.0).to(at::kDouble).mean().item<double>(), 0.5625, 0.02);
  EXPECT_NEAR(a.eq(4.0).to(at::kDouble).mean().item<double>(), 0.1875, 0.02);
  EXPECT_NEAR(a.eq(12.0).to(at::kDouble).mean().item<double>(), 0.1875, 0.02);
  EXPECT_NEAR(a.eq(16.0).to(at::kDouble).mean().item<double>(), 0.0625, 0.02);
  EXPECT_NEAR(a.mean().item<double>(), 4.0, 0.15);
}

TEST(Combine, DareIsDrawnFromItsSeed) {
  const std::vector<LoraModules> adapters = {{{"x", factors(4, 1)}, {"y", factors(4, 1)}},
                                             {{"x", factors(4, 1)}, {"y", factors(4, 1)}}};
  const auto draw = [&](uint64_t seed) {
    return combine_adapters(adapters, {1, 1}, {.type = "dare_ties", .density = 0.5, .seed = seed})
        .modules.at("x")
        .a;
  };
  EXPECT_TRUE(at::equal(draw(3), draw(3)));
  EXPECT_FALSE(at::equal(draw(3), draw(4)));
}

TEST(Combine, DareOfDensityOneIsLinear) {
  const std::vector<LoraModules> adapters = {{{"x", factors(4, 2)}}, {{"x", factors(4, 1)}}};
  const at::Tensor linear =
      combine_adapters(adapters, {0.3, 0.9}, {.type = "linear"}).modules.at("x").a;
  const at::Tensor dare =
      combine_adapters(adapters, {0.3, 0.9}, {.type = "dare_linear", .density = 1.0})
          .modules.at("x")
          .a;
  EXPECT_TRUE(at::equal(linear, dare));
}

TEST(Combine, TiesAveragesTheValuesOfTheSignThatPrevails) {
  const auto lora = [](float a) {
    return LoraModules{{"x", {.a = at::full({1, 1}, a), .b = at::ones({1, 1})}}};
  };
  const auto ties = [&](float one, float two, float three) {
    return combine_adapters({lora(one), lora(two), lora(three)}, {1, 1, 1},
                            {.type = "ties", .density = 1.0})
        .modules.at("x")
        .a.item<float>();
  };
  EXPECT_FLOAT_EQ(ties(1, 2, -2), 1.5f);
  EXPECT_FLOAT_EQ(ties(1, 2, -4), -4.0f);
  EXPECT_FLOAT_EQ(ties(0, 2, 4), 3.0f);
}

TEST(Combine, RefusesWhatCannotBe) {
  const std::vector<LoraModules> adapters = {{{"x", factors(4, 2)}}, {{"x", factors(2, 1)}}};
  const auto refusal = [&](const Combination& combination) -> std::string {
    try {
      combine_adapters(adapters, {1, 1}, combination);
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(
      refusal({.type = "linear"}),
      "combination \"linear\" needs adapters of the same r, they have 4, 2: combine by cat or "
      "svd");
  EXPECT_EQ(refusal({.type = "mean"}),
            "combination \"mean\": must be one of linear, cat, svd, ties, dare_linear, dare_ties");
  EXPECT_NE(refusal({.type = "ties"}).find("needs a density"), std::string::npos);
  EXPECT_NE(refusal({.type = "dare_ties", .density = 0.0}).find("must be above 0"),
            std::string::npos);
}

}  // namespace
}  // namespace temper::trainer
