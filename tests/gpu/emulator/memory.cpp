#include "tests/gpu/emulator/memory.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>

#include <sys/mman.h>

#include <c10/core/impl/VirtualGuardImpl.h>

#include "recipes/diagnostic.h"

namespace temper::emulator {

namespace {

constexpr size_t kBytes = size_t{4} << 30;  // reserved, not used
constexpr size_t kAlignment = 512;

std::mutex mutex;
char* base = nullptr;
int working = 0;
std::map<size_t, size_t> free_runs;  // offset -> bytes
struct Used {
  size_t bytes = 0;
  int holders = 1;  // a tensor, recorded work
};
std::map<size_t, Used> used_runs;
std::vector<size_t>* recorded = nullptr;  // offsets of what is taken meanwhile
int64_t used = 0, peak = 0;

void protect(int how) {
  if (base != nullptr) ::mprotect(base, kBytes, how);
}

void reserve() {
  if (base != nullptr) return;
  void* const address = ::mmap(nullptr, kBytes, working > 0 ? PROT_READ | PROT_WRITE : PROT_NONE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  TEMPER_CHECK(address != MAP_FAILED, "the emulated device has no memory");
  // Large pages where there are some: each launch changes the protection of all that are in use.
  ::madvise(address, kBytes, MADV_HUGEPAGE);
  base = static_cast<char*>(address);
  free_runs[0] = kBytes;
}

void* take(size_t bytes) {
  const std::lock_guard lock(mutex);
  reserve();
  bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  for (auto run = free_runs.begin(); run != free_runs.end(); ++run) {
    const auto [offset, size] = *run;
    if (size < bytes) continue;
    free_runs.erase(run);
    if (size > bytes) free_runs[offset + bytes] = size - bytes;
    used_runs[offset] = {.bytes = bytes, .holders = recorded != nullptr ? 2 : 1};
    if (recorded != nullptr) recorded->push_back(offset);
    used += static_cast<int64_t>(bytes);
    peak = std::max(peak, used);
    return base + offset;
  }
  TEMPER_CHECK(false, "the emulated device is full");
  return nullptr;
}

// Of those who hold the run.
void let_go(size_t begin) {
  const auto run = used_runs.find(begin);
  if (--run->second.holders > 0) return;
  size_t offset = begin, size = run->second.bytes;
  used_runs.erase(run);
  used -= static_cast<int64_t>(size);
  auto after = free_runs.lower_bound(offset);
  if (after != free_runs.end() && after->first == offset + size) {
    size += after->second;
    after = free_runs.erase(after);
  }
  if (after != free_runs.begin()) {
    const auto before = std::prev(after);
    if (before->first + before->second == offset) {
      before->second += size;
      return;
    }
  }
  free_runs[offset] = size;
}

void give_back(void* address) {
  if (address == nullptr) return;
  const std::lock_guard lock(mutex);
  let_go(static_cast<size_t>(static_cast<char*>(address) - base));
}

class DeviceMemory : public c10::DeviceAllocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* const address = bytes == 0 ? nullptr : take(bytes);
    const c10::impl::VirtualGuardImpl guard(c10::DeviceType::PrivateUse1);
    return {address, address, &give_back, guard.getDevice()};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &give_back; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    const Working now;
    default_copy_data(to, from, bytes);
  }
  bool initialized() override { return true; }
  void emptyCache(c10::MempoolId_t) override {}
  void recordStream(const c10::DataPtr&, c10::Stream) override {}
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex) override {
    const std::lock_guard lock(mutex);
    c10::CachingDeviceAllocator::DeviceStats stats;
    stats.allocated_bytes[0].current = used;
    stats.allocated_bytes[0].peak = peak;
    return stats;
  }
  void resetAccumulatedStats(c10::DeviceIndex) override {}
  void resetPeakStats(c10::DeviceIndex) override {
    const std::lock_guard lock(mutex);
    peak = used;
  }
};

std::mutex pinned_mutex;
std::map<const char*, size_t> pinned;

void free_pinned(void* address) {
  if (address == nullptr) return;
  const std::lock_guard lock(pinned_mutex);
  pinned.erase(static_cast<const char*>(address));
  std::free(address);
}

class PinnedMemory : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* const address = bytes == 0 ? nullptr : std::aligned_alloc(64, (bytes + 63) / 64 * 64);
    const std::lock_guard lock(pinned_mutex);
    if (address != nullptr) pinned[static_cast<const char*>(address)] = bytes;
    return {address, address, &free_pinned, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_pinned; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
};

}  // namespace

Working::Working() {
  const std::lock_guard lock(mutex);
  if (working++ == 0) protect(PROT_READ | PROT_WRITE);
}

Working::~Working() {
  const std::lock_guard lock(mutex);
  if (--working == 0) protect(PROT_NONE);
}

RecordedMemory::RecordedMemory() {
  const Working now;
  const std::lock_guard lock(mutex);
  TEMPER_CHECK(recorded == nullptr, "one recording at a time");
  for (const auto& [offset, run] : used_runs) {
    before_.emplace_back(offset, std::vector<char>(base + offset, base + offset + run.bytes));
  }
  recorded = &own_;
}

void RecordedMemory::close() {
  const Working now;
  const std::lock_guard lock(mutex);
  recorded = nullptr;
  for (const auto& [offset, bytes] : before_) {
    std::memcpy(base + offset, bytes.data(), bytes.size());
  }
  before_.clear();
  for (const size_t offset : own_) {
    std::memset(base + offset, 0xff, used_runs.at(offset).bytes);
  }
}

RecordedMemory::~RecordedMemory() {
  const std::lock_guard lock(mutex);
  for (const size_t offset : own_) let_go(offset);
}

// Never destroyed: tensors may live longer.
c10::DeviceAllocator& device_memory() {
  static auto& memory = *new DeviceMemory;
  return memory;
}

c10::Allocator& pinned_memory() {
  static auto& memory = *new PinnedMemory;
  return memory;
}

bool is_pinned(const void* address) {
  const std::lock_guard lock(pinned_mutex);
  auto after = pinned.upper_bound(static_cast<const char*>(address));
  if (after == pinned.begin()) return false;
  const auto& [begin, bytes] = *std::prev(after);
  return static_cast<const char*>(address) < begin + bytes;
}

}  // namespace temper::emulator
