#include "recipes/diagnostic.h"

#include <algorithm>
#include <numeric>

namespace temper {

std::string join(const std::vector<std::string>& parts, std::string_view separator) {
  std::string joined;
  for (const std::string& part : parts) {
    if (!joined.empty()) joined += separator;
    joined += part;
  }
  return joined;
}

UserError::UserError(std::string line) : UserError(std::vector<std::string>{std::move(line)}) {}

UserError::UserError(std::vector<std::string> lines)
    : std::runtime_error(join(lines, "\n")), lines_(std::move(lines)) {}

namespace {

// Optimal string alignment: insertions, deletions, substitutions and swaps of neighbours each cost
// one.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> cost(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) cost[i][0] = i;
  std::iota(cost[0].begin(), cost[0].end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      cost[i][j] = std::min(
          {cost[i - 1][j] + 1, cost[i][j - 1] + 1, cost[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
      }
    }
  }
  return cost[a.size()][b.size()];
}

}  // namespace

std::string nearest_name(std::string_view found, const std::vector<std::string>& candidates) {
  std::string best;
  // A third of the letters may be wrong.
  size_t best_distance = std::max<size_t>(1, (found.size() + 1) / 3) + 1;
  for (const std::string& candidate : candidates) {
    const size_t distance = edit_distance(found, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

void check_failed(const char* condition, const char* file, int line, const std::string& message) {
  throw std::logic_error(std::string(file) + ":" + std::to_string(line) +
                         ": broken promise: " + condition + ": " + message);
}

}  // namespace temper
