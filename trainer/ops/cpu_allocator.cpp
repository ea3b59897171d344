#include "trainer/ops/cpu_allocator.h"

#include <cstdint>
#include <cstdlib>
#include <map>
#include <mutex>
#include <new>

#include <sys/mman.h>

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

namespace temper::trainer {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kCachedFrom = size_t{1}
                               << 18;  // smaller blocks are malloc's, which keeps them itself
constexpr size_t kHugePage = size_t{2} << 20;

// In front of every block.
struct alignas(kAlignment) Header {
  size_t bytes;  // header included; 0: from malloc
};

// Blocks of nearly equal sizes serve each other: eight classes between two powers of two.
size_t class_of(size_t bytes) {
  size_t step = kCachedFrom / 8;
  while (step * 16 <= bytes) step *= 2;
  return (bytes + step - 1) / step * step;
}

class CachingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* data = bytes == 0 ? nullptr : take(bytes);
    return {data, data, &give_back, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &give_back; }
  void copy_data(void* to, const void* from, size_t count) const override {
    default_copy_data(to, from, count);
  }

  int64_t release() {
    const std::scoped_lock lock(mutex_);
    return release_idle();
  }

  // Never destroyed: tensors of static storage may outlive every other static.
  static CachingAllocator& instance() {
    static auto* const allocator = new CachingAllocator;
    return *allocator;
  }

 private:
  void* take(size_t bytes) {
    const size_t whole = bytes + sizeof(Header);
    Header* block = whole < kCachedFrom ? small_block(whole) : large_block(class_of(whole));
    return block + 1;
  }

  static Header* small_block(size_t bytes) {
    void* memory = nullptr;
    if (posix_memalign(&memory, kAlignment, bytes) != 0) throw std::bad_alloc();
    return new (memory) Header{0};
  }

  Header* large_block(size_t bytes) {
    const std::scoped_lock lock(mutex_);
    // A quarter too large is still better than fresh memory.
    const auto found = idle_.lower_bound(bytes);
    if (found != idle_.end() && found->first <= bytes + bytes / 4) {
      Header* block = found->second;
      idle_.erase(found);
      return block;
    }
    Header* block = fresh_block(bytes);
    if (block == nullptr) {
      release_idle();
      block = fresh_block(bytes);
    }
    if (block == nullptr) throw std::bad_alloc();
    return block;
  }

  static Header* fresh_block(size_t bytes) {
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return nullptr;
    if (bytes >= kHugePage) madvise(memory, bytes, MADV_HUGEPAGE);
    return new (memory) Header{bytes};
  }

  int64_t release_idle() {
    int64_t released = 0;
    for (const auto& [bytes, block] : idle_) {
      munmap(block, bytes);
      released += static_cast<int64_t>(bytes);
    }
    idle_.clear();
    return released;
  }

  static void give_back(void* data) {
    if (data == nullptr) return;
    Header* block = static_cast<Header*>(data) - 1;
    if (block->bytes == 0) {
      std::free(block);
      return;
    }
    CachingAllocator& self = instance();
    const std::scoped_lock lock(self.mutex_);
    self.idle_.emplace(block->bytes, block);
  }

  std::mutex mutex_;
  std::multimap<size_t, Header*> idle_;
};

}  // namespace

void use_caching_cpu_allocator() {
  constexpr uint8_t kAboveDefault = 1;
  c10::SetCPUAllocator(&CachingAllocator::instance(), kAboveDefault);
}

int64_t release_idle_cpu_memory() { return CachingAllocator::instance().release(); }

}  // namespace temper::trainer
