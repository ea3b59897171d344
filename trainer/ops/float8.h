#pragma once

#include <ATen/core/Tensor.h>

/// Products of linear layers in float8, as torchao 0.17's recipes of these names compute them
/// (Float8LinearConfig.from_recipe_name; formats: Micikevicius et al. 2022, arXiv:2209.05433).
/// Nothing is kept from one product to the next. A matrix becomes codes q and a scale s,
///
///     s = max8 / max(amax, 1e-12)      in float64, then float32; amax the largest magnitude
///     q = float8(clamp(x s, -max8, max8))      x s in float32, to nearest, ties to even
///
/// with max8 = 448 (e4m3) or 57344 (e5m2), and a product is  c = (q_a q_b^T) / (s_a s_b).
///
///     tensorwise   one s a matrix; x and W are e4m3, dy is e5m2
///     rowwise      one s a row of q, that is for each row and column of c, rounded down to a power
///                  of two; all are e4m3. Where a product sums over the other dimension, scales are
///                  those of columns: dW = dy^T x has them over all tokens.
///
/// Codes are multiplied by cuBLAS or CUTLASS (LibTorch's _scaled_mm) on CUDA, elsewhere in bfloat16,
/// which holds them exactly, with float32 sums: a trial of the recipe, no faster.
namespace temper::trainer {

enum class Float8Scaling { kTensorwise, kRowwise };

/// What a matrix is in the products of a layer; it decides the format.
enum class Float8Role { kValue, kGradient };

/// Rows of K codes; K is made a multiple of 16 by zeros behind it.
struct Float8Matrix {
  at::Tensor codes;           // [R, K] float8, contiguous
  at::Tensor inverse_scales;  // 1 / s: float32 [] or [R, 1]
};

/// `matrix` [R, K] float32 or bfloat16, row-major or the transpose of that, not empty. NaN stays
/// NaN, and a matrix (row) with an infinity becomes NaN there.
Float8Matrix to_float8(const at::Tensor& matrix, Float8Role role, Float8Scaling scaling);

/// Which sums: forward's may be less precise on a device (use_fast_accum), as torchao has it.
enum class Float8Sums { kFast, kPrecise };

/// c = a b^T, or add + a b^T. c [M, N] and `add` are of one type, float32 or bfloat16, with
/// contiguous rows; a [M, K], b [N, K]. Rounded to c's type before it is added, on CUDA and with
/// scales by row in bfloat16 before that.
void float8_product(at::Tensor c, const Float8Matrix& a, const Float8Matrix& b, Float8Sums sums,
                    const at::Tensor& add = {});

/// Whether the hardware multiplies a layer of these sizes: both are multiples of 16.
bool takes_float8(int64_t rows, int64_t columns);

/// While one lives on this thread, linear() computes in x's type: decoding, whose few rows gain
/// nothing from weights that are cast for each token.
class WithoutFloat8 {
 public:
  WithoutFloat8();
  ~WithoutFloat8();
  WithoutFloat8(const WithoutFloat8&) = delete;
  WithoutFloat8& operator=(const WithoutFloat8&) = delete;

  static bool lives();

 private:
  bool before_;
};

}  // namespace temper::trainer
