#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "recipes/kinds.h"
#include "recipes/recipe.h"

/// Which keys of [peft] belong to which method, with the defaults of PEFT 0.21.2's configs: the one
/// place that says so. tests/parity holds it against PEFT.
///
/// To add a method: a row in peft_methods.cpp; its new fields are members of Peft and rows in
/// peft_rows.cpp.
namespace temper::recipes {

/// A key of [peft] as one method has it; initial is PEFT's default.
using PeftField = Field;

struct PeftMethod {
  std::string name;
  std::string meaning;  // what is trained, and the paper
  bool mergeable;       // can be folded into the weights
  std::vector<PeftField> fields;

  /// nullptr: the key belongs to other methods. `key` with or without "peft.".
  const PeftField* field(std::string_view key) const;
};

const std::vector<PeftMethod>& peft_methods();
const PeftMethod* find_peft_method(std::string_view name);
std::vector<std::string> peft_method_names();

/// Whether the start makes other weights of the base's: PiSSA, OLoRA, LoftQ.
bool changes_base(const Peft& peft);

/// The methods that have the key, in the order of the table; all of them for peft.method and
/// peft.dtype.
std::vector<std::string> methods_with(std::string_view key);

/// The word of init_lora_weights without which the key has no effect ("eva" for eva_config.rho), or
/// "".
std::string_view init_of(std::string_view key);

/// Whether the key, with or without "peft.", is one that every method has in Temper and none in
/// PEFT: method and dtype.
bool is_of_every_method(std::string_view key);

/// The method's own keys that are unset take PEFT's default. Without a method nothing changes.
void fill_in_peft(Recipe& recipe);

}  // namespace temper::recipes
