#include "trainer/ops/linear.h"

#include <cmath>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "tests/trainer/ops/compare.h"
#include "trainer/ops/checkpoint.h"
#include "trainer/ops/rms_norm.h"

namespace temper::trainer {
namespace {

Projection projection_of(std::vector<int64_t> rows, int64_t columns, at::ScalarType dtype,
                         bool bias) {
  int64_t all = 0;
  for (const int64_t r : rows) all += r;
  Projection p;
  p.weight = at::randn({all, columns}).to(dtype);
  p.rows = rows;
  if (bias) p.bias = at::randn({all}).to(dtype);
  int64_t first = 0;
  for (const int64_t r : rows) {
    p.weights.push_back(p.weight.narrow(0, first, r).detach().requires_grad_(true));
    if (bias) p.biases.push_back(p.bias.narrow(0, first, r).detach().requires_grad_(true));
    first += r;
  }
  return p;
}

TEST(Linear, ValuesAndGradientsOfStackedProjectionsEqualSeparateOnes) {
  at::manual_seed(7);
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const Projection p = projection_of({24, 8, 8}, 32, dtype, true);
    const at::Tensor x = leaf(at::randn({90, 32}), dtype),
                     residual = leaf(at::randn({90, 40}), dtype);
    const at::Tensor slow_x = exact(x), slow_residual = exact(residual);
    std::vector<at::Tensor> slow_w, slow_b, parts;
    for (int i = 0; i < 3; ++i) {
      slow_w.push_back(exact(p.weights[i]));
      slow_b.push_back(exact(p.biases[i]));
      parts.push_back(at::linear(slow_x, slow_w[i], slow_b[i]));
    }
    const at::Tensor y = linear(x, p, residual), slow_y = at::cat(parts, 1) + slow_residual;
    EXPECT_LT(worst(y, slow_y), tolerance(dtype));
    const at::Tensor dy = at::randn({90, 40}).to(dtype);
    y.backward(dy);
    slow_y.backward(dy.to(at::kDouble));
    EXPECT_LT(worst(x.grad(), slow_x.grad()), tolerance(dtype));
    EXPECT_TRUE(residual.grad().equal(dy));
    for (int i = 0; i < 3; ++i) {
      // From bfloat16 inputs too the sum is float32: what remains is the order of the sum.
      EXPECT_LT(worst(p.weights[i].grad(), slow_w[i].grad()), 3e-6);
      EXPECT_LT(worst(p.biases[i].grad(), slow_b[i].grad()), 3e-6);
    }
  }
}

// LoRA on the given parts, B drawn too, so that every gradient is there.
std::shared_ptr<LowRank> low_rank_of(const Projection& p, const std::vector<size_t>& parts,
                                     const std::vector<int64_t>& ranks, at::ScalarType dtype) {
  auto lora = std::make_shared<LowRank>();
  int64_t all = 0, first = 0;
  for (const int64_t rank : ranks) all += rank;
  lora->a = at::randn({all, p.weight.size(1)}).to(dtype);
  lora->context = std::make_shared<AdapterContext>(AdapterContext{.training = true, .seed = 5});
  for (size_t i = 0; i < parts.size(); ++i) {
    lora->parts.push_back(
        {.part = parts[i],
         .module = "part" + std::to_string(parts[i]),
         .a = lora->a.narrow(0, first, ranks[i]).detach().requires_grad_(true),
         .b = leaf(at::randn({p.rows[parts[i]], ranks[i]}), dtype),
         .bias = i == 0 ? leaf(at::randn({p.rows[parts[i]]}), dtype) : at::Tensor(),
         .scale = 0.5 + static_cast<double>(i)});
    first += ranks[i];
  }
  return lora;
}

void expect_lora_of_its_definition(at::ScalarType dtype, double dropout,
                                   const std::vector<int64_t>& ranks = {4, 6}) {
  at::manual_seed(11);
  Projection p = projection_of({24, 8, 16}, 32, dtype, true);
  for (auto& weight : p.weights) weight.requires_grad_(false);
  const auto lora = low_rank_of(p, {0, 2}, ranks, dtype);
  lora->dropout = dropout;
  p.low_rank = lora;
  const at::Tensor x = leaf(at::randn({90, 32}), dtype),
                   residual = leaf(at::randn({90, 48}), dtype);
  const at::Tensor slow_x = exact(x);
  std::vector<at::Tensor> parts, slow;
  size_t next = 0;
  for (size_t i = 0; i < 3; ++i) {
    at::Tensor y = at::linear(slow_x, exact(p.weights[i]), exact(p.biases[i]));
    if (next < lora->parts.size() && lora->parts[next].part == i) {
      const LowRankPart& part = lora->parts[next++];
      const at::Tensor mask = dropout == 0 ? at::ones({90, 32}, at::kDouble)
                                           : masked(at::ones({90, 32}), dropout,
                                                    dropout_seed(part.module, *lora->context))
                                                 .to(at::kDouble);
      slow.insert(slow.end(), {exact(part.a), exact(part.b)});
      y = y +
          part.scale * at::mm(at::mm(slow_x * mask, slow[slow.size() - 2].t()), slow.back().t());
      if (part.bias.defined()) {
        slow.push_back(exact(part.bias));
        y = y + part.scale * slow.back();
      }
    }
    parts.push_back(y);
  }
  const at::Tensor slow_y = at::cat(parts, 1) + exact(residual);
  const at::Tensor y = linear(x, p, residual);
  EXPECT_LT(worst(y, slow_y), tolerance(dtype));
  const at::Tensor dy = at::randn({90, 48}).to(dtype);
  y.backward(dy);
  slow_y.backward(dy.to(at::kDouble));
  EXPECT_LT(worst(x.grad(), slow_x.grad()), tolerance(dtype));
  size_t i = 0;
  for (const LowRankPart& part : lora->parts) {
    EXPECT_LT(worst(part.a.grad(), slow[i++].grad()), tolerance(dtype));
    EXPECT_LT(worst(part.b.grad(), slow[i++].grad()), tolerance(dtype));
    if (part.bias.defined()) {
      EXPECT_LT(worst(part.bias.grad(), slow[i++].grad()), tolerance(dtype));
    }
    EXPECT_EQ(part.a.grad().scalar_type(), at::kFloat);
  }
  EXPECT_FALSE(p.weights[0].grad().defined());
}

TEST(LowRank, ValuesAndGradientsAreThoseOfTheDefinition) {
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) expect_lora_of_its_definition(dtype, 0);
}

