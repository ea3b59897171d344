// AdamW and the norm of gradients. Compiled without contraction of products and sums
// (CMakeLists.txt).
#include "trainer/ops/cuda/kernels.h"
#include "trainer/ops/cuda/launch.h"

namespace temper::trainer::cuda {

namespace {

__global__ void adamw_kernel(AdamWView tensor, AdamWStep step) {
  const int64_t i = thread_number();
  if (i < tensor.count) adamw_element(tensor, step, i);
}

// Squares in double precision: each thread's in order, then the threads' pairwise.
__global__ void sum_of_squares_kernel(const float* x, int64_t count, double* sums) {
  __shared__ double of_threads[kThreads];
  const int64_t begin = int64_t{blockIdx.x} * kSquaresABlock;
  const int64_t end = begin + kSquaresABlock < count ? begin + kSquaresABlock : count;
  double sum = 0;
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads)
    sum += static_cast<double>(x[i]) * x[i];
  of_threads[threadIdx.x] = sum;
  for (int width = kThreads / 2; width > 0; width /= 2) {
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < width)
      of_threads[threadIdx.x] += of_threads[threadIdx.x + width];
  }
  if (threadIdx.x == 0) sums[blockIdx.x] = of_threads[0];
}

}  // namespace

int adamw(const AdamWView& tensor, const AdamWStep& step, CUstream_st* stream) {
  return launch(adamw_kernel, blocks_of(tensor.count), stream, tensor, step);
}

int sum_of_squares(const float* x, int64_t count, double* sums, CUstream_st* stream) {
  return launch(sum_of_squares_kernel, (count + kSquaresABlock - 1) / kSquaresABlock, stream, x,
                count, sums);
}

}  // namespace temper::trainer::cuda
