#include <cmath>

#include <ATen/ATen.h>

#include "parallel/replicate/bucket_plan.h"
#include "recipes/diagnostic.h"
#include "trainer/ops/device.h"
#include "trainer/optimizers/blocks.h"
#include "trainer/optimizers/kernels.h"
#include "trainer/optimizers/optimizer.h"

namespace temper::trainer {

namespace {

static_assert(parallel::kSegmentAlignment == kBlockElements, "segments are whole blocks");
static_assert(cuda::kSquaresABlock == kBlockElements, "the same blocks everywhere");

int64_t blocks_of(const at::Tensor& tensor) {
  return (tensor.numel() + kBlockElements - 1) / kBlockElements;
}

std::vector<double> host_sums(const std::vector<at::Tensor>& tensors) {
  std::vector<int64_t> sizes;
  std::vector<const float*> data;
  int64_t blocks = 0;
  for (const at::Tensor& tensor : tensors) {
    sizes.push_back(tensor.numel());
    data.push_back(tensor.const_data_ptr<float>());
    blocks += blocks_of(tensor);
  }
  std::vector<double> sums(blocks);
  for_each_block(sizes, [&](size_t tensor, int64_t begin, int64_t count, int64_t block) {
    sums[block] = sum_of_squares(data[tensor] + begin, count);
  });
  return sums;
}

// They come to the host once.
std::vector<double> device_sums(const std::vector<at::Tensor>& tensors) {
  const at::Tensor& any = tensors.front();
  const cuda::Kernels& device = *kernels_for(any);
  int64_t blocks = 0;
  for (const at::Tensor& tensor : tensors) blocks += blocks_of(tensor);
  const at::Tensor sums = at::empty({blocks}, any.options().dtype(at::kDouble));
  double* next = sums.mutable_data_ptr<double>();
  for (const at::Tensor& tensor : tensors) {
    launch(tensor, device.sum_of_squares, tensor.const_data_ptr<float>(), tensor.numel(), next);
    next += blocks_of(tensor);
  }
  const at::Tensor here = sums.cpu();
  const double* first = here.const_data_ptr<double>();
  return {first, first + blocks};
}

// Sums of squares, one a block of each tensor in turn.
std::vector<double> block_sums(const std::vector<at::Tensor>& tensors) {
  for (const at::Tensor& tensor : tensors) {
    TEMPER_CHECK(tensor.device() == tensors.front().device() && tensor.is_contiguous() &&
                     tensor.scalar_type() == at::kFloat,
                 "gradients are contiguous float32 on one device");
  }
  const bool on_device = !tensors.empty() && kernels_for(tensors.front());
  return on_device ? device_sums(tensors) : host_sums(tensors);
}

}  // namespace

double global_norm(const std::vector<at::Tensor>& tensors) {
  double sum = 0;
  for (const double block : block_sums(tensors)) sum += block;
  return std::sqrt(sum);
}

double global_norm(const std::vector<at::Tensor>& segments, parallel::Communicator& group) {
  std::vector<double> sums = block_sums(segments);
  const auto own_blocks = static_cast<int64_t>(sums.size());
  const at::Tensor own = at::from_blob(sums.data(), {own_blocks}, at::kDouble);
  at::Tensor all = at::empty({group.size(), own_blocks}, at::kDouble);
  group.all_gather(all, own)->wait();
  // In the order of the whole tensors: a tensor's segments lie one after the other.
  const double* of_rank = all.const_data_ptr<double>();
  double sum = 0;
  for (const at::Tensor& segment : segments) {
    const int64_t blocks = blocks_of(segment);
    for (int64_t rank = 0; rank < group.size(); ++rank) {
      for (int64_t i = 0; i < blocks; ++i) sum += of_rank[rank * own_blocks + i];
    }
    of_rank += blocks;
  }
  return std::sqrt(sum);
}

double clip_factor(double norm, double max_norm) {
  if (max_norm == 0) return 1;
  const double factor = max_norm / (norm + 1e-6);
  return factor > 1 ? 1 : factor;  // a NaN stays one
}

}  // namespace temper::trainer
