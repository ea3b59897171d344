#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <sys/statvfs.h>
#include <unistd.h>

#include "data/io/json.h"
#include "launch/arguments.h"
#include "launch/command.h"
#include "launch/compute_device.h"
#include "launch/measure.h"
#include "launch/ranks_report.h"
#include "launch/startup.h"
#include "launch/version.h"
#include "parallel/device.h"
#include "parallel/plugin.h"
#include "parallel/world.h"
#include "recipes/diagnostic.h"
#include "trainer/metrics/device_rates.h"
#include "trainer/ops/device.h"

namespace temper::launch {

namespace fs = std::filesystem;

namespace {

using data::Json;

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;

double free_gib(const char* path) {
  struct statvfs info {};
  if (statvfs(path, &info) != 0) return 0;
  return static_cast<double>(info.f_bavail) * static_cast<double>(info.f_frsize) / kGiB;
}

double meminfo_gib(const std::string& name) {
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(name + ":"))
      return std::strtod(line.c_str() + name.size() + 1, nullptr) / (1024.0 * 1024.0);
  }
  return 0;
}

bool in_path(const std::string& program) {
  std::istringstream path(std::getenv("PATH") == nullptr ? "" : std::getenv("PATH"));
  for (std::string directory; std::getline(path, directory, ':');) {
    if (::access((fs::path(directory) / program).c_str(), X_OK) == 0) return true;
  }
  return false;
}

/// Built in, and its module lies where the program looks for it.
bool reads_parquet() {
  return build_info().parquet &&
         fs::exists(program_directory().parent_path() / "lib" / "libtemper_parquet.so");
}

/// An NVIDIA device on the PCI bus, whether or not a driver speaks to it.
bool nvidia_device_present() {
  std::error_code ignored;
  for (const auto& device : fs::directory_iterator("/sys/bus/pci/devices", ignored)) {
    std::ifstream file(device.path() / "vendor");
    std::string vendor;
    if (file >> vendor && vendor == "0x10de") return true;
  }
  return false;
}

/// Files of OpenMP runtimes that this process has mapped; two of them would fight over the cores.
std::set<std::string> openmp_runtimes() {
  std::set<std::string> found;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    const size_t slash = line.find('/');
    if (slash == std::string::npos) continue;
    const std::string file = line.substr(slash);
    const std::string name = fs::path(file).filename().string();
    if (name.starts_with("libgomp") || name.starts_with("libiomp") || name.starts_with("libomp."))
      found.insert(file);
  }
  return found;
}

/// What loading the plugin shows.
struct CudaTried {
  int devices = 0;
  std::string failure;  // one line; empty: devices may be used, or there was nothing to try
};

/// Only where a driver makes it matter: the libraries of CUDA take most of a second to load.
CudaTried try_cuda(const CudaSeen& cuda) {
  CudaTried tried;
  const bool named = std::getenv("TEMPER_PLUGIN") != nullptr;
  if (cuda.plugin.empty() || (cuda.driver.empty() && !named)) return tried;
  try {
    std::string reason;
    tried.devices = parallel::load_cuda_plugin().device_count(reason);
    if (tried.devices == 0) tried.failure = "no device: " + reason;
  } catch (const UserError& error) {
    tried.failure = error.what();
  }
  return tried;
}

Json to_json(const trainer::TypeRates& rates) {
  Json products = Json::object(), gradients = Json::object();
  for (size_t i = 0; i < trainer::kWidths.size() && rates.products[i] > 0; ++i) {
    products[std::to_string(trainer::kWidths[i])] = rates.products[i] / 1e9;
    gradients[std::to_string(trainer::kWidths[i])] = rates.weight_gradients[i] / 1e9;
  }
  return {{"product_gflops", products},
          {"weight_gradient_gflops", gradients},
          {"attention_gflops", rates.attention / 1e9},
          {"mega_logits_per_s", rates.logits / 1e6}};
}

