#pragma once

#include <string>

namespace temper::recipes {

/// docs/recipe.md: how a recipe is read, and every key with its values, default and sentence, from
/// the rows of schema.cpp.
std::string reference_markdown();

}  // namespace temper::recipes
