#include "trainer/generation/kv_cache.h"

#include <stdexcept>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace temper::trainer {
namespace {

at::Tensor filled(double value, int64_t tokens) {
  return at::full({1, 2, tokens, 4}, value, at::kFloat);
}

TEST(KvCache, ReturnsEverythingAppendedSoFarInOrder) {
  KvCache cache(/*layers=*/1, /*batch=*/1, /*kv_heads=*/2, /*head_dim=*/4, /*capacity=*/8,
                at::kFloat);
  cache.append(0, filled(1, 3), filled(-1, 3));
  cache.advance(3);
  const auto [keys, values] = cache.append(0, filled(2, 1), filled(-2, 1));
  EXPECT_EQ(keys.sizes(), (at::IntArrayRef{1, 2, 4, 4}));
  EXPECT_TRUE(at::equal(keys, at::cat({filled(1, 3), filled(2, 1)}, 2)));
  EXPECT_TRUE(at::equal(values, at::cat({filled(-1, 3), filled(-2, 1)}, 2)));
}

TEST(KvCache, LayersAreSeparateAndLengthGrowsOnlyWithAdvance) {
  KvCache cache(2, 1, 2, 4, 8, at::kFloat);
  cache.append(0, filled(1, 2), filled(1, 2));
  const auto [keys, values] = cache.append(1, filled(5, 2), filled(5, 2));
  EXPECT_EQ(cache.length(), 0);
  EXPECT_TRUE(at::equal(keys, filled(5, 2)));
  cache.advance(2);
  EXPECT_EQ(cache.length(), 2);
}

TEST(KvCache, RefusesMoreThanItsCapacity) {
  KvCache cache(1, 1, 2, 4, 2, at::kFloat);
  EXPECT_THROW(cache.append(0, filled(1, 3), filled(1, 3)), std::logic_error);
}

}  // namespace
}  // namespace temper::trainer
