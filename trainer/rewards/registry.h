#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "trainer/rewards/reward.h"

namespace temper::trainer {

/// `max_completion_length` and `device` are build_reward's.
using BuildReward = std::unique_ptr<Reward>(const recipes::Reward& reward,
                                            int64_t max_completion_length, at::Device device);

/// One kind of reward: objective.rewards[].kind in a recipe. A new one is a file and a row.
struct RewardRow {
  const char* kind;
  BuildReward* build;
  const char* sentence;
  const char* paper;
};
std::span<const RewardRow> rewards();

BuildReward build_accuracy;      // accuracy.cpp
BuildReward build_format;        // format.cpp
BuildReward build_regex;         // format.cpp
BuildReward build_length;        // length.cpp
BuildReward build_repetition;    // repetition.cpp
BuildReward build_program;       // program.cpp
BuildReward build_model_reward;  // model_reward.cpp

/// `objective.rewards "length": soft`, as messages about a key begin.
std::string key_of(const recipes::Reward& reward, const char* key);

}  // namespace temper::trainer
