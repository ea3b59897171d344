#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <c10/core/Device.h>

#include "data/io/json.h"
#include "recipes/recipe.h"

/// Scores of completions. A kind of reward is one file and a row in registry.cpp.
namespace temper::trainer {

/// One completion, as rewards see it.
struct Completed {
  std::string prompt;      // as text; of a chat what the template made of it
  std::string completion;  // without special tokens
  std::vector<int32_t> prompt_ids, completion_ids;  // with the ending eos where there is one
  bool truncated = false;  // ended at max_completion_length
  data::Json columns;      // all other columns of the row: an object
};

class Reward {
 public:
  virtual ~Reward() = default;
  /// Begins scoring. Returns at once where the work is somebody else's (a program), so that it goes
  /// on while other completions are still being sampled.
  virtual void submit(const Completed& completed) = 0;
  /// The scores of all that was submitted since the last call, in that order; NaN where a
  /// completion could not be scored (counted in errors()). Waits. Throws RunError when scoring as a
  /// whole has broken down.
  virtual std::vector<double> collect() = 0;
  /// Completions without a score since the start, and why the last one has none; "" when none.
  virtual int64_t errors() const { return 0; }
  virtual std::string last_error() const { return {}; }
};

/// From the registry by reward.kind. `max_completion_length`: of the rollouts, which length rewards
/// default to. `device`: where models that reward compute. Throws UserError naming the key.
std::unique_ptr<Reward> build_reward(const recipes::Reward& reward, int64_t max_completion_length,
                                     at::Device device = at::kCPU);

/// reward.name, or the kind.
std::string name_of(const recipes::Reward& reward);

}  // namespace temper::trainer
