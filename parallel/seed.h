#pragma once

#include <cstdint>
#include <string_view>

/// Every random number has a name: the seed of a purpose at a step is a pure function, so that
/// resuming restores nothing.
namespace temper::parallel {

/// 64 well-mixed bits of (run seed, purpose, rank, step). Equal arguments give equal seeds on every
/// machine.
uint64_t seed_of(int64_t run_seed, std::string_view purpose, int64_t rank = 0, int64_t step = 0);

}  // namespace temper::parallel
