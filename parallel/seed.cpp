#include "parallel/seed.h"

namespace temper::parallel {

namespace {

// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection that mixes all 64 bits.
uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

}  // namespace

uint64_t seed_of(int64_t run_seed, std::string_view purpose, int64_t rank, int64_t step) {
  uint64_t seed = mix(static_cast<uint64_t>(run_seed));
  for (const char c : purpose) seed = mix(seed ^ static_cast<unsigned char>(c));
  seed = mix(seed ^ static_cast<uint64_t>(rank));
  return mix(seed ^ static_cast<uint64_t>(step));
}

}  // namespace temper::parallel
