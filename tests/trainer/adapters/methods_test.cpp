#include "trainer/adapters/methods.h"

#include <cmath>
#include <set>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "recipes/diagnostic.h"
#include "tests/trainer/adapters/plain_layer.h"
#include "trainer/adapters/adalora.h"

namespace temper::trainer {
namespace {

// A layer of 24 x 16 under an adapter, with x of 6 rows.
struct Adapted {
  explicit Adapted(const recipes::Peft& peft, ModelOptions model = {}, int64_t out = 24,
                   int64_t in = 16, int64_t rows = 6)
      : options(model) {
    at::manual_seed(7);
    weight = at::randn({out, in}).to(options.compute);
    bias = at::randn({out}).to(options.compute);
    x = at::randn({rows, in}).to(options.compute);
    dy = at::randn({rows, out}).to(options.compute);
    adapter = kBuilders.at(peft.method)(
        peft, {.module = "q_proj", .in_features = in, .out_features = out},
        tensors);
  }

  const Parameter& parameter(const std::string& suffix) const {
    for (const Parameter& p : parameters)
      if (p.name == "base_model.model.q_proj." + suffix) return p;
    throw std::out_of_range(suffix);
  }
  at::Tensor forward(const AdapterContext& context = {}) const {
    return adapter->forward(x, base_linear(weight, bias), context);
  }
  at::Tensor plain() const { return at::matmul(x, weight.t()) + bias; }

  /// All trained tensors random, not too far from their start.
  void randomise() {
    adapter->initialize({}, 3);
    for (const Parameter& p : parameters) {
      if (!p.trainable()) continue;
      p.master.data().add_(at::randn(p.master.sizes()), 0.2);
      p.value.data().copy_(p.master.data());
    }
  }

