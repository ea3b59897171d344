#pragma once

#include <cstdint>
#include <string>

#include "trainer/metrics/meter.h"

namespace temper::trainer {

struct ProgressNow {
  int64_t step = 0, total = 0;
  double loss = 0, tokens_per_second = 0, mfu = 0, peak_memory_mib = 0, seconds_left = 0;
  bool has_mfu = false;
};

/// "step 120/2000 6%  loss 2.341  12.3k tok/s  MFU 41%  2.1 GiB  3m12s left"
std::string progress_text(const ProgressNow& now);

/// "step 120/2000  loss 2.341  grad_norm 1.2  ..."
std::string metrics_text(int64_t step, int64_t total, const MetricLine& line);

/// What rank 0 shows of the run: on a terminal one line, rewritten, and a lasting line for each
/// evaluation; piped, a plain line for each line of metrics.
class Progress {
 public:
  explicit Progress(bool terminal);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Rewrites the line, at most some ten times a second. Piped: nothing.
  void show(const ProgressNow& now);
  void show_line(int64_t step, int64_t total, const MetricLine& line);
  /// Clears the line, so that other output may follow.
  void pause();

 private:
  bool terminal_;
  bool open_ = false;
  double last_shown_ = 0;  // seconds
};

}  // namespace temper::trainer
