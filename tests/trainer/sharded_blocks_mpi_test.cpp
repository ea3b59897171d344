#include "trainer/sharded_blocks.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "data/loader/batch.h"
#include "parallel/replicate/gradient_reducer.h"
#include "tests/parallel/mpi_main.h"
#include "tests/trainer/llama_shape.h"

namespace temper::trainer {
namespace {

constexpr int64_t kBucketBytes = 1 << 15;  // several a block
const ModelOptions kOptions;

data::Batch batch_of(int64_t first) {
  data::Batch batch;
  batch.token_ids = at::remainder(at::arange(first, first + 12), 20).view({2, 6});
  batch.labels = batch.token_ids;
  batch.positions = at::arange(6).repeat({2, 1});
  batch.document_ends = at::tensor({0, 6, 12}, at::kInt);
  return batch;
}

struct Case {
  bool reshard = true;
  std::string frozen{};  // parameters whose names begin so
  std::vector<int64_t> passes{};  // of each rank; those above have the last's
};

std::unique_ptr<Model> drawn_model(const Case& how) {
  auto model = build_model(llama_of({.hidden = 64, .mlp = 160, .layers = 3}), kOptions);
  draw_weights(*model, kOptions, 1);
  for (Parameter& parameter : model->parameters()) {
    if (!how.frozen.empty() && (parameter.name.starts_with(how.frozen) || parameter.name.starts_with("model.embed"))) {
      parameter.value.set_requires_grad(false);
    }
  }
  return model;
}

// Without gradients between a forward and its backward, as of a reference that is the policy itself.
void pass(Model& model, int64_t number) {
  const at::Tensor hidden = model.hidden(batch_of(number));
  {
    const at::NoGradGuard off;
    model.hidden(batch_of(number + 1));
  }
  hidden.square().sum().backward();
}

int64_t passes_of(const Case& how, int rank) { return how.passes[std::min<size_t>(rank, how.passes.size() - 1)]; }

// The gradients of all ranks' passes, on one.
std::vector<at::Tensor> expected_segments(const Case& how, int ranks) {
  const auto model = drawn_model(how);
  std::vector<at::Tensor> values, gradients;
  for (const Parameter& parameter : model->parameters()) values.push_back(parameter.value);
  const auto solo = parallel::make_solo_communicator();
  parallel::GradientReducer reducer(values, *solo, kBucketBytes);
  reducer.begin_step(1);
  for (int rank = 0; rank < ranks; ++rank) {
    for (int64_t i = 0; i < passes_of(how, rank); ++i) pass(*model, 7 * rank + i);
  }
  reducer.finish();
  for (const Parameter& parameter : model->parameters()) {
    if (parameter.trainable()) gradients.push_back(parameter.value.grad().clone());
  }
  return gradients;
}

class ShardedPasses : public testing::TestWithParam<Case> {};

TEST_P(ShardedPasses, GradientsAreThoseOfWholeWeightsWhateverPassesRanksMake) {
  parallel::Communicator& group = parallel::test_group();
  const std::vector<at::Tensor> expected = expected_segments(GetParam(), group.size());
  const auto solo = parallel::make_solo_communicator();
  const auto model = drawn_model(GetParam());
  std::vector<at::Tensor> values;
  std::vector<int64_t> sizes, units, own_units;
  for (const Parameter& parameter : model->parameters()) {
    values.push_back(parameter.value);
    units.push_back(parameter.block);
    if (!parameter.trainable()) continue;
    sizes.push_back(parameter.value.numel());
    own_units.push_back(parameter.block);
  }
  ShardedBlocks blocks(*model, group, kBucketBytes, {.reshard = GetParam().reshard});
  model->block_hooks() = &blocks;
  parallel::GradientReducer reducer(values, *solo, kBucketBytes, {}, {.group = &group, .keeps_segments = true}, units);
  blocks.join_backward_with([&] { reducer.join_backward(); });
  const int64_t own = passes_of(GetParam(), group.rank());
  for (int step = 0; step < 2; ++step) {
    reducer.begin_step(own);
    for (int64_t i = 0; i < own; ++i) {
      reducer.exchange_after_backward(i + 1 == own);
      pass(*model, 7 * group.rank() + i);
    }
    blocks.end_passes();
    reducer.finish();
    for (const Parameter& parameter : model->parameters()) {
      EXPECT_EQ(parameter.value.storage().nbytes() == 0, blocks.holds(parameter)) << parameter.name;
    }
    for (const parallel::ShardPiece& piece : parallel::shard_pieces(reducer.plan(), sizes, group.size(), group.rank())) {
      const at::Tensor found = reducer.segments()[piece.bucket].narrow(0, piece.offset, piece.count);
      const at::Tensor whole = expected[piece.parameter].view({-1}).narrow(0, piece.begin, piece.count);
      // float32 sums in another order.
      EXPECT_TRUE(at::allclose(found, whole, 1e-4, 1e-4)) << piece.parameter;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Ranks, ShardedPasses,
    testing::Values(Case{.passes = {1}}, Case{.passes = {0, 1, 3}}, Case{.passes = {3, 1, 0}}, Case{.passes = {3, 0}},
                    Case{.reshard = false, .passes = {0, 1, 3}}, Case{.frozen = "model.layers.0", .passes = {3, 1, 0}},
                    Case{.reshard = false, .frozen = "model.layers.1", .passes = {1, 3}},
                    Case{.frozen = "model.layers.2.self_attn.k_proj", .passes = {1, 0, 2}}));

TEST(ShardedBlocks, AreWholeBetweenHoldAndDrop) {
  const auto expected = drawn_model({}), model = drawn_model({});
  ShardedBlocks blocks(*model, parallel::test_group(), kBucketBytes, {});
  model->block_hooks() = &blocks;
  const at::NoGradGuard off;
  for (int round = 0; round < 2; ++round) {
    blocks.hold();
    for (size_t i = 0; i < model->parameters().size(); ++i) {
      EXPECT_TRUE(at::equal(model->parameters()[i].value, expected->parameters()[i].value));
    }
    // Each rank for itself: nothing is gathered.
    if (parallel::test_group().rank() == 0) {
      EXPECT_TRUE(at::equal(model->hidden(batch_of(3)), expected->hidden(batch_of(3))));
    }
    blocks.drop();
    EXPECT_TRUE(at::equal(model->hidden(batch_of(4)), expected->hidden(batch_of(4))));
    blocks.end_passes();
  }
}

TEST(ShardedBlocks, StoredWeightsAreSeenByAll) {
  const auto expected = drawn_model({});
  auto model = build_model(expected->config(), kOptions);
  ShardedBlocks blocks(*model, parallel::test_group(), kBucketBytes, {});
  model->block_hooks() = &blocks;
  draw_weights(*model, kOptions, 1);  // into pieces
  const at::NoGradGuard off;
  EXPECT_TRUE(at::equal(model->hidden(batch_of(1)), expected->hidden(batch_of(1))));
  blocks.end_passes();
}

}  // namespace
}  // namespace temper::trainer
