// Compiled without contraction of products and sums (CMakeLists.txt).
#include "trainer/ops/cuda/kernels.h"
#include "trainer/ops/cuda/launch.h"

namespace temper::trainer::cuda {

namespace {

static_assert(kThreads == kElementsOf8Bits);

// A block of threads a block of moments, a thread an element.
__global__ void adamw_8bit_kernel(AdamW8bitView tensor, AdamWStep step) {
  __shared__ float of_warps[kThreads / kWarp];
  const int64_t i = thread_number();
  const bool mine = i < tensor.count;
  const Moments moments = mine ? update_element(tensor, step, i) : Moments{0, 0};
  const float m_peak = block_max(fabsf(moments.m), of_warps);
  const float v_peak = block_max(fabsf(moments.v), of_warps);
  if (mine) store_element(tensor, i, moments, m_peak, v_peak);
}

}  // namespace

int adamw_8bit(const AdamW8bitView& tensor, const AdamWStep& step, CUstream_st* stream) {
  return launch(adamw_8bit_kernel, blocks_of(tensor.count), stream, tensor, step);
}

}  // namespace temper::trainer::cuda
