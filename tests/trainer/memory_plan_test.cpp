#include "trainer/memory_plan.h"

#include <fstream>

#include <gtest/gtest.h>

#include "recipes/peft_methods.h"
#include "tests/trainer/checkpoint/scratch.h"
#include "tests/trainer/llama_shape.h"
#include "trainer/models/model.h"

namespace temper::trainer {
namespace {

// 8 completions a step, 4 a prompt.
recipes::Recipe rollouts() {
  recipes::Recipe recipe;
  recipe.model.dtype = recipes::Dtype::kFp32;
  recipe.train.precision = recipes::Dtype::kFp32;
  recipe.data.max_length = 16;
  recipe.objective.kind = "grpo";
  recipe.objective.num_generations = 4;
  recipe.objective.max_completion_length = 20;
  recipe.batch = {.global = 8, .micro = 4};
  return recipe;
}

// Keys and values of 16 tokens: 2 layers of 2 heads of 4 floats.
constexpr int64_t kPage = 16 * 2 * 2 * 2 * 4 * 4;

// All weights but the embedding, packed for decoding.
int64_t packed() {
  const ModelConfig config = llama_of({});
  const int64_t embedding = config.vocab_size * config.hidden_size;
  return 4 * (parameter_count(config) - (config.tie_word_embeddings ? 0 : embedding));
}

MemoryPlan plan(const recipes::Recipe& recipe, int64_t ranks = 1) {
  return plan_memory(recipe, llama_of({}), ranks);
}

TEST(MemoryPlan, RolloutsHaveThePagesOfTheirPromptsAndOfEachCompletion) {
  // A page a prompt, of which 8 completions touch at most 3; each has 2 and the one it shares no more.
  EXPECT_EQ(plan(rollouts()).rollouts, (3 + 8 * 3) * kPage + packed());
  EXPECT_EQ(plan(rollouts(), 2).rollouts, (2 + 4 * 3) * kPage + packed());
  recipes::Recipe supervised = rollouts();
  supervised.objective = {};
  EXPECT_EQ(plan(supervised).rollouts, 0);
}

TEST(MemoryPlan, NoMoreCompletionsAreSampledAtOnceThanTheEngineHasSlots) {
  recipes::Recipe recipe = rollouts();
  recipe.batch.global = 4096;
  const int64_t all = plan(recipe).rollouts;
  EXPECT_EQ(all, (17 + 64 * 3) * kPage + packed());
  recipe.objective.steps_per_generation = 1;  // micro-batches
  EXPECT_EQ(plan(recipe).rollouts, (2 + 4 * 3) * kPage + packed());
  recipe.data.eval.resize(1);  // of any number of rows
  EXPECT_EQ(plan(recipe).rollouts, all);
}

TEST(MemoryPlan, AMicroBatchOfCompletionsHasEachPromptOnce) {
  recipes::Recipe supervised = rollouts();
  supervised.objective = {};
  supervised.batch.micro = 1;
  supervised.data.max_length = 16 + 4 * 20;
  EXPECT_EQ(plan(rollouts()).activations, plan(supervised).activations);
}

TEST(MemoryPlan, WhatIsOffloadedIsNoneOfTheDevices) {
  recipes::Recipe recipe;
  recipe.model.dtype = recipe.train.precision = recipes::Dtype::kBf16;
  recipe.data.max_length = 16;
  recipe.batch = {.global = 2, .micro = 1};
  recipe.train.device = recipes::Device::kCuda;
  recipe.checkpoint.async = false;
  const MemoryPlan plain = plan(recipe);
  recipe.parallel.offload = recipes::Offload::kOptimizer;
  const MemoryPlan offloaded = plan(recipe);
  EXPECT_EQ(offloaded.total(), plain.total());
  EXPECT_EQ(plain.on_device(), plain.total());
  // The masters and two moments.
  EXPECT_EQ(offloaded.on_device(), plain.total() - 12 * plain.parameters);
  recipe.parallel.shard = 2;
  EXPECT_EQ(plan(recipe, 2).offloaded, 12 * plain.parameters / 2);
  recipe.parallel.shard = 1;
  recipe.train.device = recipes::Device::kCpu;
  EXPECT_EQ(plan(recipe).offloaded, 0);
  recipe.train.device = recipes::Device::kCuda;
  recipe.peft.method = "lora";
  recipe.peft.r = 2;
  recipe.peft.target_modules = "all-linear";
  recipes::fill_in_peft(recipe);
  const MemoryPlan adapters = plan(recipe);
  EXPECT_EQ(adapters.offloaded, 8 * adapters.trainable);  // whose masters stay
}

TEST(MemoryPlan, ASnapshotIsOnTheHost) {
  recipes::Recipe recipe = rollouts();
  recipe.train.device = recipes::Device::kCuda;
  recipe.checkpoint.async = false;
  const MemoryPlan without = plan(recipe, 2);
  EXPECT_EQ(without.offloaded, 0);
  recipe.checkpoint.async = true;
  EXPECT_EQ(plan(recipe, 2).offloaded, without.checkpoint_bytes / 2);
  EXPECT_EQ(plan(recipe, 2).on_device(), without.total());
  recipe.train.device = recipes::Device::kCpu;
  EXPECT_EQ(plan(recipe, 2).offloaded, 0);
}

TEST(MemoryPlan, ADevicePacksNoWeightsAndRecordsItsSteps) {
  recipes::Recipe recipe = rollouts();
  recipe.train.device = recipes::Device::kCuda;
  const int64_t logits = 8 * llama_of({}).vocab_size * 4;
  EXPECT_EQ(plan(recipe).rollouts, (3 + 8 * 3) * kPage + logits);
  recipe.peft.method = "lora";
  recipe.peft.r = 2;
  recipe.peft.target_modules = "all-linear";
  recipes::fill_in_peft(recipe);
  recipe.model.quantize = "nf4";
  const ModelConfig config = llama_of({});
  const int64_t largest = std::max(2 * config.intermediate_size, config.hidden_size) * config.hidden_size;
  EXPECT_EQ(plan(recipe).rollouts, (3 + 8 * 3) * kPage + logits + 4 * largest);
}

TEST(MemoryPlan, ADeviceMakesTheGradientOfMoreLogitsAtOnce) {
  recipes::Recipe recipe;
  recipe.train.precision = recipes::Dtype::kBf16;
  recipe.data.max_length = 8192;
  recipe.batch.micro = 1;
  const int64_t vocabulary = llama_of({}).vocab_size, on_the_cpu = plan(recipe).buffers;
  recipe.train.device = recipes::Device::kCuda;
  EXPECT_EQ(plan(recipe).buffers - on_the_cpu, (4096 - 1024) * vocabulary * 2);
}

TEST(MemoryPlan, RecordedPassesBetweenRanksHaveActivationsOfTheirOwn) {
  recipes::Recipe recipe;
  const int64_t plain = plan(recipe, 2).activations;
  recipe.train.cuda_graphs = true;
  EXPECT_EQ(plan(recipe, 2).activations, 2 * plain);
  EXPECT_EQ(plan(recipe, 1).activations, plain);
}

TEST(MemoryPlan, Float8HasTheOperandsAndTheSumsOfTheLargestProduct) {
  recipes::Recipe recipe;
  recipe.batch.micro = 2;
  recipe.data.max_length = 16;
  const int64_t without = plan(recipe).buffers;
  recipe.train.float8 = recipes::Float8::kRowwise;
  // Of the layers whose sizes are multiples of 16 (q and o are 16 x 16, k and v 8 x 16, the MLP's 24
  // x 16): 32 tokens' codes and copies, and sums in float32 and bfloat16.
  EXPECT_EQ(plan(recipe).buffers - without, 3 * (32 + 16) * 16 + 6 * 32 * 16);
}

TEST(MemoryPlan, RanksThatShareACopyHaveTheirPartOfWhatIsSharded) {
  recipes::Recipe recipe;
  recipe.model.dtype = recipe.train.precision = recipes::Dtype::kFp32;
  recipe.batch = {.global = 8, .micro = 1};
  const MemoryPlan replicated = plan(recipe, 8);
  const int64_t bytes = 4 * replicated.parameters;
  recipe.parallel.shard = 8;
  recipe.parallel.zero = 1;
  const MemoryPlan first = plan(recipe, 8);
  EXPECT_EQ(first.weights, bytes);
  EXPECT_EQ(first.gradients, bytes + bytes / 8);
  EXPECT_EQ(first.optimizer, 2 * bytes / 8);
  EXPECT_EQ(first.checkpoint_bytes, replicated.checkpoint_bytes);
  recipe.train.precision = recipes::Dtype::kBf16;
  EXPECT_EQ(plan(recipe, 8).weights, bytes / 2 + bytes / 8);

  // A large model, whose buckets under way are few beside it.
  ModelConfig large = llama_of({});
  large.num_hidden_layers = 400;
  large.sliding_window.resize(400);
  const int64_t all = 4 * parameter_count(large);
  recipe.parallel.zero = 2;
  recipe.parallel.bucket_mib = 1;
  const int64_t second = plan_memory(recipe, large, 8).gradients;
  EXPECT_GE(second, all / 8);
  EXPECT_LE(second, all / 8 + (5 << 20));
  // Exact sums are of whole gradients.
  recipe.run.deterministic = recipes::Deterministic::kLayout;
  EXPECT_GE(plan_memory(recipe, large, 8).gradients, all + all / 8);
}

TEST(MemoryPlan, CountsTheParametersThatAModelHas) {
  for (ModelConfig config : {llama_of({}), gpt2_of({})}) {
    for (const bool tied : {false, true}) {
      config.tie_word_embeddings = tied;
      int64_t elements = 0;
      const auto model = build_model(config, {.device = at::kMeta});
      for (const Parameter& parameter : model->parameters()) {
        elements += parameter.value.numel();
      }
      EXPECT_EQ(parameter_count(config), elements) << config.architecture;
    }
  }
}

TEST(MemoryPlan, RewardModelsAreThereInFloat32) {
  const Scratch scratch;
  std::ofstream(scratch.path() / "config.json") << R"({
    "architectures": ["LlamaForSequenceClassification"], "model_type": "llama", "vocab_size": 20, "hidden_size": 16,
    "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 64, "num_labels": 1, "torch_dtype": "bfloat16"})";
  recipes::Recipe recipe = rollouts();
  EXPECT_EQ(plan(recipe).rewards, 0);
  recipe.objective.rewards.resize(2);
  recipe.objective.rewards[0].kind = "length";
  recipe.objective.rewards[1].kind = "model";
  recipe.objective.rewards[1].path = scratch.path().string();
  const int64_t weights = parameter_count(llama_of({})) - 20 * 16 + 16;  // a head of one label
  EXPECT_EQ(plan(recipe).rewards, 4 * weights);
  EXPECT_EQ(plan(recipe).total() - plan(rollouts()).total(), 4 * weights);
}

}  // namespace
}  // namespace temper::trainer
