#include "trainer/adapters/loftq.h"

#include <ATen/ATen.h>

#include "trainer/ops/quantized.h"

namespace temper::trainer {

at::Tensor loftq_base(const at::Tensor& weight, const at::Tensor& taken_a,
                      const at::Tensor& taken_b, int64_t bits, const std::string& name) {
  const at::Tensor rest = (weight - at::mm(taken_b, taken_a)).cpu();
  const QuantKind kind = bits == 8 ? QuantKind::kInt8 : QuantKind::kNf4;
  return dequantize(quantize(rest, kind, /*double_quant=*/false, name), at::kFloat)
      .to(weight.device());
}

LoftqStart loftq_start(const at::Tensor& weight, int64_t rank, int64_t bits, int64_t iterations,
                       const std::string& name) {
  LoftqStart start;
  start.a = at::zeros({rank, weight.size(1)}, weight.options());
  start.b = at::zeros({weight.size(0), rank}, weight.options());
  for (int64_t i = 0; i < iterations; ++i) {
    start.taken_a = start.a;
    start.taken_b = start.b;
    const at::Tensor base = loftq_base(weight, start.taken_a, start.taken_b, bits, name);
    const auto [u, s, vh] = at::linalg_svd(weight - base, /*full_matrices=*/false);
    const at::Tensor root = s.narrow(0, 0, rank).sqrt();
    start.a = root.unsqueeze(1) * vh.narrow(0, 0, rank);
    start.b = u.narrow(1, 0, rank) * root;
  }
  return start;
}

}  // namespace temper::trainer
