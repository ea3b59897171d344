#include "launch/measure.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "parallel/communicator.h"
#include "trainer/ops/attention.h"
#include "trainer/ops/gemm.h"
#include "trainer/ops/head_cross_entropy.h"

namespace temper::launch {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Median seconds of `repetitions` calls, after one that warms caches and pages.
template <typename Call>
double median_seconds(int repetitions, Call&& call) {
  call();
  std::vector<double> seconds;
  for (int i = 0; i < repetitions; ++i) {
    const auto start = Clock::now();
    call();
    seconds.push_back(seconds_since(start));
  }
  std::nth_element(seconds.begin(), seconds.begin() + repetitions / 2, seconds.end());
  return seconds[static_cast<size_t>(repetitions / 2)];
}

constexpr double kEnoughSeconds = 0.02;  // of a call: nothing larger need be measured
constexpr double kMostSeconds = 0.05;    // of all calls, beyond three
constexpr double kSlowSeconds = 0.5;     // a call that takes so long is not made again

class Meter {
 public:
  explicit Meter(at::Device device) : device_(device) {}

  /// Seconds of the quickest of some calls: whatever else runs at the time only slows one.
  template <typename Call>
  double seconds_of(const Call& call) const {
    double least = once(call), all = 0;  // warms caches and pages
    if (least > kSlowSeconds) return least;
    for (int i = 0; i < 10 && (i < 3 || all < kMostSeconds); ++i) {
      const double seconds = once(call);
      least = std::min(least, seconds);
      all += seconds;
    }
    return least;
  }

  at::Tensor tensor(at::IntArrayRef shape, at::ScalarType type) const {
    // No constant, with which processors are quicker.
    const at::Tensor row = at::arange(shape.back(), at::kFloat).sin().mul(0.1).to(type);
    return row.to(device_).expand(shape).contiguous();
  }
  at::Device device() const { return device_; }

 private:
  template <typename Call>
  double once(const Call& call) const {
    synchronize();
    const auto start = Clock::now();
    call();
    synchronize();
    return seconds_since(start);
  }
  void synchronize() const {
    if (device_.is_cpu()) return;
    c10::impl::VirtualGuardImpl(device_.type()).synchronizeDevice(device_.index());
  }

  at::Device device_;
};

/// Rows of a product: what a micro-batch has at least, and enough to fill a GPU.
int64_t rows_on(at::Device device) { return device.is_cuda() ? 8192 : 2048; }

void measure_products(const Meter& meter, at::ScalarType type, trainer::TypeRates& rates) {
  const int64_t rows = rows_on(meter.device());
  for (size_t i = 0; i < trainer::kWidths.size(); ++i) {
    const int64_t width = trainer::kWidths[i];
    const double flops = 2.0 * static_cast<double>(rows * width * width);
    const at::Tensor x = meter.tensor({rows, width}, type), w = meter.tensor({width, width}, type);
    at::Tensor y = meter.tensor({rows, width}, type),
               sum = meter.tensor({width, width}, at::kFloat);
    const double forward = meter.seconds_of([&] { trainer::gemm(y, x, w.t()); });
    const double gradient =
        meter.seconds_of([&] { trainer::gemm(sum, y.t(), x, {.accumulate = true}); });
    rates.products[i] = flops / forward;
    rates.weight_gradients[i] = flops / gradient;
    rates.peak = std::max(rates.peak, flops / forward);
    // The library's product beside our own: the peak is whatever is reached (MKL holds back on some
    // CPUs).
    if (meter.device().is_cpu() && forward >= kEnoughSeconds) {
      rates.peak = std::max(rates.peak, flops / meter.seconds_of([&] { at::mm_out(y, x, w); }));
    }
    if (forward >= kEnoughSeconds) return;
  }
}

void measure_attention(const Meter& meter, at::ScalarType type, trainer::TypeRates& rates) {
  constexpr trainer::AttentionHeads kHeads = {.heads = 8, .kv_heads = 8, .head_dim = 64};
  constexpr int64_t kDim = kHeads.heads * kHeads.head_dim;
  double seconds = 0;
  for (int64_t tokens = 16; tokens <= 4096 && seconds < kEnoughSeconds; tokens *= 4) {
    const at::Tensor qkv = meter.tensor({tokens, 3 * kDim}, type).requires_grad_(true);
    const at::Tensor gradient = meter.tensor({tokens, kDim}, type);
    const auto documents =
        trainer::on_device({at::tensor({int64_t{0}, tokens}, at::kInt)}, meter.device());
    seconds = meter.seconds_of([&] {
      qkv.mutable_grad().reset();
      trainer::attention(qkv, documents, kHeads).backward(gradient);
    });
    const auto pairs = static_cast<double>(tokens * (tokens + 1) / 2);
    rates.attention = std::max(rates.attention, 12.0 * kDim * pairs / seconds);
  }
}

void measure_logits(const Meter& meter, at::ScalarType type, trainer::TypeRates& rates) {
  constexpr int64_t kVocabulary = 32000, kDim = 8;  // products of next to nothing
  const trainer::OutputHead head{.weight = meter.tensor({kVocabulary, kDim}, type)};
  double seconds = 0;
  for (int64_t rows = 4; rows <= 1024 && seconds < kEnoughSeconds; rows *= 4) {
    const at::Tensor hidden = meter.tensor({rows, kDim}, type).requires_grad_(true);
    const at::Tensor labels = at::zeros({rows}, at::kLong);
    seconds = meter.seconds_of([&] {
      trainer::head_cross_entropy(hidden, head, labels, trainer::TokenLoss::kNll).sum.backward();
    });
    rates.logits = std::max(rates.logits, static_cast<double>(rows * kVocabulary) / seconds);
  }
}

double copy_rate(const Meter& meter, int64_t bytes) {
  const at::Tensor source = at::ones({bytes}, at::TensorOptions(meter.device()).dtype(at::kByte));
  at::Tensor target = source.clone();  // its pages are there
  return 2.0 * static_cast<double>(bytes) / meter.seconds_of([&] { target.copy_(source); });
}

}  // namespace

