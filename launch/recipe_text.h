#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

/// The commented recipe that `temper init` writes.
namespace temper::launch {

/// What the task, the model and the first rows of the data decide.
struct RecipeDraft {
  std::string task;  // an objective.kind
  std::string name;
  std::filesystem::path file;  // where it will stand
  std::string model, data;
  std::string format, statement;               // of the rows
  std::map<std::string, std::string> columns;  // our names of the file's
  std::string answer;                          // the column with the right answer, or ""
  int64_t longest = 0;                         // document of the rows looked at, in tokens
  int64_t context = 0;                         // of the model, in tokens
  std::string type;                            // of weights and compute
};

std::string recipe_text(const RecipeDraft& draft);

}  // namespace temper::launch
