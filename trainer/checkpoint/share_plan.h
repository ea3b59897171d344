#pragma once

#include <cstdint>
#include <vector>

namespace temper::trainer {

/// Which rank writes which tensor of a checkpoint: the largest first, each to the rank that has the
/// fewest bytes so far (the lowest of equals). A pure function, so every rank computes the same
/// plan without a word to the others.
std::vector<int> share_plan(const std::vector<uint64_t>& tensor_bytes, int ranks);

}  // namespace temper::trainer
