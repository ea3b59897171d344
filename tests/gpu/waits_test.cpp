// How often a step waits for the device, on the emulated one.
#include "tests/gpu/emulator/waits.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "data/loader/batch.h"
#include "data/loader/collate.h"
#include "parallel/communicator.h"
#include "parallel/replicate/gradient_reducer.h"
#include "recipes/recipe.h"
#include "tests/trainer/objectives/small_model.h"
#include "trainer/models/value_head.h"
#include "trainer/objectives/reference.h"
#include "trainer/ops/device.h"
#include "trainer/optimizers/optimizer.h"
#include "trainer/rollouts/generation_batch.h"
#include "trainer/step.h"

extern "C" const temper::trainer::cuda::Kernels* temper_cuda_kernels();

namespace temper::trainer {
namespace {

const at::Device kDevice(at::kPrivateUse1, 0);

constexpr int64_t kRows = 4;

using Cut = std::function<data::StepBatches(int64_t micro_batches)>;

data::StepBatches packed(int64_t micro_batches) {
  constexpr int64_t kLength = 6;
  const at::Tensor places = at::arange(kRows * kLength, at::kLong).view({kRows, kLength});
  const at::Tensor ids = at::remainder(places * 7, 20), labels = at::remainder(places * 11 + 3, 20);
  data::StepBatches batches;
  const int64_t rows = kRows / micro_batches;
  for (int64_t i = 0; i < micro_batches; ++i) {
    data::Batch batch;
    batch.token_ids = ids.narrow(0, i * rows, rows);
    batch.labels = labels.narrow(0, i * rows, rows).clone();
    batch.labels.select(1, 0).fill_(-100);
    batch.positions = at::arange(kLength, at::kLong).expand({rows, kLength}).contiguous();
    batch.document_ends = at::arange(0, (rows + 1) * kLength, kLength, at::kInt);
    batch.rows = rows;
    batch.input_tokens = rows * kLength;
    batch.supervised = rows * (kLength - 1);
    batches.micro_batches.push_back(std::move(batch));
  }
  return batches;
}

// Rows that are compared with each other, or in themselves.
Cut cut(const std::vector<data::TokenizedRow>& rows, const data::RowLayout& layout = {}) {
  return [=](int64_t micro_batches) {
    data::StepBatches batches;
    const auto size = static_cast<std::ptrdiff_t>(kRows / micro_batches);
    for (auto row = rows.begin(); row != rows.end(); row += size) {
      batches.micro_batches.push_back(data::collate_rows({row, row + size}, layout));
    }
    return batches;
  };
}

std::vector<data::TokenizedRow> pairs_with_margins() {
  std::vector<data::TokenizedRow> rows = pairs();
  for (data::TokenizedRow& row : rows) row.columns = R"({"margin": 0.5})";
  return rows;
}

// Completions, good and bad in turn, with all that a loss may ask of them. Each has a prompt of its
// own: two that follow the same one have first tokens of one entropy, and rounding would decide
// which of them top_entropy_quantile takes.
data::StepBatches sampled(int64_t micro_batches) {
  SampledGroups groups;
  for (int32_t c = 0; c < 2 * kRows; ++c) {
    SampledCompletion completion;
    for (int32_t t = 0; t < 2 + c % 3; ++t) {
      const auto x = static_cast<float>((7 * c + 3 * t) % 11);
      completion.ids.push_back(1 + (3 * c + 5 * t) % 19);
      completion.sampling_log_probs.push_back(-2 - 0.2f * x);
      completion.old_log_probs.push_back(-1 - 0.3f * x);
      completion.reference_log_probs.push_back(-3 + 0.1f * x);
      completion.values.push_back(0.1f * x);
      completion.token_advantages.push_back(x - 5);
      completion.returns.push_back(0.2f * x);
    }
    completion.reward = completion.advantage = c % 2 == 0 ? 1.5f : -1.0f;
    groups.push_back({.place = c, .prompt = {1, 5 + c}, .completions = {std::move(completion)}});
  }
  data::StepBatches batches{.micro_batches = trainer::micro_batches(
                                groups, 0, 0, 1, {.micro = 2 * kRows / micro_batches})};
  for (data::Batch& batch : batches.micro_batches) batch.rollout.entropy_coef = 0.1;
  return batches;
}

struct Step {
  int64_t waits = 0, waits_of_preparing = 0;
  double loss = 0, norm = 0;
  std::vector<MetricSum> metrics;
};

std::unique_ptr<Model> model_for(const Objective& objective, const recipes::Objective& settings,
                                 const ModelOptions& options) {
  const bool scores = settings.kind == "reward";
  auto model =
      small_model(7, scores ? with_score_head(small_config(), 1, 2) : small_config(), options);
  if (objective.needs_value_head()) {
    add_value_head(*model, options);
    draw_value_head(*model, 7);
  }
  return model;
}

// The second step; the first copies tables.
Step step_on(at::Device device, const recipes::Objective& settings, data::StepBatches batches) {
  const ModelOptions options{.device = device};
  const auto objective = build_objective(settings);
  const auto model = model_for(*objective, settings, options);
  const auto reference = reference_by_model(small_model(8, small_config(), options), {});
  const auto communicator = parallel::make_solo_communicator();
  std::vector<at::Tensor> values;
  for (const Parameter& parameter : model->parameters()) values.push_back(parameter.value);
  parallel::GradientReducer reducer(values, *communicator, 1 << 20);
  recipes::Optimizer of_recipe;
  of_recipe.kind = "adamw";
  const auto optimizer = build_optimizer(of_recipe, model->parameters());
  Step step;
  for (int i = 0; i < 2; ++i) {
    const int64_t at_first = emulator::waits();
    {
      const at::NoGradGuard off;
      objective->prepare(batches, {.model = *model,
                                   .reference = reference.get(),
                                   .communicator = *communicator,
                                   .step = 1});
    }
    const int64_t before = emulator::waits();
    const StepSums sums = forward_backward(*model, *objective, reducer, batches);
    step.norm = global_norm(reducer.segments());
    optimizer->step(1e-2, clip_factor(step.norm / sums.count, 1.0) / sums.count);
    step.waits_of_preparing = before - at_first;
    step.waits = emulator::waits() - before;
    step.loss = sums.loss / sums.count;
    step.metrics = sums.metrics;
  }
  return step;
}

// For its losses with the metrics, and for its norm.
void expect_two_waits(const recipes::Objective& settings, const Cut& batches,
                      int64_t of_preparing = 0) {
  use_kernels(at::kPrivateUse1, temper_cuda_kernels());
  for (const int64_t micro_batches : {1, 4}) {
    SCOPED_TRACE(settings.kind + ", micro-batches: " + std::to_string(micro_batches));
    const Step expected = step_on(at::kCPU, settings, batches(micro_batches));
    const Step found = step_on(kDevice, settings, batches(micro_batches));
    EXPECT_EQ(found.waits, 2);
    EXPECT_EQ(found.waits_of_preparing, of_preparing);
    EXPECT_NEAR(found.loss, expected.loss, 1e-4 * std::abs(expected.loss));
    EXPECT_NEAR(found.norm, expected.norm, 1e-3 * expected.norm);
    ASSERT_EQ(found.metrics.size(), expected.metrics.size());
    for (size_t i = 0; i < found.metrics.size(); ++i) {
      // The first of them counts tokens.
      const double close = found.metrics[i].name == "mean_token_accuracy" ? 1e-6 : 1e-4;
      const auto near = [&](double number, double expected_number) {
        EXPECT_NEAR(number, expected_number, close * std::max(1.0, std::abs(expected_number)))
            << found.metrics[i].name;
      };
      near(found.metrics[i].numerator, expected.metrics[i].numerator);
      near(found.metrics[i].denominator, expected.metrics[i].denominator);
    }
  }
}

TEST(Waits, AStepWaitsTwiceHoweverManyMicroBatchesItHas) {
  expect_two_waits(objective_of("sft"), packed);
  expect_two_waits(objective_of("gkd"), packed);
}

TEST(Waits, SoDoesAStepOfPairs) {
  recipes::Objective dpo = objective_of("dpo");
  expect_two_waits(dpo, cut(pairs()));
  dpo.loss_type = std::vector<std::string>{"sigmoid", "ipo", "aot", "aot_unpaired", "sft"};
  dpo.use_weighting = true;
  dpo.ld_alpha = 0.5;
  expect_two_waits(dpo, cut(pairs()));
  expect_two_waits(objective_of("orpo"), cut(pairs(), {.prompts_too = true}));
  recipes::Objective cpo = objective_of("cpo");
  expect_two_waits(cpo, cut(pairs()));
  cpo.loss_type = "simpo";
  expect_two_waits(cpo, cut(pairs()));
  expect_two_waits(objective_of("reward"), cut(pairs_with_margins()));
}

TEST(Waits, SoDoesAStepOfRatedCompletionsAndOnceBeforeItForTheirKl) {
  expect_two_waits(objective_of("kto"), cut(rated()), /*of_preparing=*/1);
}

TEST(Waits, SoDoesAStepOfSampledCompletions) {
  recipes::Objective grpo = objective_of("grpo");
  grpo.beta = 0.1;
  grpo.entropy_coef = 0.1;
  grpo.top_entropy_quantile = 0.7;
  grpo.off_policy_mask_threshold = 0.1;
  for (const char* loss_type : {"dapo", "grpo", "cispo", "sapo", "vespo"}) {
    grpo.loss_type = loss_type;
    expect_two_waits(grpo, sampled);
  }
  grpo.loss_type = "dapo";
  grpo.importance_sampling_level = "sequence";
  expect_two_waits(grpo, sampled);
  for (const char* kind : {"rloo", "online_dpo", "ppo"})
    expect_two_waits(objective_of(kind), sampled);
}

}  // namespace
}  // namespace temper::trainer
