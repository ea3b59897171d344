#include "trainer/metrics/device_peak.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <utility>

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

constexpr const char* kFp32 = "fp32_flops";
constexpr const char* kBf16 = "bf16_flops";
constexpr const char* kCopy = "copy_bytes_per_second";

/// 0 where there is none.
double stored(const data::Json& peaks, int threads, const char* rate) {
  const auto machine = peaks.find(key_of(threads));
  if (machine == peaks.end() || !machine->is_object()) return 0;
  const auto value = machine->find(rate);
  return value != machine->end() && value->is_number() ? value->get<double>() : 0;
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

std::optional<double> stored_peak_flops(int threads, bool bf16) {
  const double flops = stored(read_peaks(), threads, bf16 ? kBf16 : kFp32);
  return flops > 0 ? std::optional(flops) : std::nullopt;
}

void store_peak(int threads, const DevicePeak& peak) {
  const auto file = peaks_file();
  if (file.empty()) throw RunError("HOME is not set: the measured peaks cannot be stored");
  // Whatever else ran at the time only lowers a measurement, so the best one so far is the peak.
  data::Json peaks = read_peaks();
  data::Json best;
  for (const auto& [rate, value] : {std::pair{kFp32, peak.fp32_flops},
                                    {kBf16, peak.bf16_flops},
                                    {kCopy, peak.copy_bytes_per_second}}) {
    best[rate] = std::max(value, stored(peaks, threads, rate));
  }
  peaks[key_of(threads)] = best;
  std::error_code error;
  std::filesystem::create_directories(file.parent_path(), error);
  if (error) throw RunError(file.parent_path().string() + ": cannot create: " + error.message());
  data::write_file_atomically(file, data::dump_json(peaks));
}

}  // namespace temper::trainer
