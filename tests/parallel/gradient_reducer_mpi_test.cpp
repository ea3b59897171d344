#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/custom_function.h>

#include "parallel/replicate/gradient_reducer.h"
#include "parallel/shard/gather.h"
#include "parallel/shard/shard_plan.h"
#include "tests/parallel/mpi_main.h"

namespace temper::parallel {

namespace {

/// x W^T as Temper's ops do it: backward adds to the weight's float32 `.grad` itself and returns no
/// gradient for it.
class AccumulatingLinear : public torch::autograd::Function<AccumulatingLinear> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& input,
                            const at::Tensor& weight) {
    context->save_for_backward({input, weight});
    return input.matmul(weight.t());
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const auto saved = context->get_saved_variables();
    at::Tensor& gradient = saved[1].mutable_grad();
    if (!gradient.defined()) gradient = at::zeros(saved[1].sizes());
    gradient.addmm_(gradients[0].t().to(at::kFloat), saved[0].to(at::kFloat));
    return {gradients[0].matmul(saved[1]), at::Tensor()};
  }
};

/// A small net with every kind of parameter that the reducer meets: of an accumulating op, of
/// ordinary ops, bf16, used twice.
struct Net {
  at::Tensor accumulating, ordinary, half, tied, unused, frozen;

  Net() {
    at::manual_seed(7);
    accumulating = at::randn({6, 6}).requires_grad_();
    ordinary = at::randn({6, 6}).requires_grad_();
    half = at::randn({6}).to(at::kBFloat16).requires_grad_();
    tied = at::randn({6, 6}).requires_grad_();
    unused = at::randn({5}).requires_grad_();
    frozen = at::randn({6, 6});
  }
  std::vector<at::Tensor> parameters() const {
    return {accumulating, ordinary, half, tied, unused, frozen};
  }

  at::Tensor loss(const at::Tensor& rows) const {
    at::Tensor hidden = at::tanh(rows.matmul(tied));
    hidden = at::tanh(AccumulatingLinear::apply(hidden, accumulating));
    hidden = AccumulatingLinear::apply(hidden.matmul(ordinary), tied);
    return (hidden * half.to(at::kFloat)).square().sum();
  }
};

at::Tensor all_rows() {
  at::manual_seed(3);
  return at::randn({16, 6});
}

/// Gradients of all rows, without a reducer, each in float32 (`half`'s in bf16 steps, as autograd
/// gives it).
std::vector<at::Tensor> expected_gradients() {
  Net net;
  for (at::Tensor& parameter :
       std::vector<at::Tensor>{net.accumulating, net.ordinary, net.half, net.tied}) {
    parameter.mutable_grad() = at::zeros(parameter.sizes(), at::kFloat);
  }
  net.loss(all_rows()).backward();
  return {net.accumulating.grad(), net.ordinary.grad(), net.half.grad(), net.tied.grad()};
}

void expect_gradients(const Net& net) {
  const std::vector<at::Tensor> expected = expected_gradients();
  const std::vector<at::Tensor> found = net.parameters();
  for (size_t i = 0; i < expected.size(); ++i) {
    const double tolerance = i == 2 ? 1e-2 : 1e-5;  // bf16 rounds each backward's sum
    EXPECT_EQ(found[i].grad().scalar_type(), at::kFloat);
    EXPECT_TRUE(at::allclose(found[i].grad(), expected[i], tolerance, tolerance * 10)) << i;
  }
}

class Buckets : public testing::TestWithParam<int64_t> {};

TEST_P(Buckets, GradientsOfAllRanksAndMicroBatchesEqualThoseOfOneRank) {
  Communicator& group = test_group();
  Net net;
  GradientReducer reducer(net.parameters(), group, GetParam());
  const at::Tensor rows = all_rows().chunk(group.size())[group.rank()];
  for (int step = 0; step < 2; ++step) {
    const auto micro_batches = rows.chunk(2);
    reducer.begin_step(2);
    for (size_t i = 0; i < micro_batches.size(); ++i) {
      reducer.exchange_after_backward(i + 1 == micro_batches.size());
      net.loss(micro_batches[i]).backward();
    }
    reducer.finish();
    expect_gradients(net);
    EXPECT_TRUE(at::equal(net.unused.grad(), at::zeros({5})));
    EXPECT_FALSE(net.frozen.grad().defined());
  }
}

INSTANTIATE_TEST_SUITE_P(BucketBytes, Buckets, testing::Values(64, 300, 1 << 20));