trainer::DeviceRates measure_device(at::Device device) {
  const Meter meter(device);
  trainer::DeviceRates rates;
  const auto measure = [&](at::ScalarType type, trainer::TypeRates& of) {
    measure_products(meter, type, of);
    measure_attention(meter, type, of);
    measure_logits(meter, type, of);
  };
  measure(at::kFloat, rates.fp32);
  measure(at::kBFloat16, rates.bf16);
  if (!device.is_cpu()) {
    measure(at::kHalf, rates.fp16);
  } else {
    constexpr int64_t kSize = 256;
    const at::Tensor a = meter.tensor({kSize, kSize}, at::kHalf);
    at::Tensor product = at::empty_like(a);
    rates.fp16.peak =
        2.0 * kSize * kSize * kSize / meter.seconds_of([&] { at::mm_out(product, a, a); });
  }
  rates.copy_bytes_per_second = copy_rate(meter, int64_t{256} << 20);
  return rates;
}

double measure_product() {
  constexpr int64_t kSize = 1024;
  const at::Tensor a = at::ones({kSize, kSize}), b = at::ones({kSize, kSize});
  at::Tensor product = at::empty({kSize, kSize});
  return 2.0 * kSize * kSize * kSize / median_seconds(9, [&] { at::mm_out(product, a, b); });
}

double measure_copy() { return copy_rate(Meter(at::kCPU), int64_t{64} << 20); }

LinkTimes measure_link(parallel::Communicator& communicator, at::Device device) {
  constexpr int64_t kNumbers = kLinkBytes / static_cast<int64_t>(sizeof(float));
  const auto options = at::TensorOptions(device).dtype(at::kFloat);
  at::Tensor large = at::zeros({kNumbers}, options), one = at::zeros({1}, options);
  const int64_t part = kNumbers / communicator.size();
  at::Tensor parts = large.narrow(0, 0, part * communicator.size());
  const at::Tensor own = at::zeros({part}, options);
  LinkTimes times;
  times.latency_seconds = median_seconds(50, [&] { communicator.all_reduce(one)->wait(); });
  times.all_reduce_seconds = median_seconds(5, [&] { communicator.all_reduce(large)->wait(); });
  times.all_gather_seconds =
      median_seconds(5, [&] { communicator.all_gather(parts, own)->wait(); });
  return times;
}

}  // namespace temper::launch
