#include "parallel/cores.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <sched.h>
#include <unistd.h>

#include "recipes/diagnostic.h"

namespace temper::parallel {

namespace {

std::vector<int> cores_of_mask(const cpu_set_t& mask) {
  std::vector<int> cores;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &mask)) cores.push_back(core);
  }
  return cores;
}

std::vector<int> inherited_cores() {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  if (sched_getaffinity(0, sizeof(mask), &mask) != 0) return {0};
  return cores_of_mask(mask);
}

/// The value of `key` in /proc/<pid>/status, or "".
std::string status_of(long pid, const std::string& key) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(key + ":", 0) == 0) {
      const size_t begin = line.find_first_not_of(" \t", key.size() + 1);
      return begin == std::string::npos ? "" : line.substr(begin);
    }
  }
  return "";
}

/// What the launcher among our ancestors was allowed before it bound us; empty where none is
/// visible.
std::vector<int> cores_of_launcher() {
  static const std::vector<std::string> kLaunchers = {
      "mpirun", "mpiexec", "orterun", "orted", "prte", "prted", "prterun", "hydra_pmi_proxy"};
  for (long pid = getppid(); pid > 1;) {
    const std::string name = status_of(pid, "Name");
    if (std::find(kLaunchers.begin(), kLaunchers.end(), name) != kLaunchers.end()) {
      return parse_core_list(status_of(pid, "Cpus_allowed_list"), "/proc");
    }
    pid = std::atol(status_of(pid, "PPid").c_str());
  }
  return {};
}

/// The kernel cuts a mask of all cores to what the cgroup allows.
std::vector<int> cores_of_cgroup() {
  const std::vector<int> before = inherited_cores();
  cpu_set_t all;
  CPU_ZERO(&all);
  for (int core = 0; core < CPU_SETSIZE; ++core) CPU_SET(core, &all);
  if (sched_setaffinity(0, sizeof(all), &all) != 0) return before;
  const std::vector<int> allowed = inherited_cores();
  bind_to_cores(before);
  return allowed;
}

/// A core's first hardware thread: threads of one core sort together, so that two ranks do not
/// share a core's halves.
int first_sibling(int core) {
  std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(core) +
                     "/topology/thread_siblings_list");
  int first = core;
  file >> first;
  return file ? first : core;
}

}  // namespace

std::vector<int> parse_core_list(std::string_view text, const std::string& where) {
  const auto fail = [&] {
    throw UserError(where + " = '" + std::string(text) + "': must be a list of cores like 0-1,3");
  };
  std::vector<int> cores;
  const char* at = text.data();
  const char* const end = at + text.size();
  const auto number = [&] {
    int value = 0;
    const auto [next, error] = std::from_chars(at, end, value);
    if (error != std::errc() || value < 0 || value >= CPU_SETSIZE) fail();
    at = next;
    return value;
  };
  while (true) {
    const int first = number();
    int last = first;
    if (at != end && *at == '-') {
      ++at;
      last = number();
    }
    if (last < first) fail();
    for (int core = first; core <= last; ++core) cores.push_back(core);
    if (at == end) break;
    if (*at++ != ',') fail();
  }
  std::sort(cores.begin(), cores.end());
  cores.erase(std::unique(cores.begin(), cores.end()), cores.end());
  return cores;
}

std::string format_core_list(const std::vector<int>& cores) {
  std::vector<std::string> runs;
  for (size_t i = 0; i < cores.size();) {
    size_t last = i;
    while (last + 1 < cores.size() && cores[last + 1] == cores[last] + 1) ++last;
    const std::string first = std::to_string(cores[i]);
    runs.push_back(last == i ? first : first + "-" + std::to_string(cores[last]));
    i = last + 1;
  }
  return join(runs, ",");
}

std::vector<int> allowed_cores(bool under_mpirun) {
  if (const char* text = std::getenv("TEMPER_CORES"); text != nullptr && *text != '\0') {
    return parse_core_list(text, "TEMPER_CORES");
  }
  if (!under_mpirun) return inherited_cores();
  const std::vector<int> launcher = cores_of_launcher();
  return launcher.empty() ? cores_of_cgroup() : launcher;
}

int cpu_quota() {
  // cgroup v2 says "<quota or max> <period>" in our group and each above it; the smallest holds.
  std::ifstream membership("/proc/self/cgroup");
  std::string group;
  for (std::string line; std::getline(membership, line);) {
    if (line.rfind("0::", 0) == 0) group = line.substr(3);
  }
  if (group.empty()) return 0;
  double smallest = 0;
  for (std::filesystem::path path = group;; path = path.parent_path()) {
    std::ifstream file("/sys/fs/cgroup" + path.string() + "/cpu.max");
    double quota = 0;
    double period = 0;
    if (file >> quota >> period && period > 0) {
      const double cores = quota / period;
      smallest = smallest == 0 ? cores : std::min(smallest, cores);
    }
    if (path == path.parent_path()) break;
  }
  return static_cast<int>(std::ceil(smallest));
}

std::vector<int> cores_of_rank(const std::vector<std::vector<int>>& allowed, int local_rank) {
  const std::vector<int>& own = allowed[local_rank];
  const bool equal = std::all_of(allowed.begin(), allowed.end(),
                                 [&](const std::vector<int>& other) { return other == own; });
  if (!equal) return own;
  std::vector<int> cores = own;
  std::stable_sort(cores.begin(), cores.end(),
                   [](int a, int b) { return first_sibling(a) < first_sibling(b); });
  const size_t ranks = allowed.size();
  const size_t rank = static_cast<size_t>(local_rank);
  if (cores.size() < ranks) return {cores[rank % cores.size()]};
  const auto begin = cores.begin() + static_cast<std::ptrdiff_t>(rank * cores.size() / ranks);
  const auto end = cores.begin() + static_cast<std::ptrdiff_t>((rank + 1) * cores.size() / ranks);
  std::vector<int> share(begin, end);
  std::sort(share.begin(), share.end());
  return share;
}

bool bind_to_cores(const std::vector<int>& cores) {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  for (const int core : cores) CPU_SET(core, &mask);
  return sched_setaffinity(0, sizeof(mask), &mask) == 0;
}

}  // namespace temper::parallel
