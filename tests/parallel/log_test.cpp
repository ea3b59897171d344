#include "parallel/log.h"

#include <gtest/gtest.h>

#include "parallel/world.h"

namespace temper::parallel {

namespace {

struct Printed {
  std::string out, error;
  std::vector<std::string> sink;
};

/// What a rank of two prints when it says, warns, and warns of itself.
Printed lines_of_rank(int rank, int size) {
  Printed printed;
  set_log_world({.rank = rank, .size = size, .host = "node2"});
  set_log_sink([&](const std::string& line) { printed.sink.push_back(line); });
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  say("step 1");
  warn("disk is slow");
  warn("row 7 is empty", true);
  printed.out = testing::internal::GetCapturedStdout();
  printed.error = testing::internal::GetCapturedStderr();
  set_log_sink({});
  set_log_world({});
  return printed;
}

TEST(Log, Rank0SaysThingsAndNamesItselfOnlyWhereItConcernsOneRank) {
  const Printed printed = lines_of_rank(0, 2);
  EXPECT_EQ(printed.out, "step 1\n");
  EXPECT_EQ(printed.error, "disk is slow\nrank 0 on node2: row 7 is empty\n");
  EXPECT_EQ(printed.sink, (std::vector<std::string>{"step 1", "disk is slow",
                                                    "rank 0 on node2: row 7 is empty"}));
}

TEST(Log, OtherRanksOnlyWarnAndNameThemselves) {
  const Printed printed = lines_of_rank(1, 2);
  EXPECT_EQ(printed.out, "");
  EXPECT_EQ(printed.error, "rank 1 on node2: disk is slow\nrank 1 on node2: row 7 is empty\n");
  EXPECT_EQ(printed.sink.size(), 2U);
}

TEST(Log, AloneThereIsNoRankToName) {
  EXPECT_EQ(lines_of_rank(0, 1).error, "disk is slow\nrow 7 is empty\n");
}

}  // namespace

}  // namespace temper::parallel
