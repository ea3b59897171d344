#pragma once

#include <string>

#include "launch/arguments.h"
#include "recipes/parse.h"

/// RECIPE [key=value ...]: what train, plan, prepare and eval have in common.
namespace temper::launch {

/// Adds both to a parser.
void add_recipe_arguments(ArgumentParser& parser);

/// Parses, checks and resolves the recipe that was given. Throws UserError with all findings.
recipes::Recipe read_recipe(const po::variables_map& given, const recipes::Setting& setting);

/// As much of it as can be read before ranks have met: how they do, and on which devices. What is
/// wrong with it is for read_recipe() to say.
recipes::Recipe peek_recipe(const po::variables_map& given);

}  // namespace temper::launch
