#include "trainer/checkpoint/share_plan.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <queue>
#include <utility>

namespace temper::trainer {

std::vector<int> share_plan(const std::vector<uint64_t>& tensor_bytes, int ranks) {
  std::vector<size_t> order(tensor_bytes.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return tensor_bytes[a] > tensor_bytes[b]; });

  using Load = std::pair<uint64_t, int>;  // bytes so far, rank
  std::priority_queue<Load, std::vector<Load>, std::greater<>> loads;
  for (int rank = 0; rank < ranks; ++rank) loads.emplace(0, rank);
  std::vector<int> owner(tensor_bytes.size());
  for (const size_t tensor : order) {
    auto [bytes, rank] = loads.top();
    loads.pop();
    owner[tensor] = rank;
    loads.emplace(bytes + tensor_bytes[tensor], rank);
  }
  return owner;
}

}  // namespace temper::trainer
