#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "recipes/recipe.h"

/// What a device reaches, as `temper doctor` measured it there: what `temper plan` predicts time
/// from, and the denominator of `mfu` where no data sheet has one. Kept in
/// ~/.cache/temper/peaks.json, by the name of the device (of a CPU its model and number of
/// threads).
namespace temper::trainer {

/// Sides of the weights whose products are measured.
constexpr std::array<int64_t, 3> kWidths = {512, 2048, 8192};
/// 0: not measured.
using ByWidth = std::array<double, kWidths.size()>;

struct TypeRates {
  double peak = 0;             // FLOP/s of the best large square product
  ByWidth products{};          // FLOP/s of many rows times a square weight
  ByWidth weight_gradients{};  // and of that weight's gradient, which is summed in float32
  double attention =
      0;  // FLOP/s, forward and backward together, which are 12 E a head and pair of tokens
  double logits = 0;  // a second, from a product with the head to their gradient, for little else

  /// Whether there is enough to predict a step.
  bool complete() const;
};

/// 0: not measured.
struct DeviceRates {
  TypeRates fp32{}, bf16{}, fp16{};
  double copy_bytes_per_second = 0;  // read + written

  const TypeRates& of(recipes::Dtype dtype) const;
  TypeRates& of(recipes::Dtype dtype);
};

/// Bytes that move for a logit, of values of `element` bytes: it is written in float32, read for
/// the softmax and again for its gradient, which is written, and read by two products.
constexpr double logit_bytes(double element) { return 3 * 4 + 3 * element; }
/// Without a gradient.
constexpr double kLogitForwardBytes = 2 * 4;

/// FLOP/s of a product with a weight of so many elements: between two widths that were measured
/// it changes as their logarithms do; beyond them it is that of the nearest.
double rate_of(const ByWidth& rates, double elements);

/// "AMD EPYC 9R14"; "unknown CPU" where /proc/cpuinfo does not say.
std::string cpu_model();
/// What rates of this CPU are kept under: "AMD EPYC 9R14, 2 threads".
std::string cpu_name(int threads);

/// What doctor has measured; unset where it has not been. A damaged file counts as empty, and what
/// an older one lacks as not measured.
std::optional<DeviceRates> stored_rates(const std::string& device);
/// All that it has rates of.
std::vector<std::string> measured_devices();
/// Adds to the file, creating it; of several measurements the best is kept, since whatever else ran
/// only lowers one. Throws RunError when it cannot be written.
void store_rates(const std::string& device, const DeviceRates& rates);

/// What ranks of one kind of device reach together.
struct LinkRates {
  int64_t ranks = 0, hosts = 0;
  double all_reduce_bytes_per_second = 0;  // bytes of the tensor, of each rank
  double all_gather_bytes_per_second = 0;  // of the gathered one
  double latency_seconds = 0;              // of an all-reduce of one number
};

/// Of those that were measured with `device` the one with the nearest number of ranks; of several
/// the one over the most hosts.
std::optional<LinkRates> stored_link(const std::string& device, int64_t ranks);
/// As store_rates().
void store_link(const std::string& device, const LinkRates& link);

/// The dense peak of products, for `mfu`: of the data sheet (known_devices.h), else what was
/// measured.
std::optional<double> peak_flops(const std::string& device, recipes::Dtype dtype);

}  // namespace temper::trainer
