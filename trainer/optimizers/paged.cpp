#include "trainer/optimizers/paged.h"

#include <string>

#include <ATen/ATen.h>

#include "parallel/plugin.h"
#include "recipes/diagnostic.h"
#include "trainer/ops/device.h"

namespace temper::trainer {

at::Tensor paged_zeros(at::IntArrayRef sizes, const at::TensorOptions& options) {
  const at::Device device = options.device();
  if (device.is_cpu()) return at::zeros(sizes, options);
  const parallel::CudaPlugin& plugin = parallel::cuda_plugin();
  const auto count = static_cast<size_t>(c10::multiply_integers(sizes));
  const size_t bytes = count * options.dtype().itemsize();
  void* const memory = plugin.allocate_unified(bytes);
  if (memory == nullptr) {
    throw RunError("CUDA: no " + std::to_string(bytes >> 20) +
                   " MiB of unified memory for the states of \"paged_adamw_8bit\"");
  }
  return at::from_blob(memory, sizes, plugin.free_unified, options, device).zero_();
}

void prefetch(const at::Tensor& paged) {
  if (paged.is_cpu()) return;
  parallel::cuda_plugin().prefetch_unified(paged.const_data_ptr(), paged.nbytes(),
                                           paged.device().index(), stream_of(paged));
}

}  // namespace temper::trainer
