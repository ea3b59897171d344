#pragma once

#include <cstdint>

/// A keyed permutation of 0 .. count-1 that holds no array: the order of an epoch costs nothing to
/// make, to seek in or to restore. A Feistel network over the next even number of bits, walked
/// until the value is back in range (at most four steps on average).
///
///     Permutation order(rows, parallel::seed_of(seed, "shuffle", 0, epoch));
///     int64_t row = order(position);
namespace temper::data {

class Permutation {
 public:
  Permutation(int64_t count, uint64_t key);
  /// Where `position`, in [0, count), goes.
  int64_t operator()(int64_t position) const;

 private:
  static constexpr int kRounds = 8;  // few bits mix slowly
  uint64_t count_;
  int half_bits_ = 1;
  uint64_t keys_[kRounds];
};

}  // namespace temper::data
