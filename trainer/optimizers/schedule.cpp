#include "trainer/optimizers/schedule.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <string>
#include <vector>

#include "recipes/diagnostic.h"

namespace temper::trainer {

namespace {

using recipes::Schedule;

/// t updates done, of T, after a warm-up of W.
struct Now {
  double t, W, T, lr;
  double progress() const { return (t - W) / std::max(1.0, T - W); }
};

double ramp(const Now& n) { return n.t / std::max(1.0, n.W); }

// Half a wave from 1 to 0 with cycles = 1/2.
double wave(double cycles, double progress) {
  return 0.5 * (1 + std::cos(std::numbers::pi * cycles * 2 * progress));
}

double between(double low, double factor) { return factor * (1 - low) + low; }

[[noreturn]] void missing(const Schedule& s, const std::string& keys) {
  throw UserError("schedule.kind = \"" + s.kind + "\": needs " + keys);
}

double lowest(const Schedule& s, double lr) {
  if (s.min_lr && s.min_lr_rate) {
    throw UserError("schedule.min_lr and schedule.min_lr_rate: only one of them may be set");
  }
  if (!s.min_lr && !s.min_lr_rate) {
    missing(s, "schedule.min_lr (a rate) or schedule.min_lr_rate (a share of optimizer.lr)");
  }
  return s.min_lr ? *s.min_lr / lr : *s.min_lr_rate;
}

double linear(const Schedule&, const Now& n) {
  if (n.t < n.W) return ramp(n);
  return std::max(0.0, (n.T - n.t) / std::max(1.0, n.T - n.W));
}

double cosine(const Schedule& s, const Now& n) {
  if (n.t < n.W) return ramp(n);
  return std::max(0.0, wave(s.num_cycles.value_or(0.5), n.progress()));
}

double cosine_with_restarts(const Schedule& s, const Now& n) {
  if (n.t < n.W) return ramp(n);
  const double p = n.progress();
  if (p >= 1) return 0;
  const double within = std::fmod(s.num_cycles.value_or(1) * p, 1.0);
  return std::max(0.0, 0.5 * (1 + std::cos(std::numbers::pi * within)));
}

double polynomial(const Schedule& s, const Now& n) {
  const double end = s.lr_end.value_or(1e-7);
  if (end >= n.lr) {
    throw UserError("schedule.lr_end = " + std::to_string(end) + ": must be below optimizer.lr");
  }
  if (n.t < n.W) return ramp(n);
  if (n.t >= n.T) return end / n.lr;
  const double remaining = 1 - (n.t - n.W) / (n.T - n.W);
  return ((n.lr - end) * std::pow(remaining, s.power.value_or(1)) + end) / n.lr;
}

double constant(const Schedule&, const Now&) { return 1; }

double constant_with_warmup(const Schedule&, const Now& n) { return n.t < n.W ? ramp(n) : 1; }

double inverse_sqrt(const Schedule& s, const Now& n) {
  if (n.t < n.W) return ramp(n);
  const double scale = s.timescale ? static_cast<double>(*s.timescale) : n.W > 0 ? n.W : 10000;
  return 1 / std::sqrt((n.t + (scale - n.W)) / scale);
}

double cosine_with_min_lr(const Schedule& s, const Now& n) {
  const double low = lowest(s, n.lr);
  if (n.t < n.W) return ramp(n);
  return std::max(0.0, between(low, wave(s.num_cycles.value_or(0.5), n.progress())));
}

double cosine_warmup_with_min_lr(const Schedule& s, const Now& n) {
  const double low = lowest(s, n.lr);
  if (n.t < n.W) {
    if (!s.warmup_lr_rate) return (n.t + 1) / std::max(1.0, n.W);
    return *s.warmup_lr_rate + (1 - *s.warmup_lr_rate) * n.t / std::max(1.0, n.W - 1);
  }
  const double p = (n.t - n.W + 1) / std::max(1.0, n.T - n.W);
  return std::max(0.0, between(low, wave(s.num_cycles.value_or(0.5), p)));
}

double warmup_stable_decay(const Schedule& s, const Now& n) {
  if (!s.num_decay_steps) missing(s, "schedule.num_decay_steps");
  const double low = s.min_lr_ratio.value_or(0);
  const double decay = static_cast<double>(*s.num_decay_steps);
  const double stable = n.T - n.W - decay;
  const auto shape = [](const std::string& key, const std::string& kind) {
    if (kind != "linear" && kind != "cosine" && kind != "1-sqrt") {
      throw UserError("schedule." + key + " = \"" + kind + "\": must be linear, cosine or 1-sqrt");
    }
    return kind;
  };
  const std::string up = shape("warmup_type", s.warmup_type.value_or("linear"));
  const std::string down = shape("decay_type", s.decay_type.value_or("cosine"));
  if (n.t < n.W) {
    const double p = ramp(n);
    const double factor = up == "linear"   ? p
                          : up == "cosine" ? 0.5 * (1 - std::cos(std::numbers::pi * p))
                                           : 1 - std::sqrt(1 - p);
    return std::max(0.0, between(low, factor));
  }
  if (n.t < n.W + stable) return 1;
  if (n.t < n.W + stable + decay) {
    const double p = (n.t - n.W - stable) / std::max(1.0, decay);
    const double factor = down == "linear"   ? 1 - p
                          : down == "cosine" ? wave(s.num_cycles.value_or(0.5), p)
                                             : 1 - std::sqrt(p);
    return std::max(0.0, between(low, factor));
  }
  return low;
}

struct Row {
  const char* kind;  // schedule.kind
  double (*factor)(const Schedule&, const Now&);
};

constexpr std::array<Row, 10> kSchedules = {{
    {"linear", linear},
    {"cosine", cosine},
    {"cosine_with_restarts", cosine_with_restarts},
    {"polynomial", polynomial},
    {"constant", constant},
    {"constant_with_warmup", constant_with_warmup},
    {"inverse_sqrt", inverse_sqrt},
    {"cosine_with_min_lr", cosine_with_min_lr},
    {"cosine_warmup_with_min_lr", cosine_warmup_with_min_lr},
    {"warmup_stable_decay", warmup_stable_decay},
}};

}  // namespace

double schedule_factor(const Schedule& schedule, double lr, int64_t step, int64_t total) {
  const Now now = {.t = static_cast<double>(step - 1),
                   .W = static_cast<double>(warmup_steps(schedule, total)),
                   .T = static_cast<double>(total),
                   .lr = lr};
  std::vector<std::string> kinds;
  for (const Row& row : kSchedules) {
    if (schedule.kind == row.kind) return row.factor(schedule, now);
    kinds.emplace_back(row.kind);
  }
  const std::string nearest = nearest_name(schedule.kind, kinds);
  throw UserError("schedule.kind = \"" + schedule.kind + "\": not known" +
                  (nearest.empty() ? "" : ", did you mean \"" + nearest + "\"?") +
                  " (known: " + join(kinds) + ")");
}

int64_t warmup_steps(const Schedule& schedule, int64_t total) {
  if (schedule.warmup >= 1) return static_cast<int64_t>(schedule.warmup);
  return static_cast<int64_t>(std::ceil(static_cast<double>(total) * schedule.warmup));
}

}  // namespace temper::trainer