TEST(LowRank, DropoutHasAMaskForEachPartAndDrawsItAgainInBackward) {
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) expect_lora_of_its_definition(dtype, 0.3);
}

TEST(LowRank, OddRanksAreThoseOfTheDefinition) {
  const std::vector<std::vector<int64_t>> odd = {{1, 1}, {3, 6}, {7, 5}, {4, 9}};
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (const auto& ranks : odd) {
      SCOPED_TRACE(testing::Message() << dtype << ", ranks " << ranks[0] << " and " << ranks[1]);
      expect_lora_of_its_definition(dtype, 0, ranks);
      expect_lora_of_its_definition(dtype, 0.3, ranks);
    }
  }
}

// Decoding dequantises in registers; training and evaluation dequantise whole matrices.
TEST(LowRank, AFewRowsOnQuantisedWeightsEqualManyRows) {
  const at::NoGradGuard off;
  at::manual_seed(13);
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (const QuantKind kind : {QuantKind::kNf4, QuantKind::kInt8}) {
      Projection p = projection_of({24, 8}, 128, dtype, true);
      p.low_rank = low_rank_of(p, {1}, {4}, dtype);
      for (const auto& weight : p.weights) {
        p.quantized.push_back(quantize(weight, kind, kind == QuantKind::kNf4, "w"));
      }
      p.weight = at::Tensor();
      p.weights.clear();
      const at::Tensor x = at::randn({40, 128}).to(dtype), residual = at::randn({40, 32}).to(dtype);
      const at::Tensor all = linear(x, p, residual);
      const at::Tensor few = linear(x.narrow(0, 0, 3).contiguous(), p, residual.narrow(0, 0, 3));
      EXPECT_LT(worst(few, all.narrow(0, 0, 3)), dtype == at::kFloat ? 1e-6 : 2e-2);
    }
  }
}

TEST(LowRank, SwitchedOffIsTheBaseAlone) {
  at::manual_seed(12);
  Projection p = projection_of({24, 8}, 32, at::kFloat, false);
  const at::Tensor x = at::randn({20, 32});
  const at::Tensor base = linear(x, p);
  auto lora = low_rank_of(p, {0, 1}, {2, 2}, at::kFloat);
  auto context = std::make_shared<AdapterContext>();
  lora->context = context;
  p.low_rank = lora;
  EXPECT_FALSE(linear(x, p).equal(base));
  context->enabled = false;
  EXPECT_TRUE(linear(x, p).equal(base));
}

