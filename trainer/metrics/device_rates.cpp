#include "trainer/metrics/device_rates.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <tuple>
#include <utility>

#include "data/io/atomic_file.h"
#include "data/io/json.h"
#include "recipes/diagnostic.h"
#include "trainer/metrics/known_devices.h"

namespace temper::trainer {

namespace {

std::filesystem::path rates_file() {
  const char* home = std::getenv("HOME");
  return home == nullptr ? std::filesystem::path()
                         : std::filesystem::path(home) / ".cache" / "temper" / "peaks.json";
}

/// The file's object. It is only a cache: one that is missing or damaged counts as empty.
data::Json read_file() {
  std::ifstream file(rates_file());
  if (!file) return data::Json::object();
  data::Json all = data::Json::parse(file, nullptr, /*allow_exceptions=*/false);
  return all.is_object() ? all : data::Json::object();
}

void write_file(const data::Json& all) {
  const auto file = rates_file();
  if (file.empty()) throw RunError("HOME is not set: the measured rates cannot be stored");
  std::error_code error;
  std::filesystem::create_directories(file.parent_path(), error);
  if (error) throw RunError(file.parent_path().string() + ": cannot create: " + error.message());
  data::write_file_atomically(file, data::dump_json(all));
}

data::Json object_at(const data::Json& all, const std::string& key) {
  const auto found = all.find(key);
  return found != all.end() && found->is_object() ? *found : data::Json::object();
}

double number_at(const data::Json& object, const std::string& key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number() ? found->get<double>() : 0;
}

/// visit(name in the file, rate) for all of them.
template <class Rates, class Visit>
void for_each_rate(Rates& rates, const Visit& visit) {
  const auto type = [&](const std::string& name, auto& of) {
    visit(name + "_flops", of.peak);
    for (size_t i = 0; i < kWidths.size(); ++i) {
      visit(name + "_product_flops_" + std::to_string(kWidths[i]), of.products[i]);
      visit(name + "_weight_gradient_flops_" + std::to_string(kWidths[i]), of.weight_gradients[i]);
    }
    visit(name + "_attention_flops", of.attention);
    visit(name + "_logits_per_second", of.logits);
  };
  type("fp32", rates.fp32);
  type("bf16", rates.bf16);
  type("fp16", rates.fp16);
  visit("copy_bytes_per_second", rates.copy_bytes_per_second);
}

constexpr const char* kLinks = "links of ";
std::string links_of(const std::string& device) { return kLinks + device; }

}  // namespace

bool TypeRates::complete() const {
  return products[0] > 0 && weight_gradients[0] > 0 && attention > 0 && logits > 0;
}

const TypeRates& DeviceRates::of(recipes::Dtype dtype) const {
  return dtype == recipes::Dtype::kFp32 ? fp32 : dtype == recipes::Dtype::kBf16 ? bf16 : fp16;
}

TypeRates& DeviceRates::of(recipes::Dtype dtype) {
  return const_cast<TypeRates&>(std::as_const(*this).of(dtype));
}

double rate_of(const ByWidth& rates, double elements) {
  const double side = std::sqrt(elements);
  size_t i = 0;
  while (i + 2 < rates.size() && rates[i + 2] > 0 && side > static_cast<double>(kWidths[i + 1]))
    ++i;
  if (rates[i + 1] <= 0) return rates[i];
  const double from = std::log(kWidths[i]), to = std::log(kWidths[i + 1]);
  const double share = std::clamp((std::log(side) - from) / (to - from), 0.0, 1.0);
  return std::exp((1 - share) * std::log(rates[i]) + share * std::log(rates[i + 1]));
}

std::string cpu_model() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown CPU";
}

std::string cpu_name(int threads) {
  return cpu_model() + ", " + std::to_string(threads) + " threads";
}

std::optional<DeviceRates> stored_rates(const std::string& device) {
  const data::Json stored = object_at(read_file(), device);
  if (stored.empty()) return std::nullopt;
  DeviceRates rates;
  for_each_rate(rates,
                [&](const std::string& name, double& rate) { rate = number_at(stored, name); });
  return rates;
}

std::vector<std::string> measured_devices() {
  std::vector<std::string> names;
  const data::Json all = read_file();
  for (const auto& [name, rates] : all.items()) {
    if (!name.starts_with(kLinks)) names.push_back(name);
  }
  return names;
}

void store_rates(const std::string& device, const DeviceRates& rates) {
  data::Json all = read_file();
  data::Json best = object_at(all, device);
  for_each_rate(rates, [&](const std::string& name, double rate) {
    if (rate > 0) best[name] = std::max(rate, number_at(best, name));
  });
  all[device] = best;
  write_file(all);
}

std::optional<LinkRates> stored_link(const std::string& device, int64_t ranks) {
  std::optional<LinkRates> nearest;
  const auto distance = [&](const LinkRates& link) {
    return std::tuple(std::abs(link.ranks - ranks), -link.hosts);
  };
  const data::Json links = object_at(read_file(), links_of(device));
  for (const auto& [name, stored] : links.items()) {
    if (!stored.is_object()) continue;
    const LinkRates link{
        .ranks = static_cast<int64_t>(number_at(stored, "ranks")),
        .hosts = static_cast<int64_t>(number_at(stored, "hosts")),
        .all_reduce_bytes_per_second = number_at(stored, "all_reduce_bytes_per_second"),
        .all_gather_bytes_per_second = number_at(stored, "all_gather_bytes_per_second"),
        .latency_seconds = number_at(stored, "latency_seconds")};
    if (link.ranks < 2 || link.all_reduce_bytes_per_second <= 0 ||
        link.all_gather_bytes_per_second <= 0)
      continue;
    if (!nearest || distance(link) < distance(*nearest)) nearest = link;
  }
  return nearest;
}

void store_link(const std::string& device, const LinkRates& link) {
  data::Json all = read_file();
  data::Json links = object_at(all, links_of(device));
  const std::string name =
      std::to_string(link.ranks) + " ranks on " + std::to_string(link.hosts) + " hosts";
  const data::Json before = object_at(links, name);
  const double latency = number_at(before, "latency_seconds");
  links[name] = {
      {"ranks", link.ranks},
      {"hosts", link.hosts},
      {"all_reduce_bytes_per_second", std::max(link.all_reduce_bytes_per_second,
                                               number_at(before, "all_reduce_bytes_per_second"))},
      {"all_gather_bytes_per_second", std::max(link.all_gather_bytes_per_second,
                                               number_at(before, "all_gather_bytes_per_second"))},
      {"latency_seconds",
       latency > 0 ? std::min(latency, link.latency_seconds) : link.latency_seconds}};
  all[links_of(device)] = links;
  write_file(all);
}

std::optional<double> peak_flops(const std::string& device, recipes::Dtype dtype) {
  const KnownDevice* known = known_device_of(device);
  const std::optional<DeviceRates> rates = known ? rates_at_best(*known) : stored_rates(device);
  const double peak = rates ? rates->of(dtype).peak : 0;
  return peak > 0 ? std::optional(peak) : std::nullopt;
}

}  // namespace temper::trainer
