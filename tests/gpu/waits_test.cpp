// How often a step waits for the device, on the emulated one.
#include "tests/gpu/emulator/waits.h"

#include <memory>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "data/loader/batch.h"
#include "parallel/communicator.h"
#include "parallel/replicate/gradient_reducer.h"
#include "recipes/recipe.h"
#include "tests/trainer/objectives/small_model.h"
#include "trainer/objectives/reference.h"
#include "trainer/ops/device.h"
#include "trainer/optimizers/optimizer.h"
#include "trainer/step.h"

extern "C" const temper::trainer::cuda::Kernels* temper_cuda_kernels();

namespace temper::trainer {
namespace {

const at::Device kDevice(at::kPrivateUse1, 0);

data::StepBatches batches_of(int64_t micro_batches) {
  constexpr int64_t kRows = 4, kLength = 6;
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

struct Step {
  int64_t waits = 0;
  double loss = 0, norm = 0;
  std::vector<double> metrics;
};

// The second step; the first copies tables.
Step step_on(at::Device device, const std::string& kind, int64_t micro_batches) {
  const ModelOptions options{.device = device};
  const auto model = small_model(7, small_config(), options);
  const auto reference = reference_by_model(small_model(8, small_config(), options), {});
  const auto objective = build_objective(objective_of(kind));
  const auto communicator = parallel::make_solo_communicator();
  std::vector<at::Tensor> values;
  for (const Parameter& parameter : model->parameters()) values.push_back(parameter.value);
  parallel::GradientReducer reducer(values, *communicator, 1 << 20);
  recipes::Optimizer settings;
  settings.kind = "adamw";
  const auto optimizer = build_optimizer(settings, model->parameters());
  data::StepBatches batches = batches_of(micro_batches);
  objective->prepare(
      batches,
      {.model = *model, .reference = reference.get(), .communicator = *communicator, .step = 1});
  Step step;
  for (int i = 0; i < 2; ++i) {
    const int64_t before = emulator::waits();
    const StepSums sums = forward_backward(*model, *objective, reducer, batches);
    step.norm = global_norm(reducer.segments());
    optimizer->step(1e-2, clip_factor(step.norm / sums.count, 1.0) / sums.count);
    step.waits = emulator::waits() - before;
    step.loss = sums.loss / sums.count;
    step.metrics.clear();
    for (const MetricSum& metric : sums.metrics) {
      step.metrics.push_back(metric.numerator / metric.denominator);
    }
  }
  return step;
}

// For its losses with the metrics, and for its norm.
TEST(Waits, AStepWaitsTwiceHoweverManyMicroBatchesItHas) {
  use_kernels(at::kPrivateUse1, temper_cuda_kernels());
  for (const char* kind : {"sft", "gkd"}) {
    for (const int64_t micro_batches : {1, 4}) {
      const Step expected = step_on(at::kCPU, kind, micro_batches);
      const Step found = step_on(kDevice, kind, micro_batches);
      EXPECT_EQ(found.waits, 2) << kind << ", micro-batches: " << micro_batches;
      EXPECT_NEAR(found.loss, expected.loss, 1e-4 * expected.loss) << kind;
      EXPECT_NEAR(found.norm, expected.norm, 1e-3 * expected.norm) << kind;
      ASSERT_EQ(found.metrics.size(), 2u);
      EXPECT_NEAR(found.metrics[0], expected.metrics[0], 1e-6) << kind;
      EXPECT_NEAR(found.metrics[1], expected.metrics[1], 1e-4 * expected.metrics[1]) << kind;
    }
  }
}

}  // namespace
}  // namespace temper::trainer
