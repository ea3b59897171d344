#include "parallel/shard/sharded_tensors.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/parallel/mpi_main.h"

namespace temper::parallel {

namespace {

// Values that are the same on every rank; of sizes that no bucket is a multiple of.
at::Tensor values(int64_t seed, at::IntArrayRef shape, at::ScalarType type) {
  at::manual_seed(seed);
  return type == at::kByte ? at::randint(0, 256, shape, at::kByte) : at::randn(shape).to(type);
}

class Sharded : public testing::TestWithParam<at::ScalarType> {};

TEST_P(Sharded, GivesTheValuesBackInEveryRound) {
  Communicator& group = test_group();
  const std::vector<at::Tensor> tensors = {values(1, {90, 100}, GetParam()), values(2, {31}, GetParam()),
                                           values(3, {300, 200}, GetParam())};
  std::vector<at::Tensor> expected;
  for (const at::Tensor& tensor : tensors) expected.push_back(tensor.clone());
  ShardedTensors sharded(tensors, 32768, group);
  sharded.release();
  int64_t own = 0;
  for (const at::Tensor& piece : sharded.pieces()) own += piece.numel();
  at::Tensor all = at::full({1}, own, at::kLong);
  group.all_reduce(all)->wait();
  EXPECT_EQ(all.item<int64_t>(), 9000 + 31 + 60000) << "every element is somebody's";
  for (int round = 0; round < 3; ++round) {
    for (const at::Tensor& tensor : tensors) EXPECT_EQ(tensor.storage().nbytes(), 0);
    sharded.start();
    sharded.finish();
    for (size_t i = 0; i < tensors.size(); ++i) EXPECT_TRUE(at::equal(tensors[i], expected[i])) << i;
    sharded.release();
  }
}

TEST_P(Sharded, PartsOfOneStorageMayBeShardedApart) {
  const at::Tensor whole = values(4, {96, 64}, GetParam());
  const at::Tensor expected = whole.clone();
  const std::vector<at::Tensor> outer = {whole.narrow(0, 0, 40), whole.narrow(0, 70, 26)};
  ShardedTensors first(outer, 32768, test_group());
  ShardedTensors second({whole.narrow(0, 40, 30)}, 32768, test_group());
  for (int round = 0; round < 2; ++round) {
    first.release();
    second.release();
    EXPECT_EQ(whole.storage().nbytes(), 0);
    for (ShardedTensors* part : {&first, &second}) part->start();
    for (ShardedTensors* part : {&first, &second}) part->finish();
    EXPECT_TRUE(at::equal(whole, expected));
  }
}

INSTANTIATE_TEST_SUITE_P(Types, Sharded, testing::Values(at::kFloat, at::kBFloat16, at::kByte));

TEST(ShardedTensors, WhatChangesInThePiecesIsSeen) {
  const at::Tensor tensor = values(5, {200, 300}, at::kFloat);
  const at::Tensor expected = tensor * 3;
  ShardedTensors sharded({tensor}, 32768, test_group());
  sharded.release();
  for (const at::Tensor& piece : sharded.pieces()) at::Tensor(piece).mul_(3);
  sharded.start();
  sharded.finish();
  EXPECT_TRUE(at::equal(tensor, expected));
}

TEST(ShardedTensors, ViewsAndWhatAutogradSavedSeeTheValuesAgain) {
  at::Tensor weight = values(6, {64, 200}, at::kFloat).requires_grad_();
  const at::Tensor x = values(7, {10, 200}, at::kFloat).requires_grad_();
  const at::Tensor expected = weight.detach().clone();
  const at::Tensor view = weight.detach().t();
  ShardedTensors sharded({weight}, 32768, test_group());
  const auto version = weight._version();
  const at::Tensor y = at::mm(x, weight.t());
  sharded.release();
  sharded.start();
  sharded.finish();
  EXPECT_TRUE(at::equal(view, expected.t()));
  EXPECT_EQ(weight._version(), version);
  y.sum().backward();  // refused if a version had changed
  EXPECT_TRUE(at::allclose(x.grad(), expected.sum(0).expand({10, 200}), 1e-5, 1e-5));
}

}  // namespace

}  // namespace temper::parallel
