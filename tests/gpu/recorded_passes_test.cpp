// Micro-batches that are recorded once and replayed, against the same ones computed one by one, on the emulated device.
#include "trainer/recorded_passes.h"

#include <cstdlib>
#include <memory>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "data/loader/collate.h"
#include "parallel/communicator.h"
#include "parallel/replicate/gradient_reducer.h"
#include "tests/gpu/emulator/recording.h"
#include "tests/gpu/emulator/waits.h"
#include "tests/trainer/objectives/small_model.h"
#include "trainer/ops/device.h"
#include "trainer/ops/device_graph.h"
#include "trainer/optimizers/optimizer.h"
#include "trainer/step.h"

extern "C" const temper::trainer::cuda::Kernels* temper_cuda_kernels();

namespace temper::trainer {
namespace {

const at::Device kDevice(at::kPrivateUse1, 0);
constexpr int64_t kLength = 12;  // of a recorded row

data::Example document(int first, int tokens) {
  data::Example example;
  for (int t = 0; t < tokens; ++t) {
    example.ids.push_back((first + 7 * t) % 20);
    example.supervised.push_back(t % 4 != 3);
  }
  return example;
}

// Two rows each, of as many documents as `counts` says.
data::StepBatches step_of(std::initializer_list<std::pair<int, int>> counts) {
  data::StepBatches batches;
  int first = 1;
  for (const auto& [one, other] : counts) {
    std::vector<data::Documents> rows(2);
    for (int d = 0; d < one; ++d) rows[0].push_back(document(first++, 12 / one));
    for (int d = 0; d < other; ++d) rows[1].push_back(document(first++, 7 / other));
    batches.micro_batches.push_back(data::collate(rows));
  }
  return batches;
}

struct Found {
  std::vector<double> losses, correct;
  std::vector<at::Tensor> gradients;  // of the last step
  int64_t replays = 0, waits = 0;     // waits of the last step
};

Found train(const std::vector<data::StepBatches>& steps, bool recording) {
  use_kernels(at::kPrivateUse1, temper_cuda_kernels());
  use_graphs(at::kPrivateUse1, emulator::record);
  const auto model = small_model(7, small_config(), {.device = kDevice});
  const auto objective = build_objective(objective_of("sft"));
  const auto communicator = parallel::make_solo_communicator();
  std::vector<at::Tensor> values;
  for (const Parameter& parameter : model->parameters()) values.push_back(parameter.value);
  parallel::GradientReducer reducer(values, *communicator, 1 << 20);
  recipes::Optimizer settings;
  settings.kind = "adamw";
  const auto optimizer = build_optimizer(settings, model->parameters());
  RecordedPasses passes(kDevice, kLength);
  Found found;
  const int64_t replays = emulator::replays();
  for (const data::StepBatches& batches : steps) {
    const int64_t waits = emulator::waits();
    const StepSums sums = forward_backward(*model, *objective, reducer, batches, {}, 1, recording ? &passes : nullptr);
    found.waits = emulator::waits() - waits;
    found.losses.push_back(sums.loss / sums.count);
    found.correct.push_back(sums.metrics[0].numerator / sums.metrics[0].denominator);
    found.gradients.clear();
    for (const at::Tensor& segment : reducer.segments()) found.gradients.push_back(segment.cpu());
    optimizer->step(1e-2, 1 / sums.count);
  }
  found.replays = emulator::replays() - replays;
  return found;
}

void expect_near(const Found& found, const Found& expected) {
  ASSERT_EQ(found.losses.size(), expected.losses.size());
  for (size_t i = 0; i < found.losses.size(); ++i) {
    EXPECT_NEAR(found.losses[i], expected.losses[i], 1e-5 * expected.losses[i]) << "step " << i;
    EXPECT_NEAR(found.correct[i], expected.correct[i], 1e-9) << "step " << i;
  }
  for (size_t i = 0; i < found.gradients.size(); ++i) {
    const double largest = expected.gradients[i].abs().max().item<double>();
    EXPECT_LT((found.gradients[i] - expected.gradients[i]).abs().max().item<double>(), 1e-5 * largest);
  }
}

// The third step has more documents than there was room for, the last one a single row of a micro-batch.
std::vector<data::StepBatches> steps_of_all_kinds() {
  std::vector<data::StepBatches> steps = {step_of({{1, 1}, {2, 1}}), step_of({{2, 2}, {1, 1}}), step_of({{6, 3}, {1, 1}}),
                                          step_of({{1, 2}, {3, 1}})};
  std::vector<data::Documents> one(1);
  one[0] = {document(3, 5), document(4, 4)};
  steps.back().micro_batches.push_back(data::collate(one));
  return steps;
}

TEST(RecordedPasses, TrainAsPassesOneByOneDo) {
  const std::vector<data::StepBatches> steps = steps_of_all_kinds();
  const Found found = train(steps, true);
  expect_near(found, train(steps, false));
  EXPECT_EQ(found.replays, 9);
}

TEST(RecordedPasses, AReplayedStepWaitsOnce) {
  const Found found = train({step_of({{1, 1}, {2, 1}}), step_of({{2, 1}, {1, 1}, {1, 2}})}, true);
  EXPECT_EQ(found.waits, 1);
}

TEST(RecordedPasses, HaveTheBitsOfPassesOfTheirShapeThatAreNotRecorded) {
  const std::vector<data::StepBatches> steps = steps_of_all_kinds();
  const Found found = train(steps, true);
  setenv("TEMPER_CUDA_GRAPHS", "0", 1);
  const Found expected = train(steps, true);
  unsetenv("TEMPER_CUDA_GRAPHS");
  EXPECT_EQ(expected.replays, 0);
  EXPECT_EQ(found.losses, expected.losses);
  for (size_t i = 0; i < found.gradients.size(); ++i) EXPECT_TRUE(at::equal(found.gradients[i], expected.gradients[i]));
}

}  // namespace
}  // namespace temper::trainer
