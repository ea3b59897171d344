#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "trainer/rewards/reward.h"

namespace temper::trainer {

/// A score, or NaN and why there is none.
struct Score {
  double value;
  std::string problem;
};

/// Rewards that are a function of one completion, computed where they are submitted.
class DirectReward : public Reward {
 public:
  void submit(const Completed& completed) final {
    Score score = this->score(completed);
    if (!score.problem.empty()) {
      ++errors_;
      last_error_ = std::move(score.problem);
    }
    scores_.push_back(score.value);
  }
  std::vector<double> collect() final { return std::exchange(scores_, {}); }
  int64_t errors() const final { return errors_; }
  std::string last_error() const final { return last_error_; }

 private:
  virtual Score score(const Completed& completed) const = 0;

  std::vector<double> scores_;
  int64_t errors_ = 0;
  std::string last_error_;
};

}  // namespace temper::trainer
