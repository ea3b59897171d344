#include "trainer/ops/cpu_allocator.h"

#include <cstdint>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace temper::trainer {
namespace {

TEST(CpuAllocator, HandsALargeBlockOutAgainForThatSizeAndNearlyThatSize) {
  const at::Tensor before = at::ones({1 << 20});
  use_caching_cpu_allocator();
  void* first = nullptr;
  {
    const at::Tensor tensor = at::zeros({10'000'000});
    first = tensor.data_ptr();
  }
  {
    const at::Tensor same = at::ones({10'000'000});
    EXPECT_EQ(same.data_ptr(), first);
    const at::Tensor other = at::ones({10'000'000});
    EXPECT_NE(other.data_ptr(), first);
  }
  const at::Tensor smaller = at::ones({9'500'000});
  const at::Tensor much_smaller = at::ones({1'000'000});
  EXPECT_EQ(smaller.sum().item<double>(), 9'500'000);
  EXPECT_EQ(much_smaller.sum().item<double>(), 1'000'000);
  EXPECT_EQ(before.sum().item<double>(), 1 << 20);
}

TEST(CpuAllocator, EveryBlockIsAlignedForVectors) {
  use_caching_cpu_allocator();
  for (const int64_t count : {0, 1, 3, 1000, 65'536, 100'000, 3'000'000}) {
    const at::Tensor tensor = at::empty({count});
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.data_ptr()) % 64, 0u) << count;
  }
}

}  // namespace
}  // namespace temper::trainer
