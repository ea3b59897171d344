#pragma once

#include <string>
#include <vector>

#include "recipes/recipe.h"

/// The recipe with nothing left to look up: as it is saved with a run, and compared when the run
/// goes on.
namespace temper::recipes {

/// Defaults that depend on other keys are filled in: optimizer.lr by the objective and by whether
/// an adapter is trained, the fields of [peft] by its method and those of [objective] by its kind
/// (those whose default in PEFT and TRL is None stay unset), and what goes with the kind.
Recipe resolve(Recipe recipe);

/// A valid recipe file with every key written out; parsing it gives `recipe` again (once resolved).
/// Of train.steps and train.epochs only the one that counts; of [peft] what is set of its method's
/// fields, without a method nothing.
std::string to_toml(const Recipe& recipe);

struct Difference {
  std::string key;
  std::string before;  // as TOML; "" where one of the recipes has no such data source
  std::string after;
  bool may_differ_on_resume;
};

/// Every key with another value, in the order of the tables.
std::vector<Difference> differences(const Recipe& before, const Recipe& after);

}  // namespace temper::recipes
