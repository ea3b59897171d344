#include "trainer/rollouts/balance.h"

#include <algorithm>
#include <numeric>

namespace temper::trainer {

std::vector<std::vector<int64_t>> balance(std::span<const int64_t> costs, int ranks) {
  const auto count = static_cast<size_t>(ranks);
  const size_t room = (costs.size() + count - 1) / count;
  std::vector<int64_t> heaviest_first(costs.size());
  std::iota(heaviest_first.begin(), heaviest_first.end(), 0);
  std::stable_sort(heaviest_first.begin(), heaviest_first.end(), [&](int64_t a, int64_t b) {
    return costs[static_cast<size_t>(a)] > costs[static_cast<size_t>(b)];
  });
  std::vector<std::vector<int64_t>> parts(count);
  std::vector<int64_t> load(count, 0);
  for (const int64_t part : heaviest_first) {
    size_t least = count;
    for (size_t rank = 0; rank < count; ++rank) {
      if (parts[rank].size() == room) continue;
      if (least == count || load[rank] < load[least]) least = rank;
    }
    parts[least].push_back(part);
    load[least] += costs[static_cast<size_t>(part)];
  }
  for (std::vector<int64_t>& own : parts) std::sort(own.begin(), own.end());
  return parts;
}

}  // namespace temper::trainer
