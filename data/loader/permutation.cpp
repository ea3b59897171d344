#include "data/loader/permutation.h"

#include "recipes/diagnostic.h"

namespace temper::data {

namespace {

// The finaliser of SplitMix64 (Steele et al. 2014): every output bit depends on every input bit.
uint64_t mix(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ULL;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

}  // namespace

Permutation::Permutation(int64_t count, uint64_t key) : count_(static_cast<uint64_t>(count)) {
  TEMPER_CHECK(count >= 1, "a permutation of nothing");
  while ((uint64_t{1} << (2 * half_bits_)) < count_) ++half_bits_;
  for (uint64_t& round : keys_) round = mix(key += 0x9e3779b97f4a7c15ULL);
}

int64_t Permutation::operator()(int64_t position) const {
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  uint64_t value = static_cast<uint64_t>(position);
  TEMPER_CHECK(value < count_, "position outside the permutation");
  do {
    uint64_t left = value >> half_bits_, right = value & mask;
    for (const uint64_t key : keys_) {
      const uint64_t next = left ^ (mix(right ^ key) & mask);
      left = right;
      right = next;
    }
    value = (left << half_bits_) | right;
  } while (value >= count_);
  return static_cast<int64_t>(value);
}

}  // namespace temper::data