  ModelOptions options;
  std::vector<Parameter> parameters;
  AdapterTensors tensors{options, at::kFloat, parameters};
  at::Tensor weight, bias, x, dy;
  std::unique_ptr<LinearAdapter> adapter;
};

recipes::Peft small(const std::string& method) {
  recipes::Peft peft = resolved(method);
  if (method != "oft") peft.r = 4;
  peft.init_r = 4;
  peft.target_r = 2;
  peft.oft_block_size = 4;
  return peft;
}

class Method : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(All, Method,
                         testing::Values("ia3", "loha", "lokr", "vera", "oft", "boft", "adalora"));

TEST_P(Method, StartsAsThePlainLayer) {
  Adapted layer(small(GetParam()));
  EXPECT_FALSE(layer.adapter->initialize({}, 1).defined());
  EXPECT_TRUE(at::equal(layer.forward(), layer.plain()));
}

TEST_P(Method, IsThePlainLayerWhenOff) {
  Adapted layer(small(GetParam()));
  layer.randomise();
  EXPECT_FALSE(at::equal(layer.forward(), layer.plain()));
  EXPECT_TRUE(at::equal(layer.forward({.enabled = false}), layer.plain()));
}

TEST_P(Method, StartsAlikeFromOneSeedAndOtherwiseFromAnother) {
  recipes::Peft peft = small(GetParam());
  peft.init_weights = peft.init_lora_weights = false;
  peft.init_ia3_weights = false;
  Adapted one(peft), same(peft), other(peft);
  one.adapter->initialize({}, 5);
  same.adapter->initialize({}, 5);
  other.adapter->initialize({}, 6);
  for (size_t i = 0; i < one.parameters.size(); ++i) {
    const Parameter& p = one.parameters[i];
    EXPECT_TRUE(at::equal(p.master, same.parameters[i].master)) << p.name;
    const bool fixed = !p.trainable() || p.name.ends_with("vera_lambda_b");
    EXPECT_EQ(at::equal(p.master, other.parameters[i].master), fixed) << p.name;
  }
}

// As a plan of memory builds them.
TEST_P(Method, HasTheSameTensorsOnShapesAlone) {
  const Adapted real(small(GetParam())), planned(small(GetParam()), {.device = at::kMeta});
  ASSERT_EQ(planned.parameters.size(), real.parameters.size());
  for (size_t i = 0; i < real.parameters.size(); ++i) {
    EXPECT_TRUE(planned.parameters[i].value.is_meta());
    EXPECT_EQ(planned.parameters[i].value.sizes(), real.parameters[i].value.sizes());
    EXPECT_EQ(planned.parameters[i].master.sizes(), real.parameters[i].master.sizes());
  }
}

// What the buckets of a reducer do: `.grad` is set before backward, float32, and keeps its memory.
void expect_float32_gradients(const std::string& method, at::ScalarType compute, double tolerance) {
  Adapted exact(small(method));
  exact.randomise();
  Adapted rounded(small(method), {.compute = compute, .weights = compute});
  at::Tensor buffer = at::zeros({4096});
  int64_t used = 0;
  for (size_t i = 0; i < exact.parameters.size(); ++i) {
    const Parameter& p = rounded.parameters[i];
    if (!p.trainable()) continue;
    EXPECT_EQ(p.master.scalar_type(), at::kFloat);
    p.value.data().copy_(exact.parameters[i].value.data());
    p.value.mutable_grad() = buffer.narrow(0, used, p.value.numel()).view(p.value.sizes());
    used += p.value.numel();
  }
  for (int micro = 0; micro < 2; ++micro) {
    exact.forward().backward(exact.dy);
    rounded.forward().backward(rounded.dy);
  }
  used = 0;
  for (size_t i = 0; i < exact.parameters.size(); ++i) {
    const Parameter& p = rounded.parameters[i];
    if (!p.trainable()) continue;
    const at::Tensor expected = exact.parameters[i].value.grad();
    EXPECT_EQ(p.value.grad().data_ptr(), buffer.data_ptr<float>() + used) << p.name;
    EXPECT_EQ(p.value.grad().scalar_type(), at::kFloat);
    const double error = (p.value.grad() - expected).abs().max().item<double>();
    EXPECT_LE(error, tolerance * expected.abs().max().item<double>()) << p.name;
    used += p.value.numel();
  }
}

TEST_P(Method, TwoMicroBatchesAddUpInAFloat32GradientUnderBfloat16) {
  expect_float32_gradients(GetParam(), at::kBFloat16, 0.03);
}

TEST_P(Method, TwoMicroBatchesAddUpInAFloat32GradientUnderFloat16) {
  expect_float32_gradients(GetParam(), at::kHalf, 0.03 / 8);
}

TEST_P(Method, GradientsDoNotDependOnTheNumberOfThreads) {
  recipes::Peft peft = small(GetParam());
  peft.oft_block_size = 32;
  std::vector<at::Tensor> first;
  const int threads = at::get_num_threads();
  for (const int n : {1, 2}) {
    at::set_num_threads(n);
    Adapted layer(peft, {}, 192, 256, 320);
    layer.randomise();
    layer.forward().backward(layer.dy);
    size_t i = 0;
    for (const Parameter& p : layer.parameters) {
      if (!p.trainable()) continue;
      if (n == 1)
        first.push_back(p.value.grad());
      else
        EXPECT_TRUE(at::equal(p.value.grad(), first[i++])) << p.name;
    }
  }
  at::set_num_threads(threads);
}

TEST_P(Method, MergedLayerGivesWhatTheAdaptedOneGave) {
  Adapted layer(small(GetParam()));
  layer.randomise();
  const at::Tensor y = layer.forward();
  layer.adapter->merge(layer.weight, layer.bias, at::kFloat);
  const double error = (layer.plain() - y).abs().max().item<double>();
  EXPECT_LE(error, 2e-6 * y.abs().max().item<double>());
}

TEST(LoHa, RandomFactorsAreUniformByTheirColumns) {
  recipes::Peft peft = resolved("loha");
  Adapted layer(peft, {}, 400, 300);
  layer.adapter->initialize({}, 1);
  const auto expect_bound = [&](const char* suffix, double bound) {
    const at::Tensor t = layer.parameter(suffix).master.detach();
    EXPECT_LE(t.abs().max().item<double>(), bound);
    EXPECT_NEAR(t.std().item<double>(), bound / std::sqrt(3.0), 0.05 * bound);
  };
  expect_bound("hada_w1_a", 1 / std::sqrt(8.0));
  expect_bound("hada_w1_b", 1 / std::sqrt(300.0));
  expect_bound("hada_w2_a", 1 / std::sqrt(8.0));
  EXPECT_EQ(layer.parameter("hada_w2_b").master.abs().max().item<double>(), 0);
}

TEST(LoHa, RankDropoutTakesOutputFeaturesAndKeepsTheMean) {
  recipes::Peft peft = small("loha");
  peft.rank_dropout = 0.5;
  Adapted layer(peft);
  layer.randomise();
  const at::Tensor whole = layer.forward() - layer.plain();
  const AdapterContext context{.training = true, .seed = 11};
  const at::Tensor factor = ((layer.forward(context) - layer.plain()) / whole).mean(0);
  const at::Tensor dropped = factor.abs() < 1e-5;
  const int64_t count = dropped.sum().item<int64_t>();
  EXPECT_GT(count, 4);
  EXPECT_LT(count, 20);
  EXPECT_NEAR(factor.mean().item<double>(), 1, 1e-3);
  EXPECT_TRUE(at::equal(layer.forward(context), layer.forward(context)));
  EXPECT_FALSE(at::equal(layer.forward(context), layer.forward({.training = true, .seed = 12})));
}

TEST(LoKr, RankDropoutScalesOnlyWhenAsked) {
  for (const bool scale : {false, true}) {
    recipes::Peft peft = small("lokr");
    peft.rank_dropout = 0.5;
    peft.rank_dropout_scale = scale;
    Adapted layer(peft);
    layer.randomise();
    const at::Tensor whole = layer.forward() - layer.plain();
    const AdapterContext context{.training = true, .seed = 11};
    const at::Tensor factor = ((layer.forward(context) - layer.plain()) / whole).mean(0);
    const double kept = (factor.abs() > 1e-5).sum().item<double>() / 24;
    EXPECT_NEAR(factor.max().item<double>(), scale ? 1 / kept : 1, 1e-3);
  }
}

TEST(LoKr, ModuleDropoutLeavesOutTheWholeAdapterNowAndThen) {
  recipes::Peft peft = small("lokr");
  peft.module_dropout = 0.3;
  Adapted layer(peft);
  layer.randomise();
  int plain = 0;
  for (uint64_t seed = 0; seed < 200; ++seed)
    plain += at::equal(layer.forward({.training = true, .seed = seed}), layer.plain());
  EXPECT_GT(plain, 40);
  EXPECT_LT(plain, 80);
  EXPECT_FALSE(at::equal(layer.forward({.training = false}), layer.plain()));
}

TEST(LoKr, LycorisStartHasTheZeroInTheSecondFactor) {
  recipes::Peft peft = resolved("lokr");
  peft.r = 1;
  peft.init_weights = std::string("lycoris");
  Adapted layer(peft);  // 24 x 16: W1 4 x 4, W2 6 x 4
  layer.adapter->initialize({}, 1);
  EXPECT_GT(layer.parameter("lokr_w1").master.abs().max().item<double>(), 0);
  EXPECT_GT(layer.parameter("lokr_w2_a").master.abs().max().item<double>(), 0);
  EXPECT_EQ(layer.parameter("lokr_w2_b").master.abs().max().item<double>(), 0);
}

TEST(Vera, UnsavedProjectionsAreNoParameters) {
  recipes::Peft peft = small("vera");
  peft.save_projection = false;
  Adapted layer(peft);
  EXPECT_EQ(layer.parameters.size(), 2u);
  EXPECT_EQ(layer.tensors.shared().size(), 2u);
}

TEST(Oft, ConstrainedRotationsStayInTheirBallInTheWeightsThemselves) {
  recipes::Peft peft = small("oft");
  peft.coft = true;
  peft.eps = 0.1;
  Adapted layer(peft);
  layer.randomise();
  layer.forward();
  // Frobenius norm of a skew matrix: each angle counts twice. 4 blocks.
  const at::Tensor norms =
      std::sqrt(2.0) * layer.parameter("oft_R.weight").master.detach().norm(2, {1});
  EXPECT_NEAR(norms.max().item<double>(), 0.1 / 2, 1e-6);
}

TEST(Boft, DropoutLeavesAShareOfTheBlocksAlone) {
  recipes::Peft peft = small("boft");
  peft.boft_dropout = 0.5;  // 2 of 4 blocks
  Adapted layer(peft, {}, 16, 16);
  layer.randomise();
  layer.weight = at::eye(16);
  layer.parameter("boft_s").value.data().fill_(1);
  const at::Tensor y = layer.forward({.training = true, .seed = 4}) - layer.bias;
  int same = 0;
  for (int64_t block = 0; block < 4; ++block)
    same += at::allclose(y.narrow(1, 4 * block, 4), layer.x.narrow(1, 4 * block, 4), 1e-5, 1e-6);
  EXPECT_EQ(same, 2);
}

std::string refusal(const recipes::Peft& peft) {
  try {
    Adapted layer(peft);
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

TEST(BadMethod, RankAboveTheMatrixIsRefusedByName) {
  recipes::Peft peft = resolved("loha");
  peft.r = 17;
  EXPECT_EQ(refusal(peft),
            "peft.r = 17: above the matrix of 'q_proj' (24 x 16): at most 16 there "
            "(peft.rank_pattern sets one module's, peft.exclude_modules leaves it out)");
  peft.rank_pattern["q_proj"] = 2;
  EXPECT_EQ(refusal(peft), "");
  peft = resolved("adalora");
  peft.init_r = 20;
  EXPECT_TRUE(refusal(peft).starts_with("peft.init_r = 20: above the matrix of 'q_proj'"));
}

TEST(BadMethod, BlocksThatDoNotFitAreRefusedWithThoseThatDo) {
  recipes::Peft peft = resolved("oft");
  peft.oft_block_size = 5;
  EXPECT_EQ(
      refusal(peft),
      "peft.oft_block_size = 5: must divide the 16 input features of 'q_proj': 1, 2, 4, 8, 16");
  peft.r = 4;
  EXPECT_EQ(refusal(peft),
            "peft.r = 4, peft.oft_block_size = 5: give the number of blocks or their size and set "
            "the other to 0");
  peft = resolved("boft");
  peft.boft_block_size = 0;
  peft.boft_block_num = 3;
  EXPECT_EQ(
      refusal(peft),
      "peft.boft_block_num = 3: must divide the 16 input features of 'q_proj': 1, 2, 4, 8, 16");
  peft = resolved("boft");
  peft.boft_n_butterfly_factor = 4;
  EXPECT_EQ(refusal(peft),
            "peft.boft_n_butterfly_factor = 4: 'q_proj' has 4 blocks of 4: needs blocks of an even "
            "size, and a number of them that 2^3 divides");
}

TEST(Ia3, FeedforwardModulesAreFoundByTheEndOfTheirNameOrByAPattern) {
  recipes::Peft peft = resolved("ia3");
  const auto shape = [&] { return Adapted(peft).parameter("ia3_l").value.sizes().vec(); };
  EXPECT_EQ(shape(), (std::vector<int64_t>{24, 1}));
  peft.feedforward_modules = std::vector<std::string>{"proj"};
  EXPECT_EQ(shape(), (std::vector<int64_t>{1, 16}));
  peft.feedforward_modules = std::string(".*_proj");
  EXPECT_EQ(shape(), (std::vector<int64_t>{1, 16}));
  peft.feedforward_modules = std::string("proj");
  EXPECT_EQ(shape(), (std::vector<int64_t>{24, 1}));
}

struct Budgeted {
  explicit Budgeted(const recipes::Peft& peft) : layer(peft), allocator(peft, layer.parameters) {
    layer.randomise();
  }
  void step(int64_t step) {
    at::manual_seed(step);
    for (const Parameter& p : layer.parameters) {
      p.value.mutable_grad() = at::randn(p.value.sizes());
      p.master.data().add_(p.value.grad(), -0.1);
    }
    allocator.step(step, 1);
  }
  int64_t alive() const { return layer.parameter("lora_E").master.count_nonzero().item<int64_t>(); }

  Adapted layer;
  RankAllocator allocator;
};

TEST(RankAllocator, BudgetFallsAsACubeFromTheFirstRankToTheTarget) {
  recipes::Peft peft = resolved("adalora");
  peft.tinit = 10;
  peft.tfinal = 20;
  Budgeted budgeted(peft);  // 12 -> 8 over steps 10 to 80
  EXPECT_EQ(budgeted.allocator.budget(1), 12);
  EXPECT_EQ(budgeted.allocator.budget(10), 12);
  EXPECT_EQ(budgeted.allocator.budget(45), 8);   // 8 + 4 / 8
  EXPECT_EQ(budgeted.allocator.budget(24), 10);  // 8 + 4 * 0.8^3
  EXPECT_EQ(budgeted.allocator.budget(80), 8);
  EXPECT_EQ(budgeted.allocator.budget(99), 8);
}

TEST(RankAllocator, ContinuesFromItsState) {
  recipes::Peft peft = small("adalora");
  peft.total_step = 12;
  peft.tfinal = 3;
  Budgeted whole(peft);
  for (int64_t step = 1; step <= 5; ++step) whole.step(step);
  Budgeted resumed(peft);
  for (size_t i = 0; i < whole.layer.parameters.size(); ++i)
    resumed.layer.parameters[i].master.data().copy_(whole.layer.parameters[i].master.data());
  const auto saved = whole.allocator.state();
  const auto loaded = resumed.allocator.state();
  ASSERT_EQ(saved.size(), 7u);
  for (size_t i = 0; i < saved.size(); ++i) loaded[i].second.copy_(saved[i].second);
  for (int64_t step = 6; step <= 12; ++step) {
    whole.step(step);
    resumed.step(step);
    EXPECT_TRUE(
        at::equal(whole.layer.parameter("lora_E").master, resumed.layer.parameter("lora_E").master))
        << step;
  }
  EXPECT_EQ(resumed.alive(), 2);
}

TEST(RankAllocator, ReachesItsBudgetAlsoWhereTheStepOfTheLastCutWasSkipped) {
  recipes::Peft peft = small("adalora");
  peft.total_step = 6;
  peft.tfinal = 2;
  peft.deltaT = 100;  // no cut before the last one, which is at step 4
  Budgeted whole(peft), skipped(peft);
  for (int64_t step = 1; step <= 6; ++step) {
    whole.step(step);
    if (step == 4) {
      EXPECT_EQ(whole.alive(), 2);
      EXPECT_GT(skipped.alive(), 2);
      continue;
    }
    skipped.step(step);
  }
  EXPECT_EQ(skipped.alive(), 2);
}

TEST(RankAllocator, RefusesSchedulesThatCannotPrune) {
  recipes::Peft peft = small("adalora");
  peft.total_step = 10;
  peft.tinit = 6;
  peft.tfinal = 4;
  EXPECT_THROW(Budgeted{peft}, UserError);
  peft.tinit = 5;
  EXPECT_NO_THROW(Budgeted{peft});
  peft.target_r = 5;
  EXPECT_THROW(Budgeted{peft}, UserError);
}

}  // namespace
}  // namespace temper::trainer
