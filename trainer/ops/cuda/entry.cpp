#include "trainer/ops/cuda/kernels.h"

extern "C" const temper::trainer::cuda::Kernels* temper_cuda_kernels() {
  using namespace temper::trainer;
  static const cuda::Kernels kernels = {.dequantize = cuda::dequantize,
                                        .multiply = cuda::multiply,
                                        .adamw_8bit = cuda::adamw_8bit};
  return &kernels;
}
