#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "recipes/recipe.h"

/// Which modules an adapter wraps: PEFT's rules (peft/tuners/tuners_utils.py) over module names
/// alone.
namespace temper::trainer {

class Model;

/// A module of the base model that an adapter may sit on.
struct TargetModule {
  std::string name;          // "model.layers.0.self_attn.q_proj"
  bool linear = true;        // false: an embedding or a norm
  bool output_head = false;  // left out by "all-linear"
};

/// Linear layers of the blocks, then what else of the model has a weight: embedding, norms, output
/// head.
std::vector<TargetModule> modules_of(Model& model);

/// Fills target_modules, and IA3's feedforward_modules, with PEFT's defaults for the method and
/// `model_type` where they are unset. Throws UserError where PEFT has none. Methods without modules
/// (prompt learning) stay as they are.
void set_default_targets(recipes::Peft& peft, const std::string& model_type);

/// The chosen modules, in the order given: of target_modules (unset: the defaults above), and those
/// whose weight target_parameters names, which neither exclude_modules nor layers_to_transform
/// narrow. Throws UserError when nothing matches, naming the nearest; `strict` (a recipe's choice)
/// also for a listed name or layer that matches nothing, which an adapter's own config may well
/// hold. And for a weight that is no linear layer's or is trained otherwise too.
std::vector<std::string> find_targets(const recipes::Peft& peft, const std::string& model_type,
                                      const std::vector<TargetModule>& modules, bool strict = true);

/// The chosen modules by name; from 20 on by the shortest endings that choose the same.
std::vector<std::string> shortened_targets(const std::vector<std::string>& chosen,
                                           const std::vector<TargetModule>& modules);

/// target_modules as PEFT writes them to adapter_config.json: the list or pattern itself;
/// "all-linear" as shortened_targets(). target_modules must be set.
recipes::NamesOrPattern saved_targets(const recipes::Peft& peft,
                                      const std::vector<TargetModule>& modules);

/// IA3: the module scales its input (feedforward_modules), not its output.
bool is_feedforward(const recipes::Peft& peft, const std::string& module);

/// The name that rank_pattern and alpha_pattern are held against: that of the module, or of its
/// weight where target_parameters names it.
std::string target_name(const recipes::Peft& peft, const std::string& module);

/// rank_pattern and alpha_pattern: the value of the first key (in the map's order) that is a
/// regular expression for the whole name or for what follows a dot in it, else `otherwise`.
int64_t pattern_value(const std::map<std::string, int64_t>& patterns, const std::string& module,
                      int64_t otherwise);
double pattern_value(const std::map<std::string, double>& patterns, const std::string& module,
                     double otherwise);

/// Whether modules_to_save names `module`: as in PEFT, any ending of its name will do ("norm" names
/// "model.layers.0.input_layernorm" too).
bool names_module(const std::vector<std::string>& names, const std::string& module);

}  // namespace temper::trainer
