#pragma once

#include <string>

#include "launch/arguments.h"
#include "recipes/recipe.h"

/// RECIPE [key=value ...]: what train, plan, prepare and eval have in common.
namespace temper::launch {

/// Adds both to a parser.
void add_recipe_arguments(ArgumentParser& parser);

struct Use {
  int world_size = 1;
  bool trains = false;  // a run name and [[data.train]] are needed
};

/// Parses, checks and resolves the recipe. Throws UserError with all findings.
recipes::Recipe read_recipe(const po::variables_map& given, const Use& use);

}  // namespace temper::launch
