#pragma once

#include <string>
#include <vector>

#include "recipes/recipe.h"

/// Which modules an adapter wraps: PEFT's rules (peft/tuners/tuners_utils.py) over module names alone.
namespace temper::trainer {

/// A module of the base model that an adapter may sit on.
struct TargetModule {
  std::string name;        // "model.layers.0.self_attn.q_proj"
  bool linear = true;      // false: an embedding or a norm
  bool output_head = false;  // left out by "all-linear"
};

/// The chosen modules, in the order given. target_modules unset: PEFT's default for `model_type` and
/// method. Throws UserError when nothing matches, naming the nearest modules, and for a listed name
/// that matches nothing.
std::vector<std::string> find_targets(const recipes::Peft& peft, const std::string& model_type,
                                      const std::vector<TargetModule>& modules);

/// rank_pattern and alpha_pattern: the value of the first key that is a regular expression for the
/// end of the module's name, else `otherwise`.
int64_t pattern_value(const std::map<std::string, int64_t>& patterns, const std::string& module,
                      int64_t otherwise);

/// Those of `modules` that modules_to_save names (by last part or whole path).
bool names_module(const std::vector<std::string>& names, const std::string& module);

}  // namespace temper::trainer