Json to_json(const trainer::DeviceRates& rates) {
  Json training = {{"fp32", to_json(rates.fp32)}, {"bf16", to_json(rates.bf16)}};
  if (rates.fp16.complete()) training["fp16"] = to_json(rates.fp16);
  return {{"gemm_fp32_gflops", rates.fp32.peak / 1e9},
          {"gemm_bf16_gflops", rates.bf16.peak / 1e9},
          {"gemm_fp16_gflops", rates.fp16.peak / 1e9},
          {"copy_gb_per_s", rates.copy_bytes_per_second / 1e9},
          {"training", training}};
}

/// {"name", "rates"} of the first device, which it measures and stores; null where there is none.
Json examine_device(CudaTried& tried) {
  if (tried.devices == 0) return nullptr;
  try {
    const at::Device device = trainer::use_cuda(0);
    const std::string name = parallel::cuda_plugin().device_name(0);
    const trainer::DeviceRates rates = measure_device(device);
    trainer::store_rates(name, rates);
    return {{"name", name}, {"rates", to_json(rates)}};
  } catch (const std::exception& error) {
    tried.failure = without_frames(error.what());
    return nullptr;
  }
}

/// Between processes; the slowest axis counts.
void store_host_link(const Json& axes, int64_t hosts) {
  const auto slowest = std::min_element(axes.begin(), axes.end(), [](const Json& a, const Json& b) {
    return a.at("all_reduce_gb_per_s") < b.at("all_reduce_gb_per_s");
  });
  if (slowest == axes.end()) return;
  const auto number = [&](const char* key) { return slowest->at(key).get<double>(); };
  trainer::store_link(trainer::cpu_model(),
                      {.ranks = slowest->at("size"),
                       .hosts = hosts,
                       .all_reduce_bytes_per_second = number("all_reduce_gb_per_s") * 1e9,
                       .all_gather_bytes_per_second = number("all_gather_gb_per_s") * 1e9,
                       .latency_seconds = number("latency_us") / 1e6});
}

/// {"ranks", rates} between devices, which it stores.
Json device_link_report(const LinkTimes& times, const std::string& device, int64_t ranks,
                        int64_t hosts) {
  const double all_reduce = kLinkBytes / times.all_reduce_seconds;
  const double all_gather = kLinkBytes / times.all_gather_seconds;
  trainer::store_link(device, {.ranks = ranks,
                               .hosts = hosts,
                               .all_reduce_bytes_per_second = all_reduce,
                               .all_gather_bytes_per_second = all_gather,
                               .latency_seconds = times.latency_seconds});
  return {{"ranks", ranks},
          {"latency_us", times.latency_seconds * 1e6},
          {"all_reduce_gb_per_s", all_reduce / 1e9},
          {"all_gather_gb_per_s", all_gather / 1e9}};
}

/// What is missing or will hurt, each with the command that mends it.
Json find_missing(const CudaSeen& cuda, const CudaTried& tried) {
  Json missing = Json::array();
  const auto add = [&](const std::string& what, const std::string& mend) {
    missing.push_back({{"what", what}, {"mend", mend}});
  };
  if (!in_path("mpirun"))
    add("mpirun: needed for more than one rank", "apt-get install openmpi-bin");
  if (::geteuid() == 0 && std::getenv("OMPI_ALLOW_RUN_AS_ROOT") == nullptr) {
    add("mpirun refuses to run as root",
        "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1");
  }
  if (const double shared = free_gib("/dev/shm"); shared < 0.06) {
    add("/dev/shm has little room, which ranks on one host talk through",
        "docker run --shm-size=1g (or mount -o "
        "remount,size=1g /dev/shm)");
  }
  if (!reads_parquet()) {
    add("Parquet files cannot be read",
        "launch/setup.sh && cmake -S . -B build -G Ninja && ninja -C build");
  }
  if (cuda.driver.empty() && nvidia_device_present()) {
    add("an NVIDIA device without a driver", "apt-get install nvidia-driver");
  }
  if (!cuda.driver.empty() && cuda.plugin.empty()) {
    add("a CUDA driver, but lib/libtemper_cuda.so is not built (it needs nvcc)",
        "PATH=/usr/local/cuda/bin:$PATH cmake -S . -B build -G Ninja -DTEMPER_CUDA=ON && ninja -C "
        "build");
  }
  if (!tried.failure.empty()) {
    add("the CUDA plugin cannot be used: " + tried.failure,
        "nvidia-smi; unset CUDA_VISIBLE_DEVICES; launch/setup.sh");
  }
  if (const auto runtimes = openmp_runtimes(); runtimes.size() > 1) {
    add("two OpenMP runtimes are loaded: " + join({runtimes.begin(), runtimes.end()}),
        "unset LD_PRELOAD LD_LIBRARY_PATH");
  }
  return missing;
}

