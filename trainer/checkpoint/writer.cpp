#include <algorithm>
#include <bit>
#include <chrono>
#include <future>
#include <set>

#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "data/io/atomic_file.h"
#include "parallel/trace.h"
#include "recipes/diagnostic.h"
#include "trainer/checkpoint/manifest.h"
#include "trainer/checkpoint/memory_layout.h"
#include "trainer/checkpoint/piece.h"
#include "trainer/checkpoint/share_plan.h"
#include "trainer/checkpoint/state.h"

namespace temper::trainer {

namespace {

namespace fs = std::filesystem;

constexpr const char* kPartial = ".partial";

// The file system's failures are the run's, with the path in front.
template <typename Work>
void on_disk(const Work& work) {
  try {
    work();
  } catch (const fs::filesystem_error& error) {
    throw RunError(error.path1().string() + ": " + error.code().message());
  }
}

std::vector<int64_t> steps_in(const fs::path& directory, const std::string& suffix) {
  std::vector<int64_t> steps;
  if (!fs::exists(directory)) return steps;
  for (const auto& entry : fs::directory_iterator(directory)) {
    if (const auto step = step_of(entry.path().filename().string(), suffix)) steps.push_back(*step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

// Never half a checkpoint under a checkpoint's name, also when killed in between.
void remove_checkpoint(const fs::path& directory) {
  const fs::path aside = directory.string() + ".old" + kPartial;
  fs::remove_all(aside);
  fs::rename(directory, aside);
  fs::remove_all(aside);
}

// best -> step-000200, replaced in one step.
void point_best_at(const fs::path& directory, const std::string& name) {
  const fs::path link = directory / "best";
  if (fs::is_symlink(link) && fs::read_symlink(link) == name) return;
  const fs::path temporary = directory / (std::string("best") + kPartial);
  fs::remove(temporary);
  fs::create_directory_symlink(name, temporary);
  fs::rename(temporary, link);
}

void remove_what_nothing_protects(const fs::path& directory, int64_t newest, int64_t keep,
                                  std::optional<int64_t> best_step) {
  std::vector<int64_t> steps = steps_in(directory, "");
  // What is newer was passed over as damaged when this run resumed: it counts for nothing, and its
  // step will replace it.
  std::erase_if(steps, [&](int64_t step) { return step > newest; });
  std::set<int64_t> kept;
  for (int64_t i = 0; i < std::max<int64_t>(keep, 1) && i < std::ssize(steps); ++i) {
    kept.insert(steps[steps.size() - 1 - static_cast<size_t>(i)]);
  }
  const fs::path best = directory / "best";
  if (best_step) {
    if (fs::exists(directory / step_directory(*best_step))) {
      point_best_at(directory, step_directory(*best_step));
    }
    if (fs::is_symlink(best)) {
      if (const auto step = step_of(fs::read_symlink(best).string())) kept.insert(*step);
    }
  }
  for (const int64_t step : steps) {
    if (!kept.contains(step)) remove_checkpoint(directory / step_directory(step));
  }
  if (fs::is_symlink(best) && !fs::exists(best)) fs::remove(best);
  // Left behind by runs that were killed. Other ranks may have begun a later step by now: that one
  // stays.
  for (const char* suffix : {kPartial, ".old.partial"}) {
    for (const int64_t step : steps_in(directory, suffix)) {
      if (step <= newest) fs::remove_all(directory / (step_directory(step) + suffix));
    }
  }
}

// Where copies of `share` go. What a device fills at the speed of its link is pinned, and LibTorch rounds that up to powers of two:
// such tensors lie side by side, in pieces of about a GiB that are the next power of two.
NamedTensors memory_for(const NamedTensors& share) {
  uint64_t room = uint64_t{1} << 30;
  for (const auto& [name, tensor] : share) room = std::max(room, std::bit_ceil(tensor.nbytes()));
  std::vector<MemoryLayout> pieces;
  std::vector<size_t> piece_of(share.size());
  for (size_t i = 0; i < share.size(); ++i) {
    const at::Tensor& tensor = share[i].second;
    if (tensor.is_cpu()) continue;
    const auto fits = std::find_if(pieces.begin(), pieces.end(), [&](const MemoryLayout& piece) {
      return static_cast<uint64_t>(piece.bytes()) + tensor.nbytes() <= room;
    });
    piece_of[i] = static_cast<size_t>(fits - pieces.begin());
    if (fits == pieces.end()) pieces.emplace_back();
    pieces[piece_of[i]].next(tensor.sizes(), tensor.scalar_type());
  }
  for (MemoryLayout& piece : pieces) {
    piece = MemoryLayout(at::empty({piece.bytes()}, at::TensorOptions(at::kByte).pinned_memory(true)));
  }
  NamedTensors memory;
  for (size_t i = 0; i < share.size(); ++i) {
    const auto& [name, tensor] = share[i];
    memory.emplace_back(name, tensor.is_cpu() ? at::empty(tensor.sizes(), tensor.options())
                                              : pieces[piece_of[i]].next(tensor.sizes(), tensor.scalar_type()));
  }
  return memory;
}

// All from one device, in one stream.
void wait_for_copies(at::Device from) {
  if (from.is_cpu()) return;
  const c10::impl::VirtualGuardImpl device(from.type());
  device.synchronizeStream(device.getStream(from));
}

}  // namespace

struct CheckpointWriter::State {
  fs::path directory;
  int rank = 0;
  int ranks = 1;
  bool async = true;
  std::optional<int64_t> pending;
  bool done = false;          // this rank's file of `pending` is on disk
  NamedTensors snapshot;      // this rank's share; the buffers serve every checkpoint
  std::future<void> writing;  // last: destroyed first, when it waits for the thread

  fs::path partial() const { return directory / (step_directory(*pending) + kPartial); }

  /// This rank's tensors as they are now: the live ones when nothing changes them meanwhile, else
  /// copies on the CPU.
  NamedTensors share_of(const TrainState& train) {
    NamedTensors share, whole;
    for (const auto& [name, tensor] : train.tensors) {
      (piece_of(name) ? share : whole).emplace_back(name, tensor.detach());
    }
    std::vector<uint64_t> bytes;
    for (const auto& named : whole) bytes.push_back(named.second.nbytes());
    const std::vector<int> owner = share_plan(bytes, ranks);
    for (size_t i = 0; i < owner.size(); ++i) {
      if (owner[i] == rank) share.push_back(whole[i]);
    }
    if (!async) {
      for (auto& named : share) named.second = named.second.contiguous();
      return share;
    }
    const bool fits = std::equal(share.begin(), share.end(), snapshot.begin(), snapshot.end(),
                                 [](const auto& a, const auto& b) {
                                   return a.first == b.first &&
                                          a.second.sizes() == b.second.sizes() &&
                                          a.second.scalar_type() == b.second.scalar_type();
                                 });
    if (!fits) {
      snapshot.clear();
      snapshot = memory_for(share);
    }
    at::Device from = at::kCPU;
    for (size_t i = 0; i < share.size(); ++i) {
      snapshot[i].second.copy_(share[i].second, /*non_blocking=*/true);
      if (!share[i].second.is_cpu()) from = share[i].second.device();
    }
    wait_for_copies(from);
    return snapshot;
  }
};

CheckpointWriter::CheckpointWriter(fs::path directory, int rank, int ranks, bool async)
    : state_(std::make_unique<State>()) {
  state_->directory = std::move(directory);
  state_->rank = rank;
  state_->ranks = ranks;
  state_->async = async;
}

CheckpointWriter::~CheckpointWriter() = default;

void CheckpointWriter::begin(int64_t step, const TrainState& train) {
  State& s = *state_;
  wait();
  s.pending = step;
  s.done = false;
  const fs::path partial = s.partial();
  on_disk([&] { fs::create_directories(partial); });

  auto write = [partial, rank = s.rank, tensors = s.share_of(train),
                scalars = s.rank == 0 ? data::dump_json(train.scalars) : std::string()] {
    const parallel::TraceOperation span("checkpoint write");
    const FileDigest digest = write_safetensors(partial / rank_file(rank), tensors);
    if (rank == 0) data::write_file_atomically(partial / kStateFile, scalars);
    write_digest(partial / digest_file(rank), digest);
  };
  s.writing = std::async(s.async ? std::launch::async : std::launch::deferred, std::move(write));
  if (!s.async) wait();
}

bool CheckpointWriter::rank_done() {
  State& s = *state_;
  if (s.writing.valid() &&
      s.writing.wait_for(std::chrono::seconds(0)) == std::future_status::ready) {
    wait();
  }
  return s.done;
}

void CheckpointWriter::wait() {
  State& s = *state_;
  if (!s.writing.valid()) return;
  s.writing.get();  // throws what the thread threw, once; `done` then stays false
  s.done = true;
}

std::optional<int64_t> CheckpointWriter::pending() const { return state_->pending; }

void CheckpointWriter::commit(int64_t keep, std::optional<int64_t> best_step) {
  State& s = *state_;
  TEMPER_CHECK(s.pending && s.done, "only a checkpoint that every rank has written is committed");
  const fs::path partial = s.partial();
  const int64_t step = *s.pending;
  s.pending.reset();
  if (s.rank != 0) return;
  on_disk([&] {
    Manifest manifest{.step = step, .ranks = s.ranks, .files = {}};
    for (int rank = 0; rank < s.ranks; ++rank) {
      manifest.files[rank_file(rank)] = read_digest(partial / digest_file(rank));
    }
    manifest.files[kStateFile] = digest_of(partial / kStateFile);
    // Digests have served, and files of a killed run on more ranks would never be looked at.
    std::vector<fs::path> leftover;
    for (const auto& entry : fs::directory_iterator(partial)) {
      if (!manifest.files.contains(entry.path().filename().string()))
        leftover.push_back(entry.path());
    }
    for (const fs::path& path : leftover) fs::remove_all(path);
    write_manifest(partial, manifest);

    const fs::path complete = s.directory / step_directory(step);
    if (fs::exists(complete))
      remove_checkpoint(complete);  // damaged, or of the run that resumed before it
    fs::rename(partial, complete);
    data::sync_directory(s.directory);
    remove_what_nothing_protects(s.directory, step, keep, best_step);
  });
}

}  // namespace temper::trainer
