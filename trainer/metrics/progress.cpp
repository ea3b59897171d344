#include "trainer/metrics/progress.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

#include <sys/ioctl.h>
#include <unistd.h>

#include "parallel/log.h"

namespace temper::trainer {

namespace {

template <typename... Arguments>
std::string format(const char* pattern, Arguments... arguments) {
  char text[128];
  std::snprintf(text, sizeof text, pattern, arguments...);
  return text;
}

std::string step_text(int64_t step, int64_t total) {
  return format("step %lld/%lld", static_cast<long long>(step), static_cast<long long>(total));
}

std::string time_text(double seconds) {
  const auto whole = static_cast<long long>(std::max(0.0, seconds));
  if (whole < 60) return format("%llds", whole);
  if (whole < 3600) return format("%lldm%02llds", whole / 60, whole % 60);
  return format("%lldh%02lldm", whole / 3600, whole / 60 % 60);
}

std::string rate_text(double rate) {
  if (rate >= 1e6) return format("%.2fM", rate / 1e6);
  return rate >= 1e4 ? format("%.1fk", rate / 1e3) : format("%.0f", rate);
}

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

size_t terminal_width() {
  winsize size{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

void put(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

}  // namespace

std::string progress_text(const ProgressNow& now) {
  std::string text = step_text(now.step, now.total);
  if (now.total > 0) text += format(" %lld%%", static_cast<long long>(100 * now.step / now.total));
  text += format("  loss %.4g  ", now.loss) + rate_text(now.tokens_per_second) + " tok/s";
  if (now.has_mfu) text += format("  MFU %.0f%%", 100 * now.mfu);
  text += now.peak_memory_mib < 1024 ? format("  %.0f MiB", now.peak_memory_mib)
                                     : format("  %.1f GiB", now.peak_memory_mib / 1024);
  return text + "  " + time_text(now.seconds_left) + " left";
}

std::string metrics_text(int64_t step, int64_t total, const MetricLine& line) {
  std::string text = step_text(step, total);
  for (const auto& [name, value] : line) {
    const bool whole = value == std::floor(value) && std::abs(value) < 1e15;
    text += "  " + name + " " + format(whole ? "%.0f" : "%.4g", value);
  }
  return text;
}

Progress::Progress(bool terminal) : terminal_(terminal) {}

Progress::~Progress() { pause(); }

void Progress::show(const ProgressNow& now) {
  constexpr double kSecondsBetween = 0.1;
  const double seconds = seconds_now();
  if (!terminal_ || (seconds - last_shown_ < kSecondsBetween && now.step < now.total)) return;
  last_shown_ = seconds;
  put("\r\x1b[2K" + progress_text(now).substr(0, terminal_width() - 1));
  open_ = true;
}

void Progress::show_line(int64_t step, int64_t total, const MetricLine& line) {
  const bool evaluation = std::any_of(line.begin(), line.end(), [](const auto& metric) {
    return metric.first.starts_with("eval_");
  });
  if (terminal_ && !evaluation) return;
  pause();
  parallel::say(metrics_text(step, total, line));
}

void Progress::pause() {
  if (open_) put("\r\x1b[2K");
  open_ = false;
}

}  // namespace temper::trainer