TEST(GradientReducer, ARankWithoutRowsJoinsWithZeros) {
  Communicator& group = test_group();
  Net net;
  GradientReducer reducer(net.parameters(), group, 300);
  reducer.begin_step(1);
  reducer.exchange_after_backward(true);
  if (group.rank() == 0) net.loss(all_rows()).backward();
  reducer.finish();
  expect_gradients(net);
}

/// Groups of replicas and of ranks that share a copy: all share one, or two do.
struct Groups {
  explicit Groups(int shards)
      : shard(test_group().split(test_group().rank() / shards, test_group().rank(), "shard")),
        replicas(test_group().split(test_group().rank() % shards, test_group().rank(), "replicate")) {}
  std::unique_ptr<Communicator> shard, replicas;
};

/// The whole gradients that the segments of all ranks make.
std::vector<at::Tensor> gathered(const Net& net, const GradientReducer& reducer,
                                 Communicator& shard) {
  std::vector<at::Tensor> gradients;
  std::vector<int64_t> sizes;
  for (const at::Tensor& parameter : net.parameters()) {
    if (!parameter.requires_grad()) continue;
    gradients.push_back(at::full(parameter.sizes(), NAN, at::kFloat));
    sizes.push_back(parameter.numel());
  }
  for (const ShardPiece& piece : shard_pieces(reducer.plan(), sizes, shard.size(), shard.rank())) {
    gradients[piece.parameter].view({-1}).narrow(0, piece.begin, piece.count).copy_(
        reducer.segments()[piece.bucket].narrow(0, piece.offset, piece.count));
  }
  gather_shards(gradients, reducer.plan(), shard);
  return gradients;
}

TEST(ShardedGradients, EqualThoseOfOneRankInSegments) {
  Communicator& world = test_group();
  const std::vector<at::Tensor> expected = expected_gradients();
  for (const int shards : {2, world.size()}) {
    const Groups groups(shards);
    for (const bool keeps_segments : {false, true}) {
      for (const int64_t bucket_bytes : {64, 1 << 20}) {
        Net net;
        GradientReducer reducer(net.parameters(), *groups.replicas, bucket_bytes, {},
                                {groups.shard.get(), keeps_segments});
        // 16 rows, one a micro-batch: the last rank has one, the one before it none.
        const int64_t rank = world.rank(), last = world.size() - 1;
        const int64_t each = 15 / std::max<int64_t>(1, last - 1);
        const int64_t begin = rank == last ? 15 : std::min<int64_t>(15, rank * each);
        const int64_t end = rank == last ? 16 : rank >= last - 1 ? 15 : begin + each;
        for (int step = 0; step < 2; ++step) {
          reducer.begin_step(end - begin);
          for (int64_t row = begin; row < end; ++row) {
            reducer.exchange_after_backward(row + 1 == end);
            net.loss(all_rows().narrow(0, row, 1)).backward();
          }
          reducer.finish();
          const std::vector<at::Tensor> found = gathered(net, reducer, *groups.shard);
          for (size_t i = 0; i < expected.size(); ++i) {
            // bf16 rounds each backward's sum; float32 those of numbers up to 4000.
            const double tolerance = i == 2 ? 2e-2 : 1e-5;
            EXPECT_TRUE(at::allclose(found[i], expected[i], tolerance, i == 2 ? 0.2 : 2e-3))
                << shards << " " << keeps_segments << " " << bucket_bytes << " " << i << " "
                << (found[i] - expected[i]).abs().max().item<double>();
          }
          EXPECT_TRUE(at::equal(found.back(), at::zeros({5})));
          EXPECT_EQ(net.ordinary.grad().defined(), !keeps_segments);
        }
      }
    }
  }
}

// The gradients of `given` of 12 micro-batches, of which this rank of `group` takes its run.
std::vector<at::Tensor> exact_gradients(Communicator& group, int64_t given,
                                        const Groups* sharded = nullptr) {
  constexpr int64_t kMicroBatches = 12;  // leaves of 3
  at::manual_seed(5);
  const at::Tensor rows = at::randn({kMicroBatches, 3, 6});
  const int64_t own = kMicroBatches / group.size();
  Net net;
  GradientReducer reducer = sharded ? GradientReducer(net.parameters(), *sharded->replicas, 300, own,
                                                      {sharded->shard.get(), true})
                                    : GradientReducer(net.parameters(), group, 300, own);
  for (int step = 0; step < 2; ++step) {  // the second must not see the first
    const int64_t first = group.rank() * own, end = std::min(first + own, given);
    reducer.begin_step(std::max<int64_t>(0, end - first));
    for (int64_t m = first; m < end; ++m) {
      reducer.exchange_after_backward(m + 1 == end);
      net.loss(rows[m]).backward();
    }
    reducer.finish();
  }
  if (sharded) return gathered(net, reducer, *sharded->shard);
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& parameter : {net.accumulating, net.ordinary, net.half, net.tied}) {
    gradients.push_back(parameter.grad().clone());
  }
  return gradients;
}

