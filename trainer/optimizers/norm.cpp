#include <cmath>

#include <ATen/ATen.h>

#include "recipes/diagnostic.h"
#include "trainer/optimizers/blocks.h"
#include "trainer/optimizers/kernels.h"
#include "trainer/optimizers/optimizer.h"

namespace temper::trainer {

double global_norm(const std::vector<at::Tensor>& tensors) {
  std::vector<int64_t> sizes;
  std::vector<const float*> data;
  int64_t blocks = 0;
  for (const at::Tensor& tensor : tensors) {
    TEMPER_CHECK(tensor.is_cpu() && tensor.is_contiguous() && tensor.scalar_type() == at::kFloat,
                 "gradients are contiguous float32 on the CPU");
    sizes.push_back(tensor.numel());
    data.push_back(tensor.const_data_ptr<float>());
    blocks += (tensor.numel() + kBlockElements - 1) / kBlockElements;
  }
  std::vector<double> sums(blocks);
  for_each_block(sizes, [&](size_t tensor, int64_t begin, int64_t count, int64_t block) {
    sums[block] = sum_of_squares(data[tensor] + begin, count);
  });
  double sum = 0;
  for (const double block : sums) sum += block;
  return std::sqrt(sum);
}

double clip_factor(double norm, double max_norm) {
  if (max_norm == 0) return 1;
  const double factor = max_norm / (norm + 1e-6);
  return factor > 1 ? 1 : factor;  // a NaN stays one
}

}  // namespace temper::trainer