TEST(Dropout, KeepsTheShareAndTheMeanAndDependsOnSeedAndModuleAlone) {
  const at::Tensor ones = at::ones({1000, 100});
  AdapterContext context{.training = true, .seed = 1};
  const at::Tensor first = adapter_dropout(ones, 0.2, "a", context);
  EXPECT_NEAR(first.eq(0).to(at::kFloat).mean().item<double>(), 0.2, 0.005);
  EXPECT_NEAR(first.mean().item<double>(), 1.0, 0.01);
  EXPECT_TRUE(first.equal(adapter_dropout(ones, 0.2, "a", context)));
  EXPECT_FALSE(first.equal(adapter_dropout(ones, 0.2, "b", context)));
  context.seed = 2;
  EXPECT_FALSE(first.equal(adapter_dropout(ones, 0.2, "a", context)));
  context.training = false;
  EXPECT_TRUE(adapter_dropout(ones, 0.2, "a", context).is_same(ones));
}

TEST(Linear, AddsToGradientsThatAreThereAndLeavesFrozenWeightsAlone) {
  const Projection p = projection_of({16, 16}, 16, at::kFloat, false);
  p.weights[1].requires_grad_(false);
  const at::Tensor bucket = at::full({16 * 16}, 3.0);
  p.weights[0].mutable_grad() = bucket.view({16, 16});
  const at::Tensor x = at::ones({32, 16});
  linear(x, p).sum().backward();
  EXPECT_TRUE(bucket.eq(35.0).all().item<bool>());
  EXPECT_EQ(p.weights[0].grad().data_ptr(), bucket.data_ptr());
  EXPECT_FALSE(p.weights[1].grad().defined());
}

TEST(Linear, GradientsFromAnInputMadeAgainAreTheSameBits) {
  at::manual_seed(8);
  const at::Tensor x = at::randn({64, 32}), norm = at::rand({32});
  at::Tensor gradients[2];
  for (const bool again : {false, true}) {
    at::manual_seed(9);
    const Projection p = projection_of({48}, 32, at::kFloat, false);
    const at::Tensor in = x.clone().requires_grad_(true);
    const auto [through, normed] = rms_norm(in, norm, 1e-6);
    std::function<at::Tensor()> make;
    if (again) make = [kept = in.detach(), norm] { return rms_norm_again(kept, norm, 1e-6); };
    linear(normed, p, {}, make).pow(2).sum().backward();
    gradients[again ? 1 : 0] = p.weights[0].grad();
  }
  EXPECT_TRUE(gradients[0].equal(gradients[1]));
}

TEST(Linear, GradientBitsDoNotDependOnThreads) {
  at::manual_seed(10);
  const at::Tensor x = at::randn({700, 64}), dy = at::randn({700, 160});
  const int threads = at::get_num_threads();
  at::Tensor weights[2], biases[2];
  for (const int count : {1, 2}) {
    at::manual_seed(11);
    const Projection p = projection_of({160}, 64, at::kFloat, true);
    at::set_num_threads(count);
    linear(x, p).backward(dy);
    weights[count - 1] = p.weights[0].grad();
    biases[count - 1] = p.biases[0].grad();
  }
  at::set_num_threads(threads);
  EXPECT_TRUE(weights[0].equal(weights[1]));
  EXPECT_TRUE(biases[0].equal(biases[1]));
}

// Of unequal sizes, so that one scale for all would be another; the last part's rows fit no
// hardware.
Projection float8_projection(Float8Scaling scaling, at::ScalarType dtype) {
  Projection p = projection_of({32, 16, 24}, 48, dtype, true);
  p.weight.narrow(0, 32, 16).mul_(30);
  p.float8 = scaling;
  return p;
}

TEST(LinearInFloat8, EachPartIsALayerOfItsOwnAndOneThatDoesNotFitStaysAsItIs) {
  for (const auto scaling : {Float8Scaling::kTensorwise, Float8Scaling::kRowwise}) {
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      at::manual_seed(14);
      const Projection p = float8_projection(scaling, dtype);
      const at::Tensor x = leaf(at::randn({41, 48}), dtype), residual = at::randn({41, 72}).to(dtype);
      const at::Tensor dy = at::randn({41, 72}).to(dtype);
      const at::Tensor y = linear(x, p, residual);
      y.backward(dy);
      std::vector<at::Tensor> parts;
      const at::Tensor own_x = leaf(x.detach(), dtype);
      int64_t first = 0;
      for (size_t i = 0; i < 3; ++i) {
        Projection own;
        own.weight = p.weight.narrow(0, first, p.rows[i]);
        own.bias = p.bias.narrow(0, first, p.rows[i]);
        own.rows = {p.rows[i]};
        own.weights = {own.weight.detach().clone().requires_grad_(true)};
        own.biases = {own.bias.detach()};
        if (i < 2) own.float8 = scaling;
        parts.push_back(linear(own_x, own, residual.narrow(1, first, p.rows[i]).contiguous()));
        parts.back().backward(dy.narrow(1, first, p.rows[i]).contiguous());
        EXPECT_TRUE(p.weights[i].grad().equal(own.weights[0].grad())) << i;
        first += p.rows[i];
      }
      EXPECT_TRUE(y.equal(at::cat(parts, 1)));
      EXPECT_LT(worst(x.grad(), own_x.grad()), tolerance(dtype));
    }
  }
}

