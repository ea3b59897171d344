#include "trainer/adapters/rotation.h"

#include <algorithm>
#include <vector>

#include <ATen/ATen.h>

#include "recipes/diagnostic.h"

namespace temper::trainer {

at::Tensor cayley(const at::Tensor& skew) {
  const at::Tensor identity = at::eye(skew.size(-1), skew.options());
  return at::linalg_solve(at::add(identity, skew), at::sub(identity, skew), /*left=*/false);
}

at::Tensor rotate_blocks(const at::Tensor& x, const at::Tensor& blocks) {
  const int64_t rows = x.size(0), size = blocks.size(-1);
  if (blocks.size(0) == 1)
    return at::matmul(x.reshape({-1, size}), blocks[0]).view({rows, x.size(1)});
  return at::bmm(x.reshape({rows, -1, size}).transpose(0, 1), blocks)
      .transpose(0, 1)
      .reshape({rows, x.size(1)});
}

std::string divisors_near(int64_t size, int64_t wanted) {
  constexpr int64_t kEachSide = 4;
  std::vector<int64_t> below, above;
  for (int64_t d = 1; d <= size; ++d)
    if (size % d == 0) (d < wanted ? below : above).push_back(d);
  std::vector<std::string> names;
  const int64_t lower = static_cast<int64_t>(below.size());
  for (int64_t i = std::max<int64_t>(0, lower - kEachSide); i < lower; ++i)
    names.push_back(std::to_string(below[i]));
  for (int64_t i = 0; i < std::min<int64_t>(kEachSide, static_cast<int64_t>(above.size())); ++i)
    names.push_back(std::to_string(above[i]));
  return join(names);
}

}  // namespace temper::trainer
