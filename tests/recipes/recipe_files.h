#pragma once

#include <filesystem>
#include <fstream>
#include <ostream>
#include <string>
#include <vector>

#include <unistd.h>

#include "recipes/diagnostic.h"
#include "recipes/parse.h"

namespace temper::recipes {

/// Recipes in a directory of their own, gone at the end. Messages name the files without the
/// directory.
class RecipeFiles {
 public:
  RecipeFiles() {
    std::string pattern = (std::filesystem::temp_directory_path() / "recipes-XXXXXX").string();
    directory_ = ::mkdtemp(pattern.data());
  }
  ~RecipeFiles() { std::filesystem::remove_all(directory_); }
  RecipeFiles(const RecipeFiles&) = delete;
  RecipeFiles& operator=(const RecipeFiles&) = delete;

  std::filesystem::path path(const std::string& name) const { return directory_ / name; }

  std::filesystem::path write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories(path(name).parent_path());
    std::ofstream(path(name), std::ios::binary) << text;
    return path(name);
  }

  Recipe read(const std::string& name, const std::vector<std::string>& overrides = {},
              const Setting& setting = {}) const {
    return parse(path(name), overrides, setting);
  }

  /// The lines of the UserError, or none when the recipe is right.
  std::vector<std::string> refusal(const std::string& name,
                                   const std::vector<std::string>& overrides = {},
                                   const Setting& setting = {}) const {
    try {
      read(name, overrides, setting);
    } catch (const UserError& error) {
      std::vector<std::string> lines = error.lines();
      const std::string prefix = directory_.string() + "/";
      for (std::string& line : lines) {
        for (size_t at = line.find(prefix); at != std::string::npos; at = line.find(prefix))
          line.erase(at, prefix.size());
      }
      return lines;
    }
    return {};
  }

 private:
  std::filesystem::path directory_;
};

/// What a recipe needs at least.
inline const std::string kLeast =
    "[run]\n"
    "name = \"test\"\n"
    "[model]\n"
    "path = \"models/tiny\"\n"
    "[[data.train]]\n"
    "path = \"rows.jsonl\"\n";

/// A recipe that is refused: what is written over a good one, what is typed, and the whole answer.
struct Refused {
  const char* name;
  std::string toml;  // from line 2 of r.toml
  std::vector<std::string> overrides;
  std::vector<std::string> answer;
};

inline void PrintTo(const Refused& refused, std::ostream* out) { *out << refused.name; }

inline std::vector<std::string> answer_to(const Refused& refused) {
  RecipeFiles files;
  files.write("least.toml", kLeast);
  files.write("r.toml", "extends = \"least.toml\"\n" + refused.toml);
  return files.refusal("r.toml", refused.overrides);
}

}  // namespace temper::recipes
