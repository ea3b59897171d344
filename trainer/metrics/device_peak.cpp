#include "trainer/metrics/device_peak.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "data/io/atomic_file.h"
#include "data/io/json.h"
#include "recipes/diagnostic.h"

namespace temper::trainer {

namespace {

std::filesystem::path peaks_file() {
  const char* home = std::getenv("HOME");
  return home == nullptr ? std::filesystem::path()
                         : std::filesystem::path(home) / ".cache" / "temper" / "peaks.json";
}

/// The file's object. It is only a cache: one that is missing or damaged counts as empty.
data::Json read_peaks() {
  std::ifstream file(peaks_file());
  if (!file) return data::Json::object();
  data::Json peaks = data::Json::parse(file, nullptr, /*allow_exceptions=*/false);
  return peaks.is_object() ? peaks : data::Json::object();
}

std::string key_of(int threads) {
  return cpu_model() + ", " + std::to_string(threads) + " threads";
}

}  // namespace

std::string cpu_model() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown CPU";
}

std::optional<DevicePeak> stored_peak(int threads) {
  const data::Json peaks = read_peaks();
  const auto found = peaks.find(key_of(threads));
  if (found == peaks.end() || !found->is_object()) return std::nullopt;
  const auto number = [&](const char* key) {
    const auto value = found->find(key);
    return value != found->end() && value->is_number() ? value->get<double>() : 0.0;
  };
  return DevicePeak{.fp32_flops = number("fp32_flops"),
                    .bf16_flops = number("bf16_flops"),
                    .copy_bytes_per_second = number("copy_bytes_per_second")};
}

void store_peak(int threads, const DevicePeak& peak) {
  const auto file = peaks_file();
  if (file.empty()) throw RunError("HOME is not set: the measured peaks cannot be stored");
  // Whatever else ran at the time only lowers a measurement, so the best one so far is the peak.
  const DevicePeak before = stored_peak(threads).value_or(DevicePeak{});
  data::Json peaks = read_peaks();
  peaks[key_of(threads)] = {{"fp32_flops", std::max(before.fp32_flops, peak.fp32_flops)},
                            {"bf16_flops", std::max(before.bf16_flops, peak.bf16_flops)},
                            {"copy_bytes_per_second",
                             std::max(before.copy_bytes_per_second, peak.copy_bytes_per_second)}};
  std::error_code error;
  std::filesystem::create_directories(file.parent_path(), error);
  if (error) throw RunError(file.parent_path().string() + ": cannot create: " + error.message());
  data::write_file_atomically(file, data::dump_json(peaks));
}

}  // namespace temper::trainer
