#include "trainer/rollouts/prompts.h"

#include <algorithm>

namespace temper::trainer {

bool has_completion(const data::Example& row) {
  return std::any_of(row.supervised.begin() + 1, row.supervised.end(),
                     [](uint8_t supervised) { return supervised != 0; });
}

std::vector<int32_t> prompt_of(const data::Example& row) {
  if (!has_completion(row)) return row.ids;
  size_t begin = row.ids.size();
  while (row.supervised[begin - 1] == 0) --begin;
  while (begin > 1 && row.supervised[begin - 1] != 0) --begin;
  return {row.ids.begin(), row.ids.begin() + static_cast<std::ptrdiff_t>(begin)};
}

}  // namespace temper::trainer
