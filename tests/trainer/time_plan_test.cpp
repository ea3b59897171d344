#include "trainer/time_plan.h"

#include <gtest/gtest.h>

#include "tests/bench/llama_58m.h"
#include "trainer/memory_plan.h"

namespace temper::trainer {
namespace {

ModelConfig model() { return llama_58m(); }

// 1 TFLOP/s whatever the product, 2 in attention; memory of 100 GB/s.
DeviceRates rates() {
  DeviceRates rates;
  TypeRates& type = rates.of(recipes::Dtype::kFp32);
  type.peak = 1e12;
  type.products.fill(1e12);
  type.weight_gradients.fill(1e12);
  type.attention = 2e12;
  type.logits = 1e9;
  rates.copy_bytes_per_second = 1e11;
  return rates;
}

recipes::Recipe full() {
  recipes::Recipe recipe;
  recipe.model.dtype = recipe.train.precision = recipes::Dtype::kFp32;
  recipe.optimizer.kind = "adamw";
  return recipe;
}

recipes::Recipe lora() {
  recipes::Recipe recipe = full();
  recipe.peft.method = "lora";
  recipe.peft.r = 16;
  return recipe;
}

StepWork work(double tokens) {
  return {.tokens = tokens,
          .supervised = tokens,
          .attended = 256.5,
          .trainable = parameter_count(model())};
}

// 1.2M elements of rank 16 on all layers.
StepWork adapter_work(double tokens) {
  StepWork given = work(tokens);
  given.trainable = 1'200'000;
  return given;
}

StepTime predict(const recipes::Recipe& recipe, const StepWork& given,
                 const std::optional<LinkRates>& link = {}) {
  return predict_step(recipe, model(), given, rates(), link);
}

// Of the products' weights: 8 blocks and the head.
constexpr double kBlocks = 8.0 * (512 * 1024 + 512 * 512 + 512 * 3072 + 1536 * 512),
                 kHead = 512.0 * 32000;

TEST(TimePlan, ProductsAreSixFlopsAWeightAndTokenAndAttentionTwelveAFeatureAndPair) {
  const StepTime time = predict(full(), work(4096));
  EXPECT_NEAR(time.products, 6 * (kBlocks + kHead) * 4096 / 1e12, 1e-6);
  EXPECT_NEAR(time.attention, 12.0 * 8 * 512 * 256.5 * 4096 / 2e12, 1e-6);
  EXPECT_NEAR(time.loss, 4096 * 32000 / 1e9, 1e-6);
  EXPECT_EQ(time.recomputation, 0);
  EXPECT_EQ(time.second_model, 0);
  EXPECT_EQ(time.quantization, 0);
  EXPECT_EQ(time.exchange, 0);
}

TEST(TimePlan, TwiceTheTokensTakeTwiceTheTimeButForTheOptimizer) {
  const StepTime one = predict(full(), work(4096)), two = predict(full(), work(8192));
  EXPECT_EQ(two.optimizer, one.optimizer);
  EXPECT_NEAR(two.total() - two.optimizer, 2 * (one.total() - one.optimizer), 1e-6);
}

TEST(TimePlan, AFewTokensTakeAsLongAsReadingTheWeights) {
  // 4 bytes a weight: a product forward and one back, and the sums of its gradient, read and
  // written.
  EXPECT_NEAR(predict(full(), work(1)).products, (4 + 4 + 8) * (kBlocks + kHead) / 1e11, 1e-4);
}

TEST(TimePlan, AdaptersDoWithoutTheGradientsOfWeights) {
  const double whole = predict(full(), work(4096)).products;
  EXPECT_NEAR(predict(lora(), adapter_work(4096)).products, whole * 4 / 6 + 6 * 1.2e6 * 4096 / 1e12,
              1e-6);
  // Not of those that are frozen by name either.
  StepWork half = work(4096);
  half.trainable /= 2;
  EXPECT_NEAR(predict(full(), half).products, whole * 5 / 6, 1e-6);
}

TEST(TimePlan, CheckpointingAddsTheBlocksForwardPass) {
  recipes::Recipe recipe = full();
  recipe.train.activation_checkpointing = recipes::ActivationCheckpointing::kFull;
  const StepTime again = predict(recipe, work(4096));
  EXPECT_GT(again.recomputation, 2 * kBlocks * 4096 / 1e12 + again.attention / 3);
  EXPECT_LT(again.recomputation,
            2 * kBlocks * 4096 / 1e12 + again.attention / 3 + again.elementwise / 2);
  EXPECT_EQ(again.products, predict(full(), work(4096)).products);
  recipe.train.activation_checkpointing = recipes::ActivationCheckpointing::kSelective;
  const double selective = predict(recipe, work(4096)).recomputation;
  EXPECT_GT(selective, 0);
  EXPECT_LT(selective, again.elementwise / 2);
}

TEST(TimePlan, OnlySupervisedTokensNeedLogits) {
  StepWork some = work(4096);
  some.supervised = 1024;
  EXPECT_NEAR(predict(full(), some).products, 6 * (kBlocks * 4096 + kHead * 1024) / 1e12, 1e-6);
  EXPECT_NEAR(predict(full(), some).loss, predict(full(), work(1024)).loss, 1e-9);
}

TEST(TimePlan, ASecondModelGoesForwardAndLogitsOfPairsAreMadeTwice) {
  recipes::Recipe recipe = full();
  recipe.objective.kind = "dpo";
  StepWork given = work(4096);
  given.second_model = model();
  const StepTime time = predict(recipe, given);
  const double forward = 2 * (kBlocks + kHead) * 4096 / 1e12 + time.attention / 3;
  EXPECT_GT(time.second_model, forward);
  EXPECT_LT(time.second_model, forward + time.elementwise / 2 + time.loss / 2);
  EXPECT_GT(time.recomputation, 2 * kHead * 4096 / 1e12);
}

TEST(TimePlan, QuantisedWeightsAreMadeWholeForEachProduct) {
  recipes::Recipe recipe = lora();
  recipe.model.quantize = "nf4";
  const double twice = 2 * kBlocks * (0.5 + 4) / 1e11;
  EXPECT_NEAR(predict(recipe, adapter_work(4096)).quantization, twice, 1e-9);
  StepWork two = adapter_work(4096);
  two.micro_batches = 2;
  EXPECT_NEAR(predict(recipe, two).quantization, 2 * twice, 1e-9);
  recipe.train.activation_checkpointing = recipes::ActivationCheckpointing::kFull;
  EXPECT_NEAR(predict(recipe, adapter_work(4096)).quantization, 1.5 * twice, 1e-9);
}

TEST(TimePlan, WindowsBoundWhatATokenAttendsTo) {
  ModelConfig config = model();
  config.sliding_window.assign(8, 128);
  const StepTime all = predict(full(), work(4096)),
                 seen = predict_step(full(), config, work(4096), rates());
  EXPECT_NEAR(seen.attention, all.attention * 128 / 256.5, 1e-9);
}

// Between two ranks, 10 GB/s, no latency.
LinkRates link(double bytes_per_second = 1e10) {
  return {.ranks = 2,
          .hosts = 1,
          .all_reduce_bytes_per_second = bytes_per_second,
          .all_gather_bytes_per_second = bytes_per_second};
}

TEST(TimePlan, BackwardHidesAllButTheLastBucketOfAQuickLink) {
  StepWork two = adapter_work(4096);
  two.ranks = 2;
  EXPECT_EQ(predict(lora(), two).exchange, 0);                                 // no rate
  EXPECT_NEAR(predict(lora(), two, link()).exchange, 4 * 1.2e6 / 1e10, 1e-9);  // less than a bucket
  two.trainable = 100 << 20;
  EXPECT_NEAR(predict(lora(), two, link()).exchange, (25 << 20) / 1e10, 1e-9);
  // What does not end in time is waited for.
  const double all = 4.0 * (100 << 20) / 1e8;
  EXPECT_GT(predict(lora(), two, link(1e8)).exchange, all - predict(lora(), two).total());
  EXPECT_LT(predict(lora(), two, link(1e8)).exchange, all);
}

TEST(TimePlan, MoreRanksSendMoreOfATensor) {
  StepWork some = adapter_work(4096);
  some.ranks = 2;
  const double two = predict(lora(), some, link()).exchange;
  some.ranks = 1024;
  EXPECT_NEAR(predict(lora(), some, link()).exchange, 2 * two * 1023 / 1024, 1e-9);
}

TEST(TimePlan, ALargeEmbeddingIsTheLastBucketOfItsTouchedRows) {
  StepWork two = work(64);
  two.ranks = 2;
  const double last = 4.0 * 512 * 64 * 2 / 1e9;
  EXPECT_GE(predict(full(), two, link(1e9)).exchange, last);
  two.tokens = two.supervised = 1e5;  // all rows; backward hides the rest
  EXPECT_NEAR(predict(full(), two, link()).exchange, 4.0 * 512 * 32000 / 1e10, 1e-9);
}

TEST(TimePlan, ShardedValuesAreGatheredInTheOpenOrBlockByBlock) {
  recipes::Recipe recipe = full();
  recipe.parallel.shard = 2;
  recipe.parallel.zero = 1;
  StepWork two = work(4096);
  two.ranks = 2;
  const double values = 4.0 * static_cast<double>(two.trainable) / 1e10;
  const StepTime first = predict(recipe, two, link());
  EXPECT_NEAR(first.exchange, values + (25 << 20) / 1e10 / 2, 1e-9);
  EXPECT_NEAR(first.optimizer, predict(full(), two).optimizer / 2, 1e-9);
  recipe.parallel.zero = 3;
  EXPECT_LT(predict(recipe, two, link()).exchange, first.exchange);
}

TEST(TimePlan, WhatIsNotPredictedIsSaid) {
  EXPECT_EQ(not_predicted(full()), "");
  EXPECT_EQ(not_predicted(lora()), "");
  recipes::Recipe recipe = full();
  recipe.objective.kind = "grpo";
  EXPECT_NE(not_predicted(recipe).find("samples completions"), std::string::npos);
  recipe = lora();
  recipe.peft.method = "oft";
  EXPECT_NE(not_predicted(recipe).find("peft.method = \"oft\""), std::string::npos);
}

}  // namespace
}  // namespace temper::trainer
