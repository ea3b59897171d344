#pragma once

#include <string>
#include <vector>

/// One command of `temper`: its row in commands.cpp, its file launch/<name>.cpp. run() parses its own arguments (everything after the
/// command's name) with Boost.Program_options, answers --help with its options and an example, and returns the exit code; it may throw
/// UserError (exit 2) or anything else (exit 1), which main() prints.
namespace temper::launch {

enum ExitCode { kDone = 0, kFailed = 1, kWrongInput = 2, kStoppedEarly = 75 };

struct Command {
  const char* name;
  const char* sentence;
  int (*run)(const std::vector<std::string>& arguments);
};

const std::vector<Command>& commands();

int train(const std::vector<std::string>& arguments);
int plan(const std::vector<std::string>& arguments);
int prepare(const std::vector<std::string>& arguments);
int eval(const std::vector<std::string>& arguments);
int generate(const std::vector<std::string>& arguments);
int tokenize(const std::vector<std::string>& arguments);
int export_command(const std::vector<std::string>& arguments);
int inspect(const std::vector<std::string>& arguments);
int init(const std::vector<std::string>& arguments);
int doctor(const std::vector<std::string>& arguments);

}  // namespace temper::launch
