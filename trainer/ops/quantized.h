#pragma once

#include <cstdint>
#include <string>

#include <ATen/core/Tensor.h>

/// Weights in 4 or 8 bits, bit for bit as bitsandbytes 0.50.2 makes and reads them on the CPU
/// (Dettmers et al. 2023, arXiv:2305.14314; Dettmers et al. 2022, arXiv:2208.07339). One exception:
/// where columns are a multiple of 16 but not of 64, its AVX-512 dequantisation takes the wrong
/// blocks' scales; here they are the right ones, as in its other code and on CUDA.
namespace temper::trainer {

enum class QuantKind { kNf4, kFp4, kInt8 };

/// A frozen matrix [N, D]. 4 bits: codes of row-major blocks of 64 elements that ignore rows, byte
/// k holds element 2k in its high half; a block's scale is its largest magnitude. 8 bits: one scale
/// a row, w = q scale / 127, of the weights rounded to float16 (as Linear8bitLt does).
struct QuantizedMatrix {
  QuantKind kind = QuantKind::kNf4;
  int64_t rows = 0, columns = 0;
  at::Tensor codes{};   // uint8 [ceil(N D / 2), 1]; int8: [N, D] int8
  at::Tensor absmax{};  // float32 [blocks] (int8: [N]); undefined with double quantisation
  // Double quantisation: absmax = code[absmax_codes] * nested_absmax + offset.
  at::Tensor absmax_codes{};   // uint8 [blocks]
  at::Tensor nested_absmax{};  // float32 [ceil(blocks / 256)]
  float offset = 0;
  at::ScalarType stored = at::kBFloat16;  // the dtype that the full matrix had

  bool defined() const { return codes.defined(); }
  int64_t bytes() const;
};

/// `weight` [N, D] float32, bfloat16 or float16, finite. `double_quant` is for 4 bits alone.
/// Throws UserError naming `name` when a value is NaN or infinite (8 bits: or above 65504) or too
/// large for double quantisation. All
/// threads; the same bits with any number of them.
QuantizedMatrix quantize(const at::Tensor& weight, QuantKind kind, bool double_quant,
                         const std::string& name);

/// The rows begin..end of the matrix into `out` [end - begin, D], contiguous, of any of these types
/// (products in float32, one rounding). All threads.
void dequantize_rows(const QuantizedMatrix& matrix, int64_t begin, int64_t end, at::Tensor out);
/// The whole matrix.
at::Tensor dequantize(const QuantizedMatrix& matrix, at::ScalarType dtype);

/// y [M, N] = x [M, D] W^T for few rows (M <= 16: decoding), without a copy of W: blocks are
/// dequantised in registers, rounded to x's type as dequantize() does. x and y of one type,
/// sums float32 in an order of their own (a row's result depends neither on the others nor on
/// threads). Rows of x and y may be apart.
void multiply_quantized(at::Tensor y, const at::Tensor& x, const QuantizedMatrix& matrix);

/// The sixteen values of 4-bit codes (stored beside them as `quant_map`).
const float* values_of_4bit(QuantKind kind);

}  // namespace temper::trainer
