#include "trainer/sharded_parameters.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include "parallel/mesh.h"
#include "tests/parallel/mpi_main.h"
#include "trainer/checkpoint/piece.h"
#include "trainer/optimizers/optimizer.h"

namespace temper::trainer {
namespace {

std::vector<Parameter> parameters(at::ScalarType compute) {
  std::vector<Parameter> made;
  for (const int64_t rows : {1, 45, 1, 200, 64}) {
    const int64_t columns = rows == 1 ? 33 : 257;
    Parameter& parameter = made.emplace_back();
    parameter.name = "p" + std::to_string(made.size());
    parameter.decay = rows > 1;
    parameter.master = at::randn({rows, columns}, at::detail::createCPUGenerator(made.size()));
    parameter.value = compute == at::kFloat ? parameter.master : parameter.master.to(compute);
    if (made.size() != 4) parameter.value.requires_grad_();
  }
  return made;
}

// Backward of a loss whose gradients are the same on every number of ranks.
void add_gradients(const std::vector<Parameter>& parameters, double share) {
  at::Tensor loss = at::zeros({}, at::kFloat);
  for (const Parameter& parameter : parameters) {
    if (parameter.trainable()) {
      loss = loss + parameter.value.to(at::kFloat).mul(share).sum() +
             parameter.value.to(at::kFloat).square().sum() * (0.5 * share);
    }
  }
  loss.backward();
}

struct Trained {
  std::vector<Parameter> parameters;
  double norm = 0;
};

Trained train(const std::string& kind, at::ScalarType compute, parallel::Communicator& replicas,
              parallel::Communicator& shard) {
  recipes::Optimizer options;
  options.kind = kind;
  if (kind == "sgd") options.momentum = 0.9;
  options.weight_decay = 0.1;
  Trained trained{.parameters = parameters(compute)};
  std::vector<at::Tensor> values;
  for (const Parameter& parameter : trained.parameters) values.push_back(parameter.value);
  parallel::GradientReducer reducer(values, replicas, 40000, 1, {.group = &shard});
  ShardedParameters sharded(trained.parameters, reducer, shard, /*keep_masters=*/true);
  const auto optimizer = build_optimizer(options, sharded.pieces());
  for (int step = 0; step < 3; ++step) {
    reducer.begin_step(1);
    reducer.exchange_after_backward(true);
    add_gradients(trained.parameters, 1.0 / (replicas.size() * shard.size()));
    reducer.finish();
    trained.norm = global_norm(reducer.segments(), shard);
    optimizer->step(1e-2, 0.5);
    sharded.gather_values();
  }
  return trained;
}

TEST(ShardedParameters, AreUpdatedAsOnOneRank) {
  parallel::Communicator& world = parallel::test_group();
  const auto solo = parallel::make_solo_communicator();
  const auto pairs = world.split(world.rank() / 2, world.rank(), "shard");
  const auto copies = world.split(world.rank() % 2, world.rank(), "replicate");
  for (const char* kind : {"adamw", "adamw_8bit", "sgd"}) {
    for (const at::ScalarType compute : {at::kFloat, at::kBFloat16}) {
      const Trained expected = train(kind, compute, *solo, *solo);
      for (const Trained& found :
           {train(kind, compute, *solo, world), train(kind, compute, *copies, *pairs)}) {
        EXPECT_EQ(found.norm, expected.norm);
        for (size_t i = 0; i < expected.parameters.size(); ++i) {
          const Parameter& ours = found.parameters[i];
          EXPECT_TRUE(at::equal(ours.value, expected.parameters[i].value)) << kind << ours.name;
          EXPECT_TRUE(at::equal(ours.master, expected.parameters[i].master)) << kind << ours.name;
        }
      }
    }
  }
}

TEST(ShardedParameters, LoadedPiecesAreSeenByAll) {
  parallel::Communicator& world = parallel::test_group();
  const auto solo = parallel::make_solo_communicator();
  std::vector<Parameter> whole = parameters(at::kBFloat16);
  std::vector<at::Tensor> values;
  for (const Parameter& parameter : whole) values.push_back(parameter.value);
  const parallel::GradientReducer reducer(values, *solo, 40000, {}, {.group = &world});
  ShardedParameters sharded(whole, reducer, world, /*keep_masters=*/false);
  for (Parameter& piece : sharded.pieces()) piece.master.fill_(0.3);
  sharded.refresh_values();
  for (const Parameter& parameter : whole) {
    EXPECT_EQ(parameter.master.defined(), !parameter.trainable());
    const at::Tensor expected = at::full_like(parameter.value.detach(), 0.3);
    EXPECT_EQ(at::equal(parameter.value, expected), parameter.trainable()) << parameter.name;
  }
}

TEST(Piece, IsReadFromItsName) {
  const Piece piece{.whole = "weights/a.b[0]", .begin = 256, .end = 512, .shape = {64, 32}};
  EXPECT_EQ(piece.name(), "weights/a.b[0][256:512 of 64,32]");
  const std::optional<Piece> read = piece_of(piece.name());
  ASSERT_TRUE(read);
  EXPECT_EQ(read->whole, piece.whole);
  EXPECT_EQ(read->begin, 256);
  EXPECT_EQ(read->end, 512);
  EXPECT_EQ(read->shape, piece.shape);
  EXPECT_EQ(read->elements(), 2048);
  for (const char* name : {"", "a", "a[1:2]", "a[1:2 of ]", "a[1:2 of 3] ", "a[-1:2 of 3]"}) {
    EXPECT_FALSE(piece_of(name)) << name;
  }
}

}  // namespace
}  // namespace temper::trainer
