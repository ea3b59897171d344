#pragma once

#include <memory>
#include <string>
#include <vector>

#include "trainer/rewards/reward.h"

namespace temper::trainer {

inline recipes::Reward reward_of(const std::string& kind) {
  recipes::Reward reward;
  reward.kind = kind;
  return reward;
}

/// The score of one completion; `tokens` are its ids.
inline double score(Reward& reward, const std::string& completion,
                    std::vector<int32_t> tokens = {}) {
  Completed completed;
  completed.completion = completion;
  completed.completion_ids = std::move(tokens);
  completed.columns = data::Json::object();
  reward.submit(completed);
  return reward.collect().at(0);
}

}  // namespace temper::trainer
