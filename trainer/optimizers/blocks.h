#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include <ATen/Parallel.h>

namespace temper::trainer {

/// Elements of a block: small enough that a second look at it (the copy to the compute type) finds
/// it in the cache.
constexpr int64_t kBlockElements = 8192;

/// Arrays of `sizes` elements cut into blocks, the same ones whatever the number of threads. Calls
/// work(array, begin, count, block number) for each, in one parallel region over all arrays.
template <typename Work>
void for_each_block(const std::vector<int64_t>& sizes, const Work& work) {
  std::vector<int64_t> first = {0};  // block number at which each array begins
  for (const int64_t size : sizes) {
    first.push_back(first.back() + (size + kBlockElements - 1) / kBlockElements);
  }
  constexpr int64_t kBlocksWorthAThread = 4;
  at::parallel_for(0, first.back(), kBlocksWorthAThread, [&](int64_t block, int64_t end) {
    size_t array = std::upper_bound(first.begin(), first.end(), block) - first.begin() - 1;
    for (; block < end; ++block) {
      while (block >= first[array + 1]) ++array;
      const int64_t begin = (block - first[array]) * kBlockElements;
      work(array, begin, std::min(kBlockElements, sizes[array] - begin), block);
    }
  });
}

}  // namespace temper::trainer
