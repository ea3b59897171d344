// Quantised weights: how fast they are made, widened and multiplied with few rows.
//
//   quantized_bench [ROWS COLUMNS]     (4096 x 4096)
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "trainer/ops/quantized.h"

namespace {

using namespace temper::trainer;

double seconds(const std::function<void()>& work) {
  double best = 1e30;
  for (int i = 0; i < 7; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    best = std::min(
        best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return best;
}

void measure(const char* name, QuantKind kind, const at::Tensor& weight) {
  const double elements = static_cast<double>(weight.numel());
  QuantizedMatrix m;
  const double make = seconds([&] { m = quantize(weight, kind, kind != QuantKind::kInt8, "w"); });
  at::Tensor dense = at::empty_like(weight);
  const double widen = seconds([&] { dequantize_rows(m, 0, m.rows, dense); });
  std::printf("%s  quantise %.2f Gelement/s  dequantise %.2f Gelement/s (%.1f GB/s written)\n",
              name, elements / make * 1e-9, elements / widen * 1e-9, 2 * elements / widen * 1e-9);
  for (const int64_t rows : {1, 4, 16}) {
    const at::Tensor x = at::randn({rows, m.columns}).to(at::kBFloat16);
    at::Tensor y = at::empty({rows, m.rows}, at::kBFloat16);
    const double quantized = seconds([&] { multiply_quantized(y, x, m); });
    const double plain = seconds([&] { at::mm_out(y, x, dense.t()); });
    std::printf("%s  %2lld rows: %.0f us, bfloat16 weights %.0f us\n", name,
                static_cast<long long>(rows), quantized * 1e6, plain * 1e6);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t rows = argc > 2 ? std::atoll(argv[1]) : 4096;
  const int64_t columns = argc > 2 ? std::atoll(argv[2]) : 4096;
  const at::Tensor weight = (at::randn({rows, columns}) * 0.02).to(at::kBFloat16);
  std::printf("%lld x %lld bfloat16, %d threads\n", static_cast<long long>(rows),
              static_cast<long long>(columns), at::get_num_threads());
  measure("nf4 ", QuantKind::kNf4, weight);
  measure("int8", QuantKind::kInt8, weight);
  return 0;
}
