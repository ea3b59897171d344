#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "recipes/findings.h"
#include "recipes/parse.h"
#include "recipes/recipe.h"
#include "recipes/value.h"

namespace temper::recipes {

/// The recipe under judgement by the rules of validate.cpp, peft_rules.cpp and objective_rules.cpp,
/// with where its values were written.
struct Judgement {
  const Recipe& recipe;
  Findings& findings;

  /// `keys`: those the rule is about; the finding stands at the first of them that was written. Not
  /// judged where one of them has a finding already.
  void require(bool holds, const std::vector<std::string>& keys, const std::string& problem);

  /// `pattern`, of the value of `key`, must be a regular expression.
  void require_pattern(const std::string& pattern, const std::string& key);
};

/// Rules of [peft], and of what goes with an adapter or needs one: model.quantize, model.adapter,
/// export.merge, LoRA+.
void judge_peft(Judgement& judge, Purpose purpose);

/// Rules of [objective] and its rewards, and of what a kind decides elsewhere: data.packing,
/// data.loss_on, [generation], batches, eval.metric.
void judge_objective(Judgement& judge, Purpose purpose);
/// Rules of the batches of kinds that sample, in training; `ranks`: data-parallel ones. batch.micro
/// x ranks divides batch.global.
void judge_rollouts(Judgement& judge, int64_t ranks);

// ---- words of messages -------------------------------------------------------------------------

/// "has no effect with ..."
std::string no_effect(const std::string& with);
/// "a, b and c" with " and " before the last.
std::string listed(const std::vector<std::string>& texts, const std::string& before_last);
/// The values as TOML: "true or false".
std::string one_of(const std::vector<Value>& values);

}  // namespace temper::recipes
