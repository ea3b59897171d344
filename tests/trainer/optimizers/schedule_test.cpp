#include "trainer/optimizers/schedule.h"

#include <cmath>

#include <gtest/gtest.h>

#include "recipes/diagnostic.h"

namespace temper::trainer {
namespace {

recipes::Schedule of_kind(const std::string& kind, double warmup = 0) {
  recipes::Schedule schedule;
  schedule.kind = kind;
  schedule.warmup = warmup;
  return schedule;
}

TEST(Schedule, TheFirstUpdateOfAWarmUpHasRateZero) {
  EXPECT_EQ(schedule_factor(of_kind("linear", 4), 1e-3, 1, 10), 0.0);
  EXPECT_EQ(schedule_factor(of_kind("linear", 4), 1e-3, 2, 10), 0.25);
  EXPECT_EQ(schedule_factor(of_kind("linear", 4), 1e-3, 5, 10), 1.0);
}

TEST(Schedule, CosineIsHalfWayDownInTheMiddle) {
  EXPECT_NEAR(schedule_factor(of_kind("cosine"), 1e-3, 6, 10), 0.5, 1e-15);
}

TEST(Schedule, ConstantIgnoresWarmUp) {
  EXPECT_EQ(schedule_factor(of_kind("constant", 5), 1e-3, 1, 10), 1.0);
  EXPECT_EQ(schedule_factor(of_kind("constant_with_warmup", 5), 1e-3, 1, 10), 0.0);
}

TEST(Schedule, AFractionOfWarmUpIsRoundedUp) {
  EXPECT_EQ(warmup_steps(of_kind("linear", 0.03), 100), 3);
  EXPECT_EQ(warmup_steps(of_kind("linear", 0.03), 101), 4);
  EXPECT_EQ(warmup_steps(of_kind("linear", 0.03), 10), 1);
  EXPECT_EQ(warmup_steps(of_kind("linear", 0), 10), 0);
  EXPECT_EQ(warmup_steps(of_kind("linear", 1), 10), 1);
  EXPECT_EQ(warmup_steps(of_kind("linear", 25), 10), 25);
}

TEST(Schedule, FactorsStayInRangeForEveryKindAndLength) {
  for (const char* kind : {"linear", "cosine", "cosine_with_restarts", "polynomial", "constant",
                           "constant_with_warmup", "inverse_sqrt", "cosine_with_min_lr",
                           "cosine_warmup_with_min_lr", "warmup_stable_decay"}) {
    recipes::Schedule schedule = of_kind(kind, 2);
    if (std::string(kind).find("min_lr") != std::string::npos) schedule.min_lr = 1e-5;
    if (std::string(kind) == "warmup_stable_decay") schedule.num_decay_steps = 1;
    for (const int64_t total : {1, 2, 3, 7}) {
      for (int64_t step = 1; step <= total + 2; ++step) {
        const double factor = schedule_factor(schedule, 1e-3, step, total);
        EXPECT_TRUE(factor >= 0 && factor <= 1.0)
            << kind << " " << total << " " << step << ": " << factor;
      }
    }
  }
}

std::string finding(const recipes::Schedule& schedule) {
  try {
    schedule_factor(schedule, 1e-3, 1, 10);
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

TEST(Schedule, WhatIsMissingIsNamed) {
  EXPECT_EQ(finding(of_kind("warmup_stable_decay")),
            "schedule.kind = \"warmup_stable_decay\": needs schedule.num_decay_steps");
  EXPECT_NE(finding(of_kind("cosine_with_min_lr")).find("schedule.min_lr_rate"), std::string::npos);
}

TEST(Schedule, ContradictionsAndUnknownNamesAreRefused) {
  recipes::Schedule both = of_kind("cosine_with_min_lr");
  both.min_lr = 1e-5;
  both.min_lr_rate = 0.1;
  EXPECT_NE(finding(both).find("only one of them"), std::string::npos);
  recipes::Schedule end = of_kind("polynomial");
  end.lr_end = 1e-2;
  EXPECT_NE(finding(end).find("must be below optimizer.lr"), std::string::npos);
  recipes::Schedule decay = of_kind("warmup_stable_decay");
  decay.num_decay_steps = 5;
  decay.decay_type = "sqrt";
  EXPECT_NE(finding(decay).find("must be linear, cosine or 1-sqrt"), std::string::npos);
  EXPECT_NE(finding(of_kind("cosin")).find("did you mean \"cosine\"?"), std::string::npos);
}

}  // namespace
}  // namespace temper::trainer
