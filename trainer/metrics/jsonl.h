#pragma once

#include <cstdint>
#include <filesystem>

#include "trainer/metrics/append_file.h"
#include "trainer/metrics/meter.h"

namespace temper::trainer {

/// metrics.jsonl: one JSON object a line, `step` first; integers are written as integers, doubles
/// with all digits, and what JSON has no number for as the strings "NaN", "Infinity" and
/// "-Infinity".
class JsonlWriter {
 public:
  /// Resuming after `resume_step` first drops the lines of later steps, which will come again (0:
  /// all lines).
  JsonlWriter(const std::filesystem::path& path, int64_t resume_step);
  void write(int64_t step, const MetricLine& line);

 private:
  AppendFile file_;
};

}  // namespace temper::trainer
