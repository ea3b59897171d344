#include "data/shards/on_threads.h"

#include <atomic>
#include <stdexcept>
#include <vector>

#include <gtest/gtest.h>

namespace temper::data {
namespace {

TEST(OnThreads, CallsEachOnceWhateverTheNumberOfThreads) {
  for (const int64_t threads : {1, 2, 7}) {
    std::vector<std::atomic<int>> calls(100);
    on_threads(threads, calls.size(), [&](size_t i) { ++calls[i]; });
    for (const auto& count : calls) EXPECT_EQ(count, 1) << threads;
    on_threads(threads, 0, [](size_t) { FAIL(); });
  }
}

TEST(OnThreads, ThrowsWhatACallThrewOnAnyThreadAndLeavesTheRestOut) {
  for (const int64_t threads : {1, 3}) {
    std::atomic<int> calls = 0;
    EXPECT_THROW(on_threads(threads, 10'000'000,
                            [&](size_t i) {
                              ++calls;
                              if (i % 2 == 1) throw std::out_of_range("odd");
                            }),
                 std::out_of_range);
    EXPECT_LT(calls, 10'000'000);
  }
}

}  // namespace
}  // namespace temper::data
