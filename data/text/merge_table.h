#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

/// The merges of a BPE model: (left id, right id) to rank and merged id, by open addressing. This
/// is the inner loop of every word that is in no cache.
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
    size_t size = 16;
    while (size < rules * 2) size *= 2;
    keys_.assign(size, kEmpty);
    rules_.resize(size);
  }
  void set(int32_t left, int32_t right, MergeRule rule) {
    const size_t slot = find_slot(key(left, right));
    keys_[slot] = key(left, right);
    rules_[slot] = rule;
  }
  /// rank is kNoRank where there is no such merge.
  MergeRule find(int32_t left, int32_t right) const {
    const size_t slot = find_slot(key(left, right));
    return keys_[slot] == kEmpty ? MergeRule{} : rules_[slot];
  }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  static uint64_t key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  size_t find_slot(uint64_t wanted) const {
    const size_t mask = keys_.size() - 1;
    size_t slot = static_cast<size_t>((wanted * 0x9E3779B97F4A7C15ULL) >> 20) & mask;
    while (keys_[slot] != kEmpty && keys_[slot] != wanted) slot = (slot + 1) & mask;
    return slot;
  }
  std::vector<uint64_t> keys_;
  std::vector<MergeRule> rules_;
};

}  // namespace temper::data
