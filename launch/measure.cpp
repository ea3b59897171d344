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
  // The library's product and our own: the peak is whatever is reached (MKL holds back on some
  // CPUs).
  const double library = median_seconds(5, [&] { at::mm_out(product, a, b); });
  const double own = median_seconds(5, [&] { trainer::gemm(product, a, b); });
  return 2.0 * kSize * kSize * kSize / std::min(library, own);
}

double copy_rate(int64_t bytes) {
  const at::Tensor source = at::ones({bytes}, at::kByte);
  at::Tensor target = at::empty({bytes}, at::kByte);
  return 2.0 * static_cast<double>(bytes) / median_seconds(5, [&] { target.copy_(source); });
}

}  // namespace

trainer::DevicePeak measure_cpu() {
  return {.fp32_flops = product_flops(at::kFloat),
          .bf16_flops = product_flops(at::kBFloat16),
          .copy_bytes_per_second = copy_rate(int64_t{256} << 20)};
}

double measure_product() {
  constexpr int64_t kSize = 1024;
  const at::Tensor a = at::ones({kSize, kSize}), b = at::ones({kSize, kSize});
  at::Tensor product = at::empty({kSize, kSize});
  return 2.0 * kSize * kSize * kSize / median_seconds(9, [&] { at::mm_out(product, a, b); });
}

double measure_copy() { return copy_rate(int64_t{64} << 20); }

LinkTimes measure_link(parallel::Communicator& communicator) {
  constexpr int64_t kNumbers = kLinkBytes / static_cast<int64_t>(sizeof(float));
  at::Tensor large = at::zeros({kNumbers}), one = at::zeros({1});
  const int64_t part = kNumbers / communicator.size();
  at::Tensor parts = large.narrow(0, 0, part * communicator.size());
  const at::Tensor own = at::zeros({part});
  LinkTimes times;
  times.latency_seconds = median_seconds(50, [&] { communicator.all_reduce(one)->wait(); });
  times.all_reduce_seconds = median_seconds(5, [&] { communicator.all_reduce(large)->wait(); });
  times.all_gather_seconds =
      median_seconds(5, [&] { communicator.all_gather(parts, own)->wait(); });
  return times;
}

}  // namespace temper::launch
