#include "launch/recipe_arguments.h"

#include <string>
#include <vector>

namespace temper::launch {

void add_recipe_arguments(ArgumentParser& parser) {
  parser.positional("RECIPE", "a TOML file (docs/recipe.md lists its keys)");
  parser.rest("key=value", "overrides by dotted key: optimizer.lr=1e-4 data.train.0.path=x.jsonl");
}

recipes::Recipe read_recipe(const po::variables_map& given, const recipes::Setting& setting) {
  std::vector<std::string> overrides;
  if (given.count("key=value")) overrides = given["key=value"].as<std::vector<std::string>>();
  return recipes::parse(given["RECIPE"].as<std::string>(), overrides, setting);
}

}  // namespace temper::launch
