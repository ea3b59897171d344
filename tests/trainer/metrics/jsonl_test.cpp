#include "trainer/metrics/jsonl.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "recipes/diagnostic.h"
#include "tests/trainer/checkpoint/scratch.h"

namespace temper::trainer {
namespace {

TEST(Jsonl, AStepIsALineWithTheStepFirst) {
  const Scratch scratch;
  JsonlWriter writer(scratch / "metrics.jsonl", 0);
  writer.write(1, {{"loss", 2.5}, {"num_tokens", 123456789012.0}, {"rewards/chosen", -0.0625}});
  writer.write(2, {{"loss", 0.1}, {"learning_rate", 0.00019999999999999998}});
  EXPECT_EQ(read_all(scratch / "metrics.jsonl"),
            "{\"step\":1,\"loss\":2.5,\"num_tokens\":123456789012,\"rewards/chosen\":-0.0625}\n"
            "{\"step\":2,\"loss\":0.1,\"learning_rate\":0.00019999999999999998}\n");
}

TEST(Jsonl, WhatIsNotFiniteIsWrittenAsText) {
  const Scratch scratch;
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  JsonlWriter(scratch / "m", 0)
      .write(3, {{"a", std::nan("")}, {"b", kInfinity}, {"c", -kInfinity}});
  EXPECT_EQ(read_all(scratch / "m"),
            "{\"step\":3,\"a\":\"NaN\",\"b\":\"Infinity\",\"c\":\"-Infinity\"}\n");
}

TEST(Jsonl, ResumingDropsTheLinesOfLaterStepsAndHalfALine) {
  const Scratch scratch;
  write_all(scratch / "m",
            "{\"step\":0,\"a\":1}\n{\"step\":5,\"a\":2}\n{\"step\":10,\"a\":3}\n{\"step\":11,\"a");
  JsonlWriter(scratch / "m", 5).write(6, {{"a", 4}});
  EXPECT_EQ(read_all(scratch / "m"),
            "{\"step\":0,\"a\":1}\n{\"step\":5,\"a\":2}\n{\"step\":6,\"a\":4}\n");
}

TEST(Jsonl, StartingAnewDropsEveryLine) {
  const Scratch scratch;
  write_all(scratch / "m", "{\"step\":0,\"a\":1}\n{\"step\":1,\"a\":2}\n");
  JsonlWriter(scratch / "m", 0).write(0, {{"a", 4}});
  EXPECT_EQ(read_all(scratch / "m"), "{\"step\":0,\"a\":4}\n");
}

TEST(Jsonl, AnUnwritablePathIsARunError) {
  EXPECT_THROW(JsonlWriter("/nowhere/metrics.jsonl", 0), RunError);
}

TEST(AppendFile, AFullDiskIsARunError) {
  AppendFile file("/dev/full");
  try {
    file.append("x");
    FAIL();
  } catch (const RunError& error) {
    EXPECT_STREQ(error.what(), "/dev/full: disk full");
  }
}

}  // namespace
}  // namespace temper::trainer
