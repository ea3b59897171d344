#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace temper::trainer {

/// Parts of known cost among ranks, [ranks] lists of their indices in order: ceil(parts / ranks) a
/// rank at most, the heaviest part first to the rank that has the least so far and room for it. A
/// function of numbers alone: every rank computes the same.
std::vector<std::vector<int64_t>> balance(std::span<const int64_t> costs, int ranks);

}  // namespace temper::trainer
