#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "trainer/rewards/reward.h"

namespace temper::trainer {

/// One kind of reward: objective.rewards[].kind in a recipe. A new one is a file and a row.
struct RewardRow {
  const char* kind;
  std::unique_ptr<Reward> (*build)(const recipes::Reward& reward, int64_t max_completion_length);
  const char* sentence;
  const char* paper;
};
std::span<const RewardRow> rewards();

std::unique_ptr<Reward> build_accuracy(const recipes::Reward& reward, int64_t);  // accuracy.cpp
std::unique_ptr<Reward> build_format(const recipes::Reward& reward, int64_t);    // format.cpp
std::unique_ptr<Reward> build_regex(const recipes::Reward& reward, int64_t);     // format.cpp
std::unique_ptr<Reward> build_length(const recipes::Reward& reward,
                                     int64_t max_completion_length);               // length.cpp
std::unique_ptr<Reward> build_repetition(const recipes::Reward& reward, int64_t);  // repetition.cpp
std::unique_ptr<Reward> build_program(const recipes::Reward& reward, int64_t);     // program.cpp
std::unique_ptr<Reward> build_model_reward(const recipes::Reward& reward,
                                           int64_t);  // model_reward.cpp

/// `objective.rewards "length": soft`, as messages about a key begin.
std::string key_of(const recipes::Reward& reward, const char* key);

}  // namespace temper::trainer
