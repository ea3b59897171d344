#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

/// The merges of a BPE model: (left id, right id) to rank and merged id, by open addressing. This
/// is the inner loop of every word that is in no cache. Most pairs are no merge, and the table is
/// larger than the caches near the core: a bit for each hash, in a sixteenth of its memory, says so
/// of nearly all of them.
namespace temper::data {

constexpr int32_t kNoRank = -1;

struct MergeRule {
  int32_t rank = kNoRank;
  int32_t id = -1;
};

class MergeTable {
 public:
  /// To be called before the first set().
  void reserve(size_t rules) {
    int bits = 4;
    while (size_t{1} << bits < rules * 2) ++bits;
    shift_ = 64 - bits;
    entries_.assign(size_t{1} << bits, {});
    seen_.assign(std::max<size_t>(size_t{1} << bits >> (6 - kSeenBits), 1), 0);
  }
  void set(int32_t left, int32_t right, MergeRule rule) {
    const uint64_t wanted = pair(left, right), hashed = hash(wanted);
    seen_[seen_bit(hashed) / 64] |= uint64_t{1} << seen_bit(hashed) % 64;
    entries_[find_slot(wanted, hashed)] = {wanted, rule};
  }
  /// rank is kNoRank where there is no such merge.
  MergeRule find(int32_t left, int32_t right) const {
    const uint64_t wanted = pair(left, right), hashed = hash(wanted);
    if ((seen_[seen_bit(hashed) / 64] >> seen_bit(hashed) % 64 & 1) == 0) return {};
    return entries_[find_slot(wanted, hashed)].rule;
  }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  static constexpr int kSeenBits = 3;  // 8 bits an entry
  struct Entry {
    uint64_t pair = kEmpty;
    MergeRule rule;
  };
  static uint64_t pair(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  // Its high bits depend on all of the pair's.
  static uint64_t hash(uint64_t pair) { return (pair ^ pair >> 29) * 0x9E3779B97F4A7C15ULL; }
  size_t seen_bit(uint64_t hashed) const { return hashed >> (shift_ - kSeenBits); }
  size_t find_slot(uint64_t wanted, uint64_t hashed) const {
    size_t slot = hashed >> shift_;
    while (entries_[slot].pair != kEmpty && entries_[slot].pair != wanted) {
      slot = (slot + 1) & (entries_.size() - 1);
    }
    return slot;
  }
  int shift_ = 0;  // of a hash to its slot
  std::vector<Entry> entries_;
  std::vector<uint64_t> seen_;
};

}  // namespace temper::data
