#include "parallel/deadline.h"

#include <chrono>
#include <thread>

#include <gtest/gtest.h>

namespace temper::parallel {

namespace {

TEST(DeadlineDeathTest, EndsTheProcessThatStaysTooLong) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        const Deadline deadline("MPI_Init", 0.05);
        std::this_thread::sleep_for(std::chrono::seconds(30));
      },
      testing::ExitedWithCode(1), "MPI_Init waited 0.05 s \\(parallel.timeout\\)");
}

TEST(Deadline, LeavesAloneWhoIsInTime) {
  const auto start = std::chrono::steady_clock::now();
  { const Deadline deadline("MPI_Init", 60); }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
}

}  // namespace

}  // namespace temper::parallel
