#include "trainer/recorder.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <system_error>

#include <c10/core/CachingDeviceAllocator.h>

#include "parallel/plugin.h"
#include "recipes/diagnostic.h"
#include "trainer/metrics/device_rates.h"
#include "trainer/metrics/jsonl.h"
#include "trainer/metrics/memory.h"
#include "trainer/metrics/progress.h"
#include "trainer/metrics/report.h"
#include "trainer/metrics/tensorboard.h"
#include "trainer/run.h"
#include "trainer/run_directory.h"

namespace temper::trainer {

namespace {

// mpirun gives its ranks a terminal of their own and passes on what they write: what counts is where its output goes.
bool output_is_a_terminal(const parallel::World& world) {
  if (::isatty(STDOUT_FILENO) != 1) return false;
  if (world.size == 1) return true;
  std::error_code unknown;
  const std::string target =
      std::filesystem::read_symlink("/proc/" + std::to_string(::getppid()) + "/fd/1", unknown).string();
  return target.starts_with("/dev/pts/") || target.starts_with("/dev/tty");
}

// Most of a device's memory that tensors have had so far.
double device_peak_mib(at::Device device) {
  const auto stats = c10::getDeviceAllocator(device.type())->getDeviceStats(device.index());
  return static_cast<double>(stats.allocated_bytes[0].peak) / (1 << 20);
}

// A metric's ratio of each step that had a denominator.
struct Mean {
  std::string name;
  double sum = 0;
  int64_t steps = 0;
};

}  // namespace

struct Recorder::State {
  const Run& run;
  const RunDirectory& directory;
  std::optional<JsonlWriter> jsonl{};          // rank 0
  std::optional<TensorboardWriter> tensorboard{};
  std::optional<Progress> progress{};
  std::optional<double> peak_flops{};          // of all ranks
  double flops_per_token = 0;

  // Since the last line.
  int64_t steps = 0;
  double loss = 0;                           // sum of the steps' losses
  std::vector<Mean> metrics{};                 // in the order in which they came up
  double tokens = 0;
  double seconds = 0;
  double exposed_seconds = 0;
  // Since the beginning.
  double num_tokens = 0;
  int64_t skipped = 0;
  double last_loss = 0;

  void clear() {
    steps = 0;
    loss = tokens = seconds = exposed_seconds = 0;
    metrics.clear();
  }
};

Recorder::Recorder(const Run& run, const RunDirectory& directory)
    : state_(new State{.run = run, .directory = directory}) {
  State& s = *state_;
  s.flops_per_token = training_flops_per_token(run.inputs.config, run.mean_attended_length, run.adapters != nullptr);
  if (run.world.rank != 0) return;
  s.jsonl.emplace(directory.path / "metrics.jsonl", directory.resume_step);
  if (run.recipe.log.tensorboard) s.tensorboard.emplace(directory.path / "tensorboard", directory.resume_step);
  s.progress.emplace(output_is_a_terminal(run.world));
  const std::string device = run.device.is_cpu() ? cpu_name(run.world.threads) : parallel::cuda_plugin().device_name(run.device.index());
  const std::optional<double> peak = peak_flops(device, run.recipe.train.precision);
  if (peak) s.peak_flops = *peak * run.world.size;
}

Recorder::~Recorder() = default;

void Recorder::add(const StepSums& sums, double seconds, double exposed_seconds) {
  State& s = *state_;
  ++s.steps;
  s.last_loss = sums.count > 0 ? sums.loss / sums.count : 0;
  s.loss += s.last_loss;
  for (const MetricSum& metric : sums.metrics) {
    if (metric.denominator == 0) continue;
    auto found = std::find_if(s.metrics.begin(), s.metrics.end(), [&](const Mean& m) { return m.name == metric.name; });
    if (found == s.metrics.end()) found = s.metrics.insert(found, {.name = metric.name});
    found->sum += metric.numerator / metric.denominator;
    ++found->steps;
  }
  s.tokens += sums.input_tokens;
  s.num_tokens += sums.input_tokens;
  s.seconds += seconds;
  s.exposed_seconds += exposed_seconds;
}

void Recorder::add_skipped() { ++state_->skipped; }

void Recorder::write(int64_t step, double grad_norm, double learning_rate, const MetricLine& evaluation,
                     std::optional<double> loss_scale) {
  State& s = *state_;
  MetricLine line = {{"epoch", static_cast<double>(step) / static_cast<double>(s.run.steps_per_epoch)}};
  if (s.steps > 0) {
    line.emplace_back("loss", s.loss / static_cast<double>(s.steps));
    line.emplace_back("grad_norm", grad_norm);
    line.emplace_back("learning_rate", learning_rate);
    line.emplace_back("num_tokens", s.num_tokens);
    for (const Mean& mean : s.metrics) line.emplace_back(mean.name, mean.sum / static_cast<double>(mean.steps));
  }
  if (loss_scale) line.emplace_back("loss_scale", *loss_scale);
  if (s.skipped > 0) line.emplace_back("skipped_steps", static_cast<double>(s.skipped));
  line.insert(line.end(), evaluation.begin(), evaluation.end());
  if (s.steps > 0) {
    line.emplace_back("tokens_per_second", s.tokens / s.seconds);
    if (s.peak_flops) line.emplace_back("mfu", s.tokens / s.seconds * s.flops_per_token / *s.peak_flops);
    line.emplace_back("step_time", s.seconds / static_cast<double>(s.steps));
    if (s.run.world.size > 1) line.emplace_back("exchange_time", s.exposed_seconds / static_cast<double>(s.steps));
  }
  line.emplace_back("memory/peak_mib", peak_memory_mib());
  if (!s.run.device.is_cpu()) line.emplace_back("memory/device_peak_mib", device_peak_mib(s.run.device));
  if (s.jsonl) s.jsonl->write(step, line);
  if (s.tensorboard) s.tensorboard->write(step, line);
  if (s.progress) s.progress->show_line(step, s.run.total_steps, line);
  s.clear();
}

void Recorder::show(int64_t step) {
  State& s = *state_;
  if (!s.progress || s.seconds == 0) return;
  ProgressNow now{.step = step, .total = s.run.total_steps, .loss = s.last_loss};
  now.tokens_per_second = s.tokens / s.seconds;
  now.has_mfu = s.peak_flops.has_value();
  if (now.has_mfu) now.mfu = now.tokens_per_second * s.flops_per_token / *s.peak_flops;
  now.peak_memory_mib = peak_memory_mib();
  now.seconds_left = s.seconds / static_cast<double>(s.steps) * static_cast<double>(s.run.total_steps - step);
  s.progress->show(now);
}

void Recorder::report() const {
  if (state_->run.world.rank != 0) return;
  state_->progress->pause();
  write_report(state_->directory.path);
}

data::Json Recorder::state() const {
  const State& s = *state_;
  data::Json metrics = data::Json::array();
  for (const Mean& mean : s.metrics) metrics.push_back({mean.name, mean.sum, mean.steps});
  return {{"steps", s.steps}, {"loss", s.loss}, {"metrics", metrics}, {"num_tokens", s.num_tokens}, {"skipped", s.skipped}};
}

void Recorder::restore(const data::Json& state) {
  State& s = *state_;
  s.steps = state.at("steps");
  s.loss = state.at("loss");
  for (const data::Json& mean : state.at("metrics")) {
    s.metrics.push_back({.name = mean.at(0), .sum = mean.at(1), .steps = mean.at(2)});
  }
  s.num_tokens = state.at("num_tokens");
  s.skipped = state.at("skipped");
}

}  // namespace temper::trainer
