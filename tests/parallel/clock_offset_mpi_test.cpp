#include <cmath>

#include <gtest/gtest.h>

#include "parallel/clock_offset.h"
#include "tests/parallel/mpi_main.h"

namespace temper::parallel {

namespace {

TEST(ClockOffset, IsThatOfThisRanksClock) {
  // Ranks on one host share a clock: what is put in must come out. On busy cores even the quickest
  // round trip may take a slice.
  static int rank = 0;
  rank = test_group().rank();
  const double offset = clock_offset(test_group(), [] { return steady_seconds() + 10.0 * rank; });
  EXPECT_NEAR(offset, 10.0 * rank, 0.05);
}

}  // namespace

}  // namespace temper::parallel