TEST(GradientReducer, ExactSumsHaveTheBitsOfOneRank) {
  const auto solo = make_solo_communicator();
  for (const int64_t given : {12, 11, 7, 4, 1}) {
    const std::vector<at::Tensor> expected = exact_gradients(*solo, given);
    const std::vector<at::Tensor> found = exact_gradients(test_group(), given);
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_TRUE(at::equal(found[i], expected[i])) << given << " micro-batches, gradient " << i;
    }
  }
}

TEST(ShardedGradients, ExactSumsHaveTheBitsOfOneRank) {
  const auto solo = make_solo_communicator();
  for (const int shards : {2, test_group().size()}) {
    const Groups groups(shards);
    for (const int64_t given : {12, 7, 1}) {
      const std::vector<at::Tensor> expected = exact_gradients(*solo, given);
      const std::vector<at::Tensor> found = exact_gradients(test_group(), given, &groups);
      for (size_t i = 0; i < expected.size(); ++i) {
        EXPECT_TRUE(at::equal(found[i], expected[i])) << shards << " " << given << " " << i;
      }
    }
  }
}

/// The group of all ranks, noting when each exchange starts.
class Recorder : public Communicator {
 public:
  explicit Recorder(const bool& in_backward) : in_backward_(in_backward) {}
  int starts = 0;
  int starts_in_backward = 0;
  std::vector<int64_t> sizes;
  std::vector<int64_t> registered;  // elements of buffers, 0 where a registration has ended

  int rank() const override { return test_group().rank(); }
  int size() const override { return test_group().size(); }
  std::string name() const override { return "recorder"; }
  WorkPtr all_reduce(at::Tensor& tensor, ReduceOp op) override {
    ++starts;
    if (in_backward_) ++starts_in_backward;
    sizes.push_back(tensor.numel());
    return test_group().all_reduce(tensor, op);
  }
  WorkPtr reduce_scatter(at::Tensor&, const at::Tensor&) override { return nullptr; }
  WorkPtr all_gather(at::Tensor&, const at::Tensor&) override { return nullptr; }
  WorkPtr broadcast(at::Tensor&, int) override { return nullptr; }
  WorkPtr all_to_all(at::Tensor&, const at::Tensor&) override { return nullptr; }
  WorkPtr send(const at::Tensor&, int, int) override { return nullptr; }
  WorkPtr receive(at::Tensor&, int, int) override { return nullptr; }
  void barrier() override {}
  std::shared_ptr<void> register_buffers(const std::vector<at::Tensor>& buffers) override {
    for (const at::Tensor& buffer : buffers) registered.push_back(buffer.numel());
    return {nullptr, [this](void*) { registered.push_back(0); }};
  }
  std::unique_ptr<Communicator> split(int, int, const std::string&) override { return nullptr; }

 private:
  const bool& in_backward_;
};

TEST(GradientReducer, ExchangesStartInTheLastBackwardOnlyAndBeforeItEnds) {
  std::vector<at::Tensor> weights;
  for (int layer = 0; layer < 4; ++layer) weights.push_back(at::eye(8).requires_grad_());
  bool in_backward = false;
  Recorder recorder(in_backward);
  GradientReducer reducer(weights, recorder, 8 * 8 * sizeof(float));
  ASSERT_EQ(reducer.segments().size(), 4U);

  const auto backward = [&] {
    at::Tensor hidden = at::ones({2, 8});
    for (const at::Tensor& weight : weights) hidden = AccumulatingLinear::apply(hidden, weight);
    in_backward = true;
    hidden.sum().backward();
    in_backward = false;
  };
  reducer.begin_step(2);
  reducer.exchange_after_backward(false);
  backward();
  EXPECT_EQ(recorder.starts, 0);
  reducer.exchange_after_backward(true);
  backward();
  EXPECT_EQ(recorder.starts_in_backward, 4);
  reducer.finish();
  EXPECT_EQ(recorder.starts, 4);
  EXPECT_GE(reducer.exposed_seconds(), 0);
}

