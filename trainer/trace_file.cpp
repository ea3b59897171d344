#include "trainer/trace_file.h"

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include <ATen/ATen.h>

#include "data/io/json.h"
#include "parallel/clock_offset.h"
#include "parallel/trace.h"
#include "recipes/diagnostic.h"
#include "trainer/metrics/append_file.h"
#include "trainer/run.h"
#include "trainer/run_directory.h"

namespace temper::trainer {

namespace {

constexpr int64_t kSteps = 100;  // a few hundred bytes an event: some megabytes a rank at most
constexpr int kTag = 1;

// Rank 0 gets the texts of all ranks in rank order, the others nothing.
std::vector<std::string> gather(const std::string& own, parallel::Communicator& group) {
  at::Tensor length = at::full({1}, static_cast<int64_t>(own.size()), at::kLong);
  at::Tensor lengths = at::empty({group.size()}, at::kLong);
  group.all_gather(lengths, length)->wait();
  if (group.rank() != 0) {
    at::Tensor bytes = at::empty({static_cast<int64_t>(own.size())}, at::kByte);
    std::copy(own.begin(), own.end(), bytes.mutable_data_ptr<uint8_t>());
    if (!own.empty()) group.send(bytes, 0, kTag)->wait();
    return {};
  }
  std::vector<std::string> all = {own};
  for (int rank = 1; rank < group.size(); ++rank) {
    at::Tensor bytes = at::empty({lengths[rank].item<int64_t>()}, at::kByte);
    if (bytes.numel() > 0) group.receive(bytes, rank, kTag)->wait();
    const uint8_t* begin = bytes.const_data_ptr<uint8_t>();
    all.emplace_back(begin, begin + bytes.numel());
  }
  return all;
}

std::string about(const parallel::World& world) {
  const data::Json name = {
      {"ph", "M"},
      {"pid", world.rank},
      {"name", "process_name"},
      {"args", {{"name", parallel::name_of(world)}, {"rank", world.rank}, {"host", world.host}}}};
  const data::Json order = {{"ph", "M"},
                            {"pid", world.rank},
                            {"name", "process_sort_index"},
                            {"args", {{"sort_index", world.rank}}}};
  return name.dump() + ",\n" + order.dump();
}

}  // namespace

struct TraceFile::State {
  parallel::Communicator& group;
  std::optional<AppendFile> file{};  // rank 0
  const char* separator = "[\n";
  int64_t collected = 0;

  ~State() {
    parallel::stop_trace();
    if (!file) return;
    try {
      file->append("\n]\n");
    } catch (const RunError&) {
      // The file opens without.
    }
  }

  void append(const std::string& own) {
    for (const std::string& events : gather(own, group)) {
      if (events.empty()) continue;
      file->append(separator + events);
      separator = ",\n";
    }
  }
};

TraceFile::TraceFile(const Run& run, const RunDirectory& directory) {
  if (!run.recipe.log.trace) return;
  parallel::Communicator& group = *run.communicator;
  state_.reset(new State{.group = group});
  if (run.world.rank == 0) {
    const std::filesystem::path path = directory.path / "trace.json";
    std::filesystem::remove(path);
    state_->file.emplace(path);
  }
  const double offset = parallel::clock_offset(group, parallel::steady_seconds);
  at::Tensor origin = at::full({1}, parallel::steady_seconds(), at::kDouble);
  group.broadcast(origin, 0)->wait();
  state_->append(about(run.world));
  parallel::start_trace(run.world.rank, origin.item<double>() + offset);
}

TraceFile::~TraceFile() = default;

void TraceFile::collect() {
  if (!state_) return;
  const parallel::TraceSpan span("trace");
  state_->append(parallel::take_trace());
  // Once before the first step, and once after each.
  if (state_->collected++ == kSteps) state_.reset();
}

}  // namespace temper::trainer
