#pragma once

#include <string>
#include <type_traits>

#include <ATen/core/Tensor.h>

#include "recipes/diagnostic.h"
#include "trainer/ops/cpu/kernels.h"

/// From tensors to the kernels' plain pointers.
namespace temper::trainer {

/// Calls f(T{}) with T the kernels' type of `dtype`.
template <class F>
void with_kernel_type(at::ScalarType dtype, F&& f) {
  if (dtype == at::kFloat) return f(float{});
  if (dtype == at::kBFloat16) return f(cpu::Bf16{});
  TEMPER_CHECK(dtype == at::kHalf, std::string("no CPU kernels for ") + c10::toString(dtype));
  f(cpu::Fp16{});
}

/// LibTorch's type of the same bytes.
template <class T>
using ScalarOf =
    std::conditional_t<std::is_same_v<T, float>, float,
                       std::conditional_t<std::is_same_v<T, cpu::Bf16>, at::BFloat16, at::Half>>;

template <class T>
const T* input(const at::Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}
template <class T>
T* output(const at::Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

/// Rows of this many belong together in sums over rows: the order of a sum must not depend on the
/// number of threads.
inline constexpr int64_t kRowBlock = 64;

}  // namespace temper::trainer
