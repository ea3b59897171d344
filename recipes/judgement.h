#pragma once

#include <string>
#include <vector>

#include "recipes/findings.h"
#include "recipes/parse.h"
#include "recipes/recipe.h"

namespace temper::recipes {

/// The recipe under judgement by the rules of validate.cpp and peft_rules.cpp, with where its
/// values were written.
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

}  // namespace temper::recipes
