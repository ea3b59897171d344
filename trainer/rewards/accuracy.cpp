#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "recipes/diagnostic.h"
#include "trainer/rewards/direct_reward.h"
#include "trainer/rewards/final_answer.h"
#include "trainer/rewards/registry.h"

namespace temper::trainer {
namespace {

/// 1 when the completion's final answer has the value of the row's, 0 when it has another or there
/// is none; no score when the row's answer cannot be read (as TRL's accuracy_reward).
class Accuracy final : public DirectReward {
 public:
  Accuracy(std::string column, std::string where)
      : column_(std::move(column)), where_(std::move(where)) {}

 private:
  Score score(const Completed& completed) const override {
    const std::string answer = answer_in(completed.columns);
    const std::vector<MathValue> right = answer_of_row(answer);
    if (right.empty()) {
      constexpr size_t kShown = 80;
      std::string shown = answer.substr(0, kShown);
      if (answer.size() > kShown) shown += "...";
      return {std::nan(""),
              "column '" + column_ + "' holds no answer that can be compared: '" + shown + "'"};
    }
    for (const MathValue& given : answer_of_completion(completed.completion)) {
      for (const MathValue& value : right) {
        if (same_value(value, given)) return {1.0, ""};
      }
    }
    return {0.0, ""};
  }

  std::string answer_in(const data::Json& columns) const {
    if (!columns.contains(column_)) {
      std::vector<std::string> names;
      for (const auto& [name, value] : columns.items()) names.push_back(name);
      throw UserError(where_ + " = \"" + column_ + "\": the rows have no such column; they have: " +
                      (names.empty() ? "none besides the prompt" : join(names)));
    }
    const data::Json& value = columns.at(column_);
    return value.is_string() ? value.get<std::string>() : value.is_null() ? "" : value.dump();
  }

  std::string column_, where_;
};

}  // namespace

std::unique_ptr<Reward> build_accuracy(const recipes::Reward& reward, int64_t, at::Device) {
  return std::make_unique<Accuracy>(reward.answer.value_or("answer"), key_of(reward, "answer"));
}

}  // namespace temper::trainer
