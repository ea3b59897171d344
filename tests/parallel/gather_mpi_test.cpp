#include "parallel/shard/gather.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "parallel/shard/shard_plan.h"
#include "tests/parallel/mpi_main.h"

namespace temper::parallel {

namespace {

class Gather : public testing::TestWithParam<std::vector<at::ScalarType>> {};

TEST_P(Gather, MakesTensorsWholeOfTheRanksPieces) {
  Communicator& group = test_group();
  const std::vector<int64_t> sizes = {9000, 31, 50000, 257, 1, 20000};
  const BucketPlan plan = plan_buckets(sizes, 32768, group.size());
  at::manual_seed(1);
  std::vector<at::Tensor> expected, found;
  for (size_t i = 0; i < sizes.size(); ++i) {
    expected.push_back(at::randn({sizes[i]}).to(GetParam()[i % GetParam().size()]));
    found.push_back(at::zeros_like(expected.back()).requires_grad_());
  }
  for (const ShardPiece& piece : shard_pieces(plan, sizes, group.size(), group.rank())) {
    const auto own = [&](const at::Tensor& of) {
      return of.detach().narrow(0, piece.begin, piece.count);
    };
    own(found[piece.parameter]).copy_(own(expected[piece.parameter]));
  }
  gather_shards(found, plan, group);
  for (size_t i = 0; i < sizes.size(); ++i) EXPECT_TRUE(at::equal(found[i], expected[i])) << i;
}

INSTANTIATE_TEST_SUITE_P(Types, Gather,
                         testing::Values(std::vector{at::kFloat}, std::vector{at::kBFloat16},
                                         std::vector{at::kBFloat16, at::kFloat, at::kHalf}));

}  // namespace

}  // namespace temper::parallel
