#include "launch/ranks_report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <sched.h>
#include <unistd.h>

#include <ATen/ATen.h>

#include "launch/measure.h"
#include "launch/startup.h"
#include "launch/version.h"
#include "parallel/clock_offset.h"
#include "parallel/communicator.h"
#include "parallel/cores.h"
#include "parallel/mesh.h"
#include "recipes/diagnostic.h"

namespace temper::launch {

namespace {

using data::Json;

constexpr double kTimeoutSeconds = 120;
// What is odd. Clocks: far above what NTP leaves (offset, slew of at most 500 ppm) and what a busy
// host adds to a measurement; links: a 10 Gbit link reaches about 1/25 of a core's copies.
constexpr double kOffsetSeconds = 0.1;
constexpr double kDriftPpm = 1000;
constexpr double kSlowestShareOfCopy = 1.0 / 50;
constexpr double kSlowestShareOfProduct = 0.7;

std::vector<int> bound_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cores;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return cores;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &set)) cores.push_back(core);
  }
  return cores;
}

/// Several hosts with equally many ranks: sharded in a host, replicated between; else one axis.
parallel::MeshShape natural_mesh(const std::vector<Json>& ranks) {
  std::map<std::string, int64_t> on_host;
  for (const Json& rank : ranks) ++on_host[rank.at("host").get<std::string>()];
  const bool equal = std::all_of(on_host.begin(), on_host.end(), [&](const auto& host) {
    return host.second == on_host.begin()->second;
  });
  recipes::Parallel parallel;
  if (equal && on_host.size() > 1) parallel.shard = on_host.begin()->second;
  return parallel::mesh_shape(parallel, std::ssize(ranks));
}

class Oddities {
 public:
  void add(const std::string& what, const std::string& mend) {
    found_.push_back({{"what", what}, {"mend", mend}});
  }
  /// Ranks that differ in `key`: "libtorch: 2.11.0 on ranks 0, 1; 2.10.0 on rank 2".
  void mixed(const std::vector<Json>& ranks, const char* key, const std::string& mend) {
    std::map<std::string, std::vector<std::string>> who;
    for (const Json& rank : ranks)
      who[rank.at(key).get<std::string>()].push_back(rank.at("rank").dump());
    if (who.size() == 1) return;
    std::vector<std::string> parts;
    for (const auto& [value, list] : who)
      parts.push_back(value + (list.size() > 1 ? " on ranks " : " on rank ") + join(list));
    add(std::string(key) + " differs: " + join(parts, "; "), mend);
  }
  const Json& found() const { return found_; }

 private:
  Json found_ = Json::array();
};

std::string name_of(const Json& rank) {
  return parallel::name_of({.rank = rank.at("rank"), .host = rank.at("host")});
}

std::string number(double value, const char* format = "%.2f") {
  char text[32];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

void find_shared_cores(const std::vector<Json>& ranks, Oddities& odd) {
  std::map<std::string, std::map<int, std::vector<std::string>>> hosts;  // -> core -> ranks
  for (const Json& rank : ranks) {
    for (const int core : parallel::parse_core_list(rank.at("cores").get<std::string>(), "cores"))
      hosts[rank.at("host").get<std::string>()][core].push_back(rank.at("rank").dump());
  }
  for (const auto& [host, cores] : hosts) {
    std::vector<int> shared;
    std::set<std::string> by;
    for (const auto& [core, owners] : cores) {
      if (owners.size() == 1) continue;
      shared.push_back(core);
      by.insert(owners.begin(), owners.end());
    }
    if (shared.empty()) continue;
    odd.add(host + ": cores " + parallel::format_core_list(shared) + " are shared by ranks " +
                join({by.begin(), by.end()}),
            "fewer ranks on this host, or TEMPER_CORES=0-3 for each rank");
  }
}

void find_odd_ranks(const std::vector<Json>& ranks, Oddities& odd) {
  const std::string install = "install one build of temper on every host";
  for (const char* key : {"temper", "git_revision", "libtorch"}) odd.mixed(ranks, key, install);
  odd.mixed(ranks, "mpi", "one MPI on every host: apt-get install openmpi-bin libopenmpi-dev");
  find_shared_cores(ranks, odd);
  std::vector<double> rates;
  for (const Json& rank : ranks) rates.push_back(rank.at("gemm_fp32_gflops"));
  std::nth_element(rates.begin(), rates.begin() + std::ssize(rates) / 2, rates.end());
  const double usual = rates[rates.size() / 2];
  for (const Json& rank : ranks) {
    const double rate = rank.at("gemm_fp32_gflops");
    if (rate < kSlowestShareOfProduct * usual) {
      odd.add(name_of(rank) + " is slow: " + number(rate, "%.0f") + " GFLOP/s where others reach " +
                  number(usual, "%.0f"),
              "look for other work (top), a lower clock (cpupower frequency-info) or fewer cores");
    }
    if (std::abs(rank.at("clock_offset_ms").get<double>()) > kOffsetSeconds * 1e3) {
      odd.add(name_of(rank) + ": its clock is " +
                  number(rank.at("clock_offset_ms").get<double>() / 1e3) + " s ahead of rank 0's",
              "systemctl enable --now chrony");
    }
    if (std::abs(rank.at("clock_drift_ppm").get<double>()) > kDriftPpm) {
      odd.add(name_of(rank) + ": its clock runs " +
                  number(rank.at("clock_drift_ppm").get<double>(), "%.0f") +
                  " ppm faster than rank 0's",
              "systemctl enable --now chrony; cat "
              "/sys/devices/system/clocksource/*/current_clocksource");
    }
    if (!rank.at("sees_directory").get<bool>()) {
      odd.add(name_of(rank) + " does not see the working directory as rank 0 does",
              "start in a directory on a shared file system, or set run.output and data.cache to "
              "one");
    }
  }
}

void find_slow_links(const Json& axes, double copy_gb_per_s, Oddities& odd) {
  for (const Json& axis : axes) {
    const double rate = axis.at("all_reduce_gb_per_s");
    if (rate >= copy_gb_per_s * kSlowestShareOfCopy) continue;
    odd.add("axis '" + axis.at("name").get<std::string>() + "': all-reduce of " + number(rate) +
                " GB/s, memory is copied with " + number(copy_gb_per_s, "%.1f"),
            "let MPI take the fast network (OMPI_MCA_btl_tcp_if_include=eth0), and nothing else "
            "use the cores");
  }
}

/// Of all ranks on rank 0, nothing elsewhere.
std::vector<Json> gather(parallel::Session& session, const Json& own) {
  std::vector<Json> all;
  for (const std::string& text : session.gather_text(own.dump())) all.push_back(Json::parse(text));
  return all;
}

/// {"name", "size", rates}; collective over the axis. The slowest group counts.
Json measure_axis(const parallel::Mesh& mesh, parallel::Axis axis, parallel::Communicator& world) {
  const LinkTimes own = measure_link(mesh.group(axis));
  const auto slowest = [&](double seconds) {
    at::Tensor value = at::full({1}, seconds, at::kDouble);
    world.all_reduce(value, parallel::ReduceOp::kMax)->wait();
    return value.item<double>();
  };
  return {{"name", parallel::name_of(axis)},
          {"size", mesh.shape().size_of(axis)},
          {"latency_us", slowest(own.latency_seconds) * 1e6},
          {"all_reduce_gb_per_s", kLinkBytes / slowest(own.all_reduce_seconds) / 1e9},
          {"all_gather_gb_per_s", kLinkBytes / slowest(own.all_gather_seconds) / 1e9}};
}

}  // namespace

