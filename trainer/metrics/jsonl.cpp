#include "trainer/metrics/jsonl.h"

#include <cmath>
#include <fstream>
#include <string>

#include "data/io/atomic_file.h"
#include "data/io/json.h"

namespace temper::trainer {

namespace {

const std::filesystem::path& without_later_lines(const std::filesystem::path& path,
                                                 int64_t resume_step) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return path;
  std::string kept;
  for (std::string line; std::getline(file, line);) {
    const data::Json json = data::Json::parse(line, nullptr, /*allow_exceptions=*/false);
    // A run killed while it wrote leaves half a line at the end.
    if (!json.is_object() || !json.contains("step")) continue;
    if (resume_step > 0 && json["step"] <= resume_step) kept += line + "\n";
  }
  data::write_file_atomically(path, kept);
  return path;
}

data::Json number(double value) {
  constexpr double kExactIntegers = 9007199254740992.0;  // 2^53
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  if (value == std::floor(value) && std::abs(value) < kExactIntegers) {
    return static_cast<int64_t>(value);
  }
  return value;
}

}  // namespace

JsonlWriter::JsonlWriter(const std::filesystem::path& path, int64_t resume_step)
    : file_(without_later_lines(path, resume_step)) {}

void JsonlWriter::write(int64_t step, const MetricLine& line) {
  data::Json json = {{"step", step}};
  for (const auto& [name, value] : line) json[name] = number(value);
  file_.append(json.dump() + "\n");
}

}  // namespace temper::trainer
