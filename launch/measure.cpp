#include "launch/measure.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include <ATen/ATen.h>

#include "parallel/communicator.h"
#include "trainer/ops/gemm.h"

namespace temper::launch {

namespace {

/// Median seconds of `repetitions` calls, after one that warms caches and pages.
template <typename Call>
double median_seconds(int repetitions, Call&& call) {
  call();
  std::vector<double> seconds;
  for (int i = 0; i < repetitions; ++i) {
    const auto start = std::chrono::steady_clock::now();
    call();
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::nth_element(seconds.begin(), seconds.begin() + repetitions / 2, seconds.end());
  return seconds[static_cast<size_t>(repetitions / 2)];
}

double product_flops(at::ScalarType type) {
  constexpr int64_t kSize = 2048;
  const at::Tensor a = at::ones({kSize, kSize}, type), b = at::ones({kSize, kSize}, type);
  at::Tensor product = at::empty({kSize, kSize}, type);
  // The library's product and our own: the peak is whatever is reached (MKL holds back on some CPUs).
  const double library = median_seconds(5, [&] { at::mm_out(product, a, b); });
  const double own = median_seconds(5, [&] { trainer::gemm(product, a, b); });
  return 2.0 * kSize * kSize * kSize / std::min(library, own);
}

}  // namespace

trainer::DevicePeak measure_cpu() {
  constexpr int64_t kCopyBytes = int64_t{256} << 20;
  const at::Tensor source = at::ones({kCopyBytes}, at::kByte);
  at::Tensor target = at::empty({kCopyBytes}, at::kByte);
  const double copy_seconds = median_seconds(5, [&] { target.copy_(source); });
  return {.fp32_flops = product_flops(at::kFloat),
          .bf16_flops = product_flops(at::kBFloat16),
          .copy_bytes_per_second = 2.0 * kCopyBytes / copy_seconds};
}

LinkRates measure_all_reduce(parallel::Communicator& communicator) {
  at::Tensor large = at::zeros({int64_t{16} << 20}, at::kFloat), one = at::zeros({1}, at::kFloat);
  const double large_seconds = median_seconds(5, [&] { communicator.all_reduce(large)->wait(); });
  const double one_seconds = median_seconds(50, [&] { communicator.all_reduce(one)->wait(); });
  return {.all_reduce_bytes_per_second = static_cast<double>(large.nbytes()) / large_seconds,
          .latency_seconds = one_seconds};
}

}  // namespace temper::launch