/// "node1: ranks 0-3", in rank order.
Json layout(const std::vector<std::string>& hosts) {
  Json ranks_of = Json::object();
  for (size_t rank = 0; rank < hosts.size(); ++rank) ranks_of[hosts[rank]].push_back(rank);
  return ranks_of;
}

/// Between the ranks' devices, where each has one of its own. Collective.
std::optional<LinkTimes> measure_device_link(parallel::Session& session) {
  if (session.world().size == 1) return std::nullopt;
  parallel::DeviceChoice choice;
  try {
    choice = parallel::choose_device(recipes::Device::kAuto, session);
  } catch (const UserError&) {  // several ranks share one
  }
  if (!choice.index) return std::nullopt;
  constexpr double kTimeoutSeconds = 120;
  const at::Device device = trainer::use_cuda(*choice.index);
  const auto group = open_communicator(session, kTimeoutSeconds, device);
  const LinkTimes times = measure_link(*group, device);
  group->barrier();  // through the host: a group that ends takes along what it has not sent yet
  return times;
}

/// The whole report; on ranks above 0 null. Collective.
Json examine(parallel::Session& session) {
  session.use_threads(0);
  const parallel::World& world = session.world();
  const auto hosts = session.gather_text(world.host);
  Json ranks;
  if (world.size > 1) ranks = report_ranks(session);
  const std::optional<LinkTimes> device_link = measure_device_link(session);
  if (world.rank != 0) return nullptr;

  const BuildInfo& build = build_info();
  const CudaSeen cuda = look_for_cuda();
  const trainer::DeviceRates rates = measure_device(at::kCPU);
  trainer::store_rates(trainer::cpu_name(world.threads), rates);
  CudaTried tried = try_cuda(cuda);
  Json device = examine_device(tried);
  const Json host_names = layout(hosts);
  if (!ranks.is_null()) store_host_link(ranks.at("axes"), std::ssize(host_names));
  if (device_link && !device.is_null()) {
    device["link"] =
        device_link_report(*device_link, device["name"], world.size, std::ssize(host_names));
  }
  Json report;
  report["temper"] = {{"version", build.version},
                      {"git_revision", build.git_revision},
                      {"build", build.build_type},
                      {"compiler", build.compiler}};
  report["libtorch"] = build.libtorch;
  report["mpi"] = {{"library", mpi_library()}, {"ranks", world.size}, {"hosts", host_names}};
  report.update(ranks.is_null() ? Json::object() : ranks);
  report["hdf5"] = build.hdf5;
  report["parquet"] = reads_parquet();
  report["cuda"] = {{"plugin", cuda.plugin.string()},
                    {"driver", cuda.driver},
                    {"devices", tried.devices},
                    {"failure", tried.failure}};
  if (!device.is_null()) report["device"] = device;
  report["cpu"] = {{"model", trainer::cpu_model()},
                   {"threads", world.threads},
                   {"online", ::sysconf(_SC_NPROCESSORS_ONLN)}};
  report["memory_gib"] = {{"total", meminfo_gib("MemTotal")},
                          {"available", meminfo_gib("MemAvailable")}};
  report["disk_free_gib"] = free_gib(".");
  report["rates"] = to_json(rates);
  report["missing"] = find_missing(cuda, tried);
  return report;
}

