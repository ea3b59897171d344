#include "launch/recipe_arguments.h"

#include <string>
#include <vector>

namespace temper::launch {

void add_recipe_arguments(ArgumentParser& parser) {
  parser.positional("RECIPE", "a TOML file (docs/recipe.md lists its keys)");
  parser.rest("key=value", "overrides by dotted key: optimizer.lr=1e-4 data.train.0.path=x.jsonl");
}

namespace {

std::vector<std::string> overrides_of(const po::variables_map& given) {
  return given.count("key=value") ? given["key=value"].as<std::vector<std::string>>() : std::vector<std::string>();
}

}  // namespace

recipes::Recipe read_recipe(const po::variables_map& given, const recipes::Setting& setting) {
  return recipes::parse(given["RECIPE"].as<std::string>(), overrides_of(given), setting);
}

recipes::Recipe peek_recipe(const po::variables_map& given) {
  return recipes::peek(given["RECIPE"].as<std::string>(), overrides_of(given));
}

}  // namespace temper::launch