TEST(GradientReducer, WhatLiesStillAndIsExchangedEveryStepIsRegisteredOnce) {
  const at::Tensor weight = at::ones({3 * 8192}).requires_grad_();
  const int64_t bytes = 4 * 3 * 8192, ranks = test_group().size();
  const bool never = false;
  Recorder shard(never), replicas(never);
  { const GradientReducer replicated({weight}, replicas, bytes); }
  EXPECT_EQ(replicas.registered, (std::vector<int64_t>{3 * 8192, 0}));
  for (const bool keeps_segments : {false, true}) {
    replicas.registered.clear();
    shard.registered.clear();
    int64_t bucket = 0;
    {
      const GradientReducer sharded({weight}, replicas, bytes, {},
                                    {.group = &shard, .keeps_segments = keeps_segments});
      bucket = sharded.plan().bucket_sizes.at(0);
    }
    EXPECT_EQ(replicas.registered, (std::vector<int64_t>{bucket / ranks, 0}));
    // Buckets that come and go are not, and segments alone would be of no use.
    const std::vector<int64_t> both = {bucket, bucket / ranks, 0, 0};
    EXPECT_EQ(shard.registered, keeps_segments ? std::vector<int64_t>() : both);
  }
}

TEST(GradientReducer, AnUnusedParameterHoldsBackItsBucketAndThoseAfterIt) {
  // In the order of backward: c (used), b (unused), a (used).
  const at::Tensor a = at::ones({32}).requires_grad_();
  const at::Tensor b = at::ones({16}).requires_grad_();
  const at::Tensor c = at::ones({48}).requires_grad_();
  bool in_backward = false;
  Recorder recorder(in_backward);
  GradientReducer reducer({a, b, c}, recorder, 64);
  reducer.begin_step(1);
  reducer.exchange_after_backward(true);
  const at::Tensor loss = a.sum() + c.sum();
  in_backward = true;
  loss.backward();
  in_backward = false;
  EXPECT_EQ(recorder.starts_in_backward, 1);
  reducer.finish();
  EXPECT_EQ(recorder.sizes, (std::vector<int64_t>{256, 256, 256}));
  EXPECT_TRUE(at::equal(a.grad(), at::full({32}, test_group().size())));
  EXPECT_TRUE(at::equal(b.grad(), at::zeros({16})));
}

TEST(GradientReducer, OfAnEmbeddingOnlyRowsThatSomeRankHasSeenTravel) {
  constexpr int64_t kRows = 4096, kColumns = 256;
  const int64_t ranks = test_group().size(), rank = test_group().rank();
  const at::Tensor embedding = at::zeros({kRows, kColumns}).requires_grad_();
  const at::Tensor after = at::ones({16}).requires_grad_();
  bool in_backward = false;
  Recorder recorder(in_backward);
  GradientReducer reducer({embedding, after}, recorder, 1 << 10);
  for (const int64_t seen : {int64_t{3}, kRows}) {
    recorder.sizes.clear();
    // Neighbouring ranks share one of three rows.
    const at::Tensor ids = at::arange(seen, at::kLong) + (seen == kRows ? 0 : 2 * rank);
    reducer.begin_step(1);
    reducer.exchange_after_backward(true);
    const at::Tensor weights = at::arange(1, kColumns + 1, at::kFloat) * static_cast<double>(rank + 1);
    (at::sum(embedding.index_select(0, ids) * weights) + after.sum()).backward();
    reducer.finish();
    at::Tensor expected = at::zeros({kRows, kColumns});
    for (int64_t r = 0; r < ranks; ++r) {
      const at::Tensor of_rank = at::arange(1, kColumns + 1, at::kFloat) * static_cast<double>(r + 1);
      expected.narrow(0, seen == kRows ? 0 : 2 * r, seen).add_(of_rank);
    }
    EXPECT_TRUE(at::equal(embedding.grad(), expected));
    const int64_t travelled = seen == kRows ? kRows : 2 * ranks + 1;
    EXPECT_EQ(recorder.sizes, (std::vector<int64_t>{256, kRows, travelled * kColumns}));
  }
}

TEST(GradientReducer, AGroupOfOneExchangesNothing) {
  Net net;
  const auto solo = make_solo_communicator();
  GradientReducer reducer(net.parameters(), *solo, 300);
  reducer.begin_step(1);
  reducer.exchange_after_backward(true);
  net.loss(all_rows()).backward();
  reducer.finish();
  expect_gradients(net);
}

TEST(GradientReducer, MayEndBeforeItsParameters) {
  Net net;
  { const GradientReducer reducer(net.parameters(), test_group(), 300); }
  net.loss(all_rows()).backward();
  expect_gradients(net);
}

}  // namespace

}  // namespace temper::parallel