TEST(LinearInFloat8, LoraIsAddedInTheTypeOfTheInput) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const double dropout : {0.0, 0.3}) {
      at::manual_seed(15);
      Projection p = float8_projection(Float8Scaling::kTensorwise, dtype);
      for (auto& weight : p.weights) weight.requires_grad_(false);
      const at::Tensor x = at::randn({41, 48}), dy = at::randn({41, 72}).to(dtype);
      // y, then the gradients of x, A and B.
      const auto outcome = [&](bool float8, bool adapted) {
        at::manual_seed(16);
        p.float8.reset();
        if (float8) p.float8 = Float8Scaling::kTensorwise;
        const auto lora = low_rank_of(p, {0, 2}, {4, 6}, dtype);
        lora->dropout = dropout;
        p.low_rank = adapted ? lora : nullptr;
        const at::Tensor in = leaf(x, dtype), y = linear(in, p);
        y.backward(dy);
        std::vector<at::Tensor> all = {y.detach(), in.grad()};
        for (const LowRankPart& part : lora->parts) {
          all.push_back(part.a.grad());
          all.push_back(part.b.grad());
        }
        return all;
      };
      const auto plain = outcome(false, false), adapted = outcome(false, true);
      const auto float8 = outcome(true, false), both = outcome(true, true);
      for (const size_t i : {size_t{0}, size_t{1}}) {
        const auto wide = [&](const std::vector<at::Tensor>& of) { return of[i].to(at::kDouble); };
        EXPECT_GT(worst(float8[i], plain[i]), 5e-3) << i;
        // Each of the four is rounded once a term.
        EXPECT_LT(worst(both[i], wide(float8) + wide(adapted) - wide(plain)), 2 * tolerance(dtype))
            << i;
      }
      for (size_t i = 2; i < both.size(); ++i) EXPECT_TRUE(both[i].equal(adapted[i])) << i;
    }
  }
}

TEST(LinearInFloat8, DecodingIsInTheTypeOfTheInput) {
  at::manual_seed(17);
  Projection p = float8_projection(Float8Scaling::kRowwise, at::kBFloat16);
  const at::Tensor x = at::randn({3, 48}).to(at::kBFloat16);
  const at::Tensor float8 = linear(x, p);
  at::Tensor decoded;
  {
    const WithoutFloat8 off;
    decoded = linear(x, p);
  }
  p.float8.reset();
  EXPECT_TRUE(decoded.equal(linear(x, p)));
  EXPECT_FALSE(decoded.equal(float8));
}

TEST(LinearInFloat8, WhatIsNotFiniteIsSeenInTheLoss) {
  for (const auto scaling : {Float8Scaling::kTensorwise, Float8Scaling::kRowwise}) {
    for (const double bad : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
      at::manual_seed(18);
      const Projection p = float8_projection(scaling, at::kFloat);
      at::Tensor x = at::randn({8, 48});
      x[5][7] = bad;
      EXPECT_FALSE(linear(x, p)[5].sum().isfinite().item<bool>()) << bad;
    }
  }
}

TEST(Checkpoint, GivesParametersTheirGradientsAlsoWhenTheInputHasNone) {
  at::manual_seed(12);
  const at::Tensor x = at::randn({32, 16});
  at::Tensor gradients[2];
  for (const bool checkpointed : {false, true}) {
    at::manual_seed(13);
    const Projection p = projection_of({16}, 16, at::kFloat, false);
    const auto f = [&p](const at::Tensor& in, const at::Tensor&) { return linear(in, p).pow(2); };
    (checkpointed ? checkpoint(f, x) : f(x, {})).sum().backward();
    gradients[checkpointed ? 1 : 0] = p.weights[0].grad();
  }
  EXPECT_TRUE(gradients[0].equal(gradients[1]));
}

}  // namespace
}  // namespace temper::trainer
