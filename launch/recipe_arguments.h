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

/// How ranks find each other, as far as the recipe can be read before they have.
std::string rendezvous_of(const po::variables_map& given);

}  // namespace temper::launch
