#include "trainer/ops/cuda/kernels.h"

extern "C" const temper::trainer::cuda::Kernels* temper_cuda_kernels() {
  using namespace temper::trainer;
  static const cuda::Kernels kernels = {.rms_norm = cuda::rms_norm,
                                        .rms_norm_backward = cuda::rms_norm_backward,
                                        .norm_partials = cuda::norm_partials,
                                        .layer_norm = cuda::layer_norm,
                                        .layer_norm_backward = cuda::layer_norm_backward,
                                        .rope = cuda::rope,
                                        .swiglu = cuda::swiglu,
                                        .swiglu_backward = cuda::swiglu_backward,
                                        .gelu = cuda::gelu,
                                        .gelu_backward = cuda::gelu_backward,
                                        .dropout = cuda::dropout,
                                        .token_values = cuda::token_values,
                                        .token_gradient = cuda::token_gradient,
                                        .draw_tokens = cuda::draw_tokens,
                                        .to_float8 = cuda::to_float8,
                                        .attention = cuda::attention,
                                        .attention_backward = cuda::attention_backward,
                                        .store_in_pages = cuda::store_in_pages,
                                        .attention_in_pages = cuda::attention_in_pages,
                                        .dequantize = cuda::dequantize,
                                        .multiply = cuda::multiply,
                                        .adamw = cuda::adamw,
                                        .adamw_8bit = cuda::adamw_8bit,
                                        .sum_of_squares = cuda::sum_of_squares};
  return &kernels;
}
