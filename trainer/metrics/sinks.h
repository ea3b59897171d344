#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "trainer/metrics/meter.h"

/// Where metric lines go (rank 0 only): metrics.jsonl, TensorBoard event files, the progress line.
namespace temper::trainer {

/// metrics.jsonl: one JSON object a line, `step` first; integers are written as integers, doubles with all digits (NaN as
/// the JSON string "NaN"). Opening for a resume at step s first drops the lines of later steps.
class JsonlWriter {
 public:
  JsonlWriter(const std::filesystem::path& path, int64_t resume_step);
  ~JsonlWriter();
  void write(int64_t step, const MetricLine& line);

 private:
  int file_ = -1;
  std::filesystem::path path_;
};

/// TensorBoard's event format (TFRecord framing with masked CRC-32C, Event/Summary protobufs), scalars only.
class TensorboardWriter {
 public:
  /// A new events file in `directory`; on a resume it tells TensorBoard to drop steps from `resume_step` + 1 on (SessionLog START).
  TensorboardWriter(const std::filesystem::path& directory, int64_t resume_step);
  ~TensorboardWriter();
  void write(int64_t step, const MetricLine& line);

 private:
  int file_ = -1;
};

struct ProgressNow {
  int64_t step = 0, total = 0;
  double loss = 0, tokens_per_second = 0, mfu = 0, peak_memory_mib = 0, seconds_left = 0;
  bool has_mfu = false;
};

/// On a terminal one line, rewritten; piped, plain lines (one a logged step). Rank 0 only.
class Progress {
 public:
  explicit Progress(bool terminal);
  void show(const ProgressNow& now, bool logged);
  /// Ends the line, so that other output may follow.
  void pause();

 private:
  bool terminal_;
  bool open_ = false;
};

/// report.html: one self-contained page (inline SVG, no script from elsewhere): curves of every metric, throughput, memory, samples,
/// the recipe. Made from the run directory's own files, so that it can be made again at any time.
void write_report(const std::filesystem::path& run_directory);

}  // namespace temper::trainer
