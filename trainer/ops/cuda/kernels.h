#pragma once

#include "trainer/ops/cuda/adamw_8bit_math.h"
#include "trainer/ops/cuda/quantized_math.h"

struct CUstream_st;

/// Launches on a stream; all pointers are the device's, nothing is checked here and nothing is
/// waited for. Each returns cudaGetLastError() as an int, 0 for success. (Written against the CPU's
/// kernels element by element; not yet run on a GPU.)
namespace temper::trainer::cuda {

enum class Element { kFloat32, kBfloat16 };

/// Elements begin..end of the flat matrix to `out`.
int dequantize(const QuantizedView& matrix, int64_t begin, int64_t end, Element type, void* out,
               CUstream_st* stream);

/// y [rows, N] = x [rows, D] W^T for 1 to 16 rows, sums in float32; rows of x and y are `stride_x`
/// and `stride_y` elements apart.
int multiply(const QuantizedView& matrix, Element type, const void* x, int64_t stride_x,
             int64_t rows, void* y, int64_t stride_y, CUstream_st* stream);

/// One step of 8-bit AdamW on one tensor.
int adamw_8bit(const AdamW8bitView& tensor, const AdamWStep& step, CUstream_st* stream);

/// What the plugin (parallel/plugin.h) gives of these, through one C function.
struct Kernels {
  decltype(&cuda::dequantize) dequantize;
  decltype(&cuda::multiply) multiply;
  decltype(&cuda::adamw_8bit) adamw_8bit;
};
using KernelsFunction = const Kernels*();
constexpr const char* kKernelsSymbol = "temper_cuda_kernels";

}  // namespace temper::trainer::cuda
