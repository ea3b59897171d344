#include "data/loader/step_order.h"

#include <algorithm>

#include "data/loader/permutation.h"
#include "parallel/seed.h"

namespace temper::data {

std::vector<int64_t> step_order(const Sequences& sequences, int64_t epoch, int64_t step,
                                const LoaderOptions& options) {
  const Permutation shuffled(sequences.size(),
                             parallel::seed_of(options.seed, "shuffle", 0, epoch));
  // The sequences at places [begin, end) of the epoch.
  const auto places = [&](int64_t begin, int64_t end) {
    std::vector<int64_t> numbers;
    for (int64_t i = begin; i < std::min(end, sequences.size()); ++i) {
      numbers.push_back(options.shuffle ? shuffled(i) : i);
    }
    return numbers;
  };
  const int64_t global = options.global;
  if (!options.group_by_length) return places(step * global, (step + 1) * global);

  const int64_t group = step / kGroupedSteps;
  std::vector<int64_t> numbers =
      places(group * kGroupedSteps * global, (group + 1) * kGroupedSteps * global);
  std::vector<std::pair<int64_t, int64_t>> longest_first;
  for (const int64_t number : numbers)
    longest_first.emplace_back(-sequences.length(number), number);
  std::stable_sort(longest_first.begin(), longest_first.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  const int64_t full_steps = std::ssize(numbers) / global;
  int64_t taken = step % kGroupedSteps;
  if (taken < full_steps) {
    const uint64_t key =
        parallel::seed_of(options.seed, "group_by_length", 0, epoch) + static_cast<uint64_t>(group);
    taken = Permutation(full_steps, key)(taken);
  }
  const int64_t begin = taken * global, end = std::min(begin + global, std::ssize(numbers));
  numbers.clear();
  for (int64_t i = begin; i < end; ++i)
    numbers.push_back(longest_first[static_cast<size_t>(i)].second);
  return numbers;
}

std::vector<RankShare> shares_of(const LoaderOptions& options, int64_t taken) {
  const int64_t accumulation = options.global / (options.micro * options.ranks);
  std::vector<RankShare> shares;
  for (int64_t i = 0; i < accumulation; ++i) {
    const int64_t number = options.rank * accumulation + i;
    const int64_t begin = number * options.micro, end = std::min(begin + options.micro, taken);
    if (begin >= end) break;
    shares.push_back({static_cast<size_t>(begin), static_cast<size_t>(end - begin), number});
  }
  return shares;
}

}  // namespace temper::data