void print_text(const Json& report) {
  const auto line = [](const char* name, const std::string& value) {
    std::printf("%-10s %s\n", name, value.c_str());
  };
  const auto number = [](const Json& value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.1f", value.get<double>());
    return std::string(text);
  };
  const auto text = [](const Json& value) { return value.get<std::string>(); };
  const auto rates = [&](const Json& of) {
    line("", "GEMM " + number(of["gemm_fp32_gflops"]) + " GFLOP/s fp32, " +
                 number(of["gemm_bf16_gflops"]) + " bf16, " + number(of["gemm_fp16_gflops"]) +
                 " fp16; copy " + number(of["copy_gb_per_s"]) + " GB/s");
    for (const auto& [type, training] : of["training"].items()) {
      line("", "training in " + type + ": weight gradients " +
                   number(training["weight_gradient_gflops"].front()) + " GFLOP/s, attention " +
                   number(training["attention_gflops"]) + ", " +
                   number(training["mega_logits_per_s"]) + " M logits/s");
    }
  };
  const Json &program = report["temper"], &cpu = report["cpu"], &mpi = report["mpi"],
             &cuda = report["cuda"];
  line("temper", text(program["version"]) + ", git revision " + text(program["git_revision"]) +
                     ", " + text(program["build"]) + ", " + text(program["compiler"]));
  line("LibTorch", text(report["libtorch"]));
  line("MPI", text(mpi["library"]) + ", ranks: " + mpi["ranks"].dump());
  if (report.contains("ranks")) print_ranks(report);
  line("HDF5", text(report["hdf5"]));
  line("Parquet", report["parquet"].get<bool>() ? "yes" : "no");
  line("CUDA", std::string(text(cuda["plugin"]).empty() ? "plugin not built"
                                                        : "plugin " + text(cuda["plugin"])) +
                   ", " +
                   (text(cuda["driver"]).empty() ? "no driver"
                                                 : "driver for CUDA " + text(cuda["driver"]) +
                                                       ", devices: " + cuda["devices"].dump()));
  line("CPU", text(cpu["model"]) + ", " + cpu["threads"].dump() + " threads used, " +
                  cpu["online"].dump() + " online");
  rates(report["rates"]);
  if (report.contains("device")) {
    line("device", text(report["device"]["name"]));
    rates(report["device"]["rates"]);
    if (const auto link = report["device"].find("link"); link != report["device"].end()) {
      line("", "between " + (*link)["ranks"].dump() + " of them: 25 MiB all-reduce " +
                   number((*link)["all_reduce_gb_per_s"]) + " GB/s, all-gather " +
                   number((*link)["all_gather_gb_per_s"]) + " GB/s, latency " +
                   number((*link)["latency_us"]) + " us");
    }
  }
  line("memory", number(report["memory_gib"]["available"]) + " of " +
                     number(report["memory_gib"]["total"]) + " GiB available");
  line("disk", number(report["disk_free_gib"]) + " GiB free here");
  if (report["missing"].empty()) line("missing", "nothing");
  for (const Json& item : report["missing"]) {
    line("missing", text(item["what"]));
    line("", "  mend: " + text(item["mend"]));
  }
}

}  // namespace

int doctor(const std::vector<std::string>& arguments) {
  ArgumentParser parser(
      "temper doctor [--json]",
      "Versions, devices, measured rates, and what is missing, each with the "
      "command that mends it.\n"
      "Under mpirun or srun also the layout (hosts, cores), the links between ranks, and what "
      "is odd about them.\n"
      "The rates, of this CPU with its threads and of the first CUDA device, are kept in "
      "~/.cache/temper/peaks.json,\n"
      "from which temper plan predicts time and training computes mfu. Other work only lowers "
      "them: the best of several runs are kept.",
      "mpirun -n 2 temper doctor");
  parser.options().add_options()("json", "one JSON object instead of lines");
  const auto given = parser.parse(arguments);
  if (!given) return kDone;

  parallel::load_plugin_early(recipes::Device::kAuto);
  return run_on_all_ranks([&](parallel::Session& session) {
    const Json report = examine(session);
    if (report.is_null()) return int{kDone};
    if (given->count("json") != 0) {
      std::cout << data::dump_json(report);
    } else {
      print_text(report);
    }
    return int{kDone};
  });
}

}  // namespace temper::launch
