#pragma once

#include <cstdint>
#include <filesystem>

#include "trainer/metrics/append_file.h"
#include "trainer/metrics/meter.h"

namespace temper::trainer {

/// TensorBoard's event format (TFRecord framing with masked CRC-32C, Event and Summary protobufs),
/// scalars only, under the names of metrics.jsonl.
class TensorboardWriter {
 public:
  /// A new events file in `directory` (made where missing). It first tells TensorBoard to forget
  /// what earlier files say of the steps after `resume_step`, which will come again (0: of all
  /// steps).
  TensorboardWriter(const std::filesystem::path& directory, int64_t resume_step);
  void write(int64_t step, const MetricLine& line);

 private:
  AppendFile file_;
};

}  // namespace temper::trainer
