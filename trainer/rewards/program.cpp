#include <charconv>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <unistd.h>

#include "recipes/diagnostic.h"
#include "trainer/rewards/direct_reward.h"
#include "trainer/rewards/latex_text.h"
#include "trainer/rewards/registry.h"
#include "trainer/rewards/worker_pool.h"

namespace temper::trainer {
namespace {

std::string shown(std::string_view text) {
  constexpr size_t kShown = 120;
  return "'" + std::string(text.substr(0, kShown)) + (text.size() > kShown ? "...'" : "'");
}

// "0.5", "1e-3", {"reward": 0.5}.
Score score_of(std::string_view line) {
  const std::string_view text = trimmed(line);
  const std::string_view digits = text.starts_with('+') ? text.substr(1) : text;
  double value = std::nan("");
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size()) {
    const data::Json json = data::Json::parse(text, nullptr, false);
    if (!json.is_object() || !json.contains("reward") || !json.at("reward").is_number()) {
      return {std::nan(""),
              "answered " + shown(text) + "; expected is one number, or {\"reward\": number}"};
    }
    value = json.at("reward").get<double>();
  }
  if (!std::isfinite(value)) {
    return {std::nan(""), "answered " + shown(text) + ", which is not a finite number"};
  }
  return {value, ""};
}

class Program final : public Reward {
 public:
  explicit Program(WorkerPoolOptions options) : pool_(std::move(options)) {}

  void submit(const Completed& completed) override {
    data::Json line = {{"prompt", completed.prompt}, {"completion", completed.completion}};
    for (const auto& [name, value] : completed.columns.items()) {
      if (!line.contains(name)) line[name] = value;
    }
    // Half a character at the end of a completion is no reason to stop.
    pool_.submit(line.dump(-1, ' ', false, data::Json::error_handler_t::replace));
  }

  std::vector<double> collect() override {
    std::vector<double> scores;
    for (const WorkerPool::Answer& answer : pool_.collect()) {
      const Score score =
          answer.problem.empty() ? score_of(answer.line) : Score{std::nan(""), answer.problem};
      if (!score.problem.empty()) {
        ++errors_;
        last_error_ = "the program " + score.problem;
      }
      scores.push_back(score.value);
    }
    return scores;
  }

  int64_t errors() const override { return errors_; }
  std::string last_error() const override { return last_error_; }

 private:
  WorkerPool pool_;
  int64_t errors_ = 0;
  std::string last_error_;
};

// What a program needs to find itself and its files, and nothing that looks like a credential.
std::vector<std::string> reduced_environment() {
  std::vector<std::string> result;
  for (char** entry = ::environ; *entry != nullptr; ++entry) {
    const std::string_view variable = *entry;
    const std::string_view name = variable.substr(0, variable.find('='));
    bool kept = name.starts_with("LC_") || name.starts_with("PYTHON");
    for (const char* exact : {"PATH", "HOME", "LANG", "TMPDIR", "CUDA_VISIBLE_DEVICES"}) {
      kept = kept || name == exact;
    }
    for (const char* secret : {"TOKEN", "SECRET", "KEY"}) {
      kept = kept && name.find(secret) == std::string_view::npos;
    }
    if (kept && name != "PYTHONUNBUFFERED") result.emplace_back(variable);
  }
  // Python would keep its answers back until it has a few thousand of them.
  result.emplace_back("PYTHONUNBUFFERED=1");
  return result;
}

// As a shell finds it; empty when it does not.
std::string found_program(const std::string& name) {
  const auto runs = [](const std::string& path) {
    return std::filesystem::is_regular_file(path) && ::access(path.c_str(), X_OK) == 0;
  };
  if (name.find('/') != std::string::npos) return runs(name) ? name : "";
  const char* path = std::getenv("PATH");
  std::string_view rest = path == nullptr ? "/usr/local/bin:/usr/bin:/bin" : path;
  while (!rest.empty()) {
    const std::string_view directory = rest.substr(0, rest.find(':'));
    rest.remove_prefix(std::min(rest.size(), directory.size() + 1));
    std::string candidate = (directory.empty() ? "." : std::string(directory)) + "/" + name;
    if (runs(candidate)) return candidate;
  }
  return "";
}

std::string as_written(const recipes::NamesOrPattern& command) {
  if (const auto* line = std::get_if<std::string>(&command)) return *line;
  return join(std::get<std::vector<std::string>>(command), " ");
}

}  // namespace

std::unique_ptr<Reward> build_program(const recipes::Reward& reward, int64_t, at::Device) {
  const std::string written = reward.command ? as_written(*reward.command) : "";
  if (trimmed(written).empty()) {
    throw UserError(key_of(reward, "command") +
                    ": missing; a shell line, or a list of a program and its arguments");
  }
  std::vector<std::string> arguments = {"/bin/sh", "-c", written};
  if (const auto* list = std::get_if<std::vector<std::string>>(&*reward.command)) {
    arguments = *list;
    arguments[0] = found_program(list->front());
    if (arguments[0].empty()) {
      throw UserError(key_of(reward, "command") + " = [\"" + list->front() +
                      "\", ...]: there is no such program that may be run");
    }
  }
  const int64_t workers = reward.workers.value_or(1);
  if (workers < 1 || workers > 1024) {
    throw UserError(key_of(reward, "workers") + " = " + std::to_string(workers) +
                    ": must be from 1 to 1024 processes");
  }
  const double timeout = reward.timeout.value_or(10);
  if (!(timeout > 0) || timeout > 86400) {
    throw UserError(key_of(reward, "timeout") + " = " + std::to_string(timeout) +
                    ": must be above 0 seconds, a day at most");
  }
  return std::make_unique<Program>(WorkerPoolOptions{.name = name_of(reward),
                                                     .arguments = std::move(arguments),
                                                     .environment = reduced_environment(),
                                                     .command = written,
                                                     .workers = workers,
                                                     .timeout_seconds = timeout});
}

}  // namespace temper::trainer
