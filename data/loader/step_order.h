#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "data/loader/loader.h"
#include "data/loader/sequences.h"

/// Which sequences a step takes, and which of them a rank: pure functions.
namespace temper::data {

/// Steps of an epoch that group_by_length sorts together.
inline constexpr int64_t kGroupedSteps = 50;

/// The numbers of the sequences of step `step` of an epoch, `global` of them or what is left, in
/// the order in which ranks share them. In order, or in that of the epoch's keyed permutation; with
/// group_by_length each 50 steps of that order are sorted by length, longest first, and come in an
/// order of their own (but the short last step, which stays the last).
std::vector<int64_t> step_order(const Sequences& sequences, int64_t epoch, int64_t step,
                                const LoaderOptions& options);

/// A micro-batch of this rank: `count` of the step's sequences from `begin`.
struct RankShare {
  size_t begin;
  size_t count;
  int64_t number;  // over all ranks
};

/// The micro-batches of this rank of a step of `taken` sequences.
std::vector<RankShare> shares_of(const LoaderOptions& options, int64_t taken);

}  // namespace temper::data
