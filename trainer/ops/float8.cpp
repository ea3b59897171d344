#include "trainer/ops/float8.h"

#include <utility>
#include <vector>

#include <ATen/ATen.h>

#include "recipes/diagnostic.h"
#include "trainer/ops/device.h"
#include "trainer/ops/gemm.h"

namespace temper::trainer {
namespace {

constexpr int64_t kMultiple = 16;  // of sizes that the hardware multiplies

thread_local bool without_float8 = false;

at::ScalarType format_of(Float8Role role, Float8Scaling scaling) {
  const bool wide = role == Float8Role::kGradient && scaling == Float8Scaling::kTensorwise;
  return wide ? at::kFloat8_e5m2 : at::kFloat8_e4m3fn;
}

Float8Matrix cast_on_device(const cuda::Kernels& device, const at::Tensor& matrix,
                            Float8Matrix result) {
  const bool transposed = matrix.stride(1) != 1;
  const at::Tensor stored = transposed ? matrix.t() : matrix;
  const at::Tensor amax = at::zeros_like(result.inverse_scales, at::kInt);
  const at::Tensor scales = at::empty_like(result.inverse_scales);
  launch(matrix, device.to_float8, element_of(matrix),
         cuda::Float8View{.from = stored.const_data_ptr(),
                          .stride = stored.stride(0),
                          .rows = stored.size(0),
                          .columns = stored.size(1),
                          .transposed = transposed,
                          .by_row = scales.dim() == 2,
                          .e5m2 = result.codes.scalar_type() == at::kFloat8_e5m2,
                          .amax = static_cast<uint32_t*>(amax.mutable_data_ptr()),
                          .scales = scales.mutable_data_ptr<float>(),
                          .inverse_scales = result.inverse_scales.mutable_data_ptr<float>(),
                          .codes = static_cast<uint8_t*>(result.codes.mutable_data_ptr()),
                          .padded = result.codes.size(1)});
  return result;
}

// At most `scales`, which are positive or NaN.
at::Tensor powers_of_two_below(const at::Tensor& scales) {
  constexpr auto kExponent = static_cast<int32_t>(0xff800000U);
  const at::Tensor powers = scales.view(at::kInt).bitwise_and(kExponent).view(at::kFloat);
  return at::where(scales.isnan(), scales, powers);
}

// Of the product of the codes alone: cuBLAS and CUTLASS take a [M, K] and b^T in column-major order.
at::Tensor multiplied(const Float8Matrix& a, const Float8Matrix& b, const at::Tensor& scale_a,
                      const at::Tensor& scale_b, at::ScalarType type, Float8Sums sums) {
  return at::_scaled_mm(a.codes, b.codes.t(), scale_a, scale_b, {}, {}, type,
                        sums == Float8Sums::kFast);
}

at::Tensor product_on_cuda(const Float8Matrix& a, const Float8Matrix& b, at::ScalarType type,
                           Float8Sums sums) {
  const bool by_row = a.inverse_scales.dim() == 2;
  if (!by_row) return multiplied(a, b, a.inverse_scales, b.inverse_scales, type, sums);
  if (sums == Float8Sums::kFast) {
    return multiplied(a, b, a.inverse_scales, b.inverse_scales.t(), at::kBFloat16, sums).to(type);
  }
  // The kernel with scales by row is slow where sums are precise; powers of two may as well come
  // afterwards.
  const at::Tensor one = at::ones({}, a.inverse_scales.options());
  return multiplied(a, b, one, one, type, sums).mul_(a.inverse_scales).mul_(b.inverse_scales.t());
}

at::Tensor product_in_bfloat16(const Float8Matrix& a, const Float8Matrix& b, at::ScalarType type) {
  at::Tensor product =
      at::empty({a.codes.size(0), b.codes.size(0)}, a.inverse_scales.options());
  gemm(product, a.codes.to(at::kBFloat16), b.codes.to(at::kBFloat16).t());
  const bool by_row = a.inverse_scales.dim() == 2;
  product.mul_(a.inverse_scales).mul_(by_row ? b.inverse_scales.t() : b.inverse_scales);
  return product.to(type);
}

}  // namespace

Float8Matrix to_float8(const at::Tensor& matrix, Float8Role role, Float8Scaling scaling) {
  const int64_t rows = matrix.size(0), columns = matrix.size(1);
  const int64_t padded = (columns + kMultiple - 1) / kMultiple * kMultiple;
  const bool by_row = scaling == Float8Scaling::kRowwise;
  const at::ScalarType format = format_of(role, scaling);
  const double largest = format == at::kFloat8_e5m2 ? 57344 : 448;
  const std::vector<int64_t> scales_shape =
      by_row ? std::vector<int64_t>{rows, 1} : std::vector<int64_t>{};
  Float8Matrix result{.codes = at::empty({rows, padded}, matrix.options().dtype(format)),
                      .inverse_scales = at::empty(scales_shape, matrix.options().dtype(at::kFloat))};
  if (const cuda::Kernels* device = kernels_for(matrix)) {
    return cast_on_device(*device, matrix, std::move(result));
  }
  const at::Tensor amax = by_row ? matrix.abs().amax(1, /*keepdim=*/true) : matrix.abs().amax();
  at::Tensor scales =
      amax.to(at::kDouble).clamp_min_(1e-12).reciprocal_().mul_(largest).to(at::kFloat);
  if (by_row) scales = powers_of_two_below(scales);
  at::reciprocal_out(result.inverse_scales, scales);
  if (padded > columns) result.codes.zero_();
  result.codes.narrow(1, 0, columns)
      .copy_(matrix.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true)
                 .mul_(scales)
                 .clamp_(-largest, largest));
  return result;
}

void float8_product(at::Tensor c, const Float8Matrix& a, const Float8Matrix& b, Float8Sums sums,
                    const at::Tensor& add) {
  TEMPER_CHECK(c.size(0) == a.codes.size(0) && c.size(1) == b.codes.size(0) &&
                   a.codes.size(1) == b.codes.size(1) &&
                   a.inverse_scales.dim() == b.inverse_scales.dim(),
               "float8_product: matrices do not fit");
  const at::Tensor product = c.is_cuda() ? product_on_cuda(a, b, c.scalar_type(), sums)
                                         : product_in_bfloat16(a, b, c.scalar_type());
  if (add.defined()) {
    at::add_out(c, add, product);
  } else {
    c.copy_(product);
  }
}

bool takes_float8(int64_t rows, int64_t columns) {
  return rows % kMultiple == 0 && columns % kMultiple == 0;
}

WithoutFloat8::WithoutFloat8() : before_(without_float8) { without_float8 = true; }
WithoutFloat8::~WithoutFloat8() { without_float8 = before_; }
bool WithoutFloat8::lives() { return without_float8; }

}  // namespace temper::trainer