Json report_ranks(parallel::Session& session) {
  const parallel::World& world = session.world();
  const auto group = session.communicator(kTimeoutSeconds);
  const BuildInfo& build = build_info();
  const bool writable = session.broadcast_text(::access(".", W_OK) == 0 ? "yes" : "") == "yes";
  const double first_offset = parallel::clock_offset(*group, parallel::system_seconds);
  const double first_time = parallel::steady_seconds();

  const double product = measure_product();
  const double copy = measure_copy();
  Json own = {{"rank", world.rank},
              {"host", world.host},
              {"local_rank", world.local_rank},
              {"cores", parallel::format_core_list(bound_cores())},
              {"threads", world.threads},
              {"temper", build.version},
              {"git_revision", build.git_revision},
              {"libtorch", build.libtorch},
              {"mpi", mpi_library()},
              {"gemm_fp32_gflops", product / 1e9},
              {"copy_gb_per_s", copy / 1e9},
              {"sees_directory", !writable || this_host_sees(session, ".")}};

  const Json placed = Json::parse(session.broadcast_text(Json(gather(session, own)).dump()));
  const parallel::Mesh mesh(natural_mesh(placed.get<std::vector<Json>>()), *group);
  Json axes = Json::array();
  for (size_t i = 0; i < parallel::kAxes; ++i) {
    const auto axis = static_cast<parallel::Axis>(i);
    if (mesh.shape().size_of(axis) > 1) axes.push_back(measure_axis(mesh, axis, *group));
  }

  const double seconds = parallel::steady_seconds() - first_time;
  const double offset = parallel::clock_offset(*group, parallel::system_seconds);
  own["clock_offset_ms"] = offset * 1e3;
  own["clock_drift_ppm"] = (offset - first_offset) / seconds * 1e6;
  const std::vector<Json> ranks = gather(session, own);
  if (world.rank != 0) return nullptr;
  Oddities odd;
  find_odd_ranks(ranks, odd);
  if (!writable) odd.add("rank 0 cannot write the working directory", "cd DIRECTORY");
  find_slow_links(axes, own.at("copy_gb_per_s"), odd);
  return {{"ranks", ranks}, {"axes", axes}, {"odd", odd.found()}};
}

void print_ranks(const Json& report) {
  const auto text = [](const Json& value) { return value.get<std::string>(); };
  const char* label = "ranks";
  for (const Json& rank : report.at("ranks")) {
    std::printf(
        "%-10s %s: local rank %s, cores %s, %s threads, GEMM %.0f GFLOP/s, clock %+.1f ms\n", label,
        name_of(rank).c_str(), rank.at("local_rank").dump().c_str(), text(rank.at("cores")).c_str(),
        rank.at("threads").dump().c_str(), rank.at("gemm_fp32_gflops").get<double>(),
        rank.at("clock_offset_ms").get<double>());
    label = "";
  }
  for (const Json& axis : report.at("axes")) {
    std::printf(
        "%-10s %s of %s ranks: 25 MiB all-reduce %.2f GB/s, all-gather %.2f GB/s, "
        "latency %.0f us\n",
        "axis", text(axis.at("name")).c_str(), axis.at("size").dump().c_str(),
        axis.at("all_reduce_gb_per_s").get<double>(), axis.at("all_gather_gb_per_s").get<double>(),
        axis.at("latency_us").get<double>());
  }
  if (report.at("odd").empty()) std::printf("%-10s nothing\n", "odd");
  for (const Json& item : report.at("odd")) {
    std::printf("%-10s %s\n%-10s   mend: %s\n", "odd", text(item.at("what")).c_str(), "",
                text(item.at("mend")).c_str());
  }
}

}  // namespace temper::launch
