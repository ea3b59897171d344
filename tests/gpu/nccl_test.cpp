// Two ranks that share one GPU, each with a host id of its own (NCCL refuses two ranks of one host
// on one device), through the communicator of the plugin.
#include <cstdlib>
#include <string>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "parallel/plugin.h"
#include "recipes/diagnostic.h"
#include "tests/parallel/mpi_main.h"

namespace temper::parallel {
namespace {

// Before main(), for the plugin is loaded before any LibTorch call.
const std::string missing = [] {
  try {
    cuda_plugin();
    return std::string();
  } catch (const UserError& error) {
    return std::string(error.what());
  }
}();

TEST(Nccl, TwoRanksOnOneDeviceExchangeTensors) {
  if (!missing.empty()) GTEST_SKIP() << missing;
  const int rank = test_session().world().rank;
  setenv("NCCL_HOSTID", ("temper-test-" + std::to_string(rank)).c_str(), /*overwrite=*/1);
  const auto group = cuda_plugin().make_communicator(test_group(), /*device=*/0,
                                                     "rank " + std::to_string(rank), 30);
  const auto options = at::TensorOptions(at::Device(at::kCUDA, 0)).dtype(at::kFloat);
  const int64_t size = group->size();

  at::Tensor sum = at::arange(1000, options) + rank;
  group->all_reduce(sum)->wait();
  EXPECT_TRUE(sum.equal(at::arange(1000, options) * size + size * (size - 1) / 2));

  at::Tensor all = at::empty({size * 3}, options);
  group->all_gather(all, at::full({3}, rank, options))->wait();
  EXPECT_TRUE(all.view({size, 3}).select(1, 0).equal(at::arange(size, options)));

  at::Tensor part = at::empty({2}, options);
  group->reduce_scatter(part, at::arange(2 * size, options))->wait();
  EXPECT_TRUE(part.equal((at::arange(2, options) + 2 * rank) * size));

  at::Tensor narrow = at::full({8}, rank + 1, options.dtype(at::kBFloat16));
  group->broadcast(narrow, 0)->wait();
  EXPECT_TRUE(narrow.equal(at::ones_like(narrow)));
  group->barrier();
  test_group().barrier();  // a group that ends takes along what it has not sent yet
}

}  // namespace
}  // namespace temper::parallel
