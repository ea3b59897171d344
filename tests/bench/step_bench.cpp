// One training step of a 58M-parameter Llama on synthetic data, against the rate of LibTorch's own
// matrix product.
//
//   step_bench [--dtype fp32|bf16] [--threads N] [--steps N] [--checkpointing none|full|selective]
//
// Prints the product's rate (median at::mm of 2048^3, same type, threads and process), tokens/s,
// the rate that the step's model FLOPs (6 a matmul weight + causal attention) come to, their ratio,
// and where the time goes.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "data/loader/batch.h"
#include "recipes/recipe.h"
#include "tests/bench/arguments.h"
#include "tests/bench/llama_58m.h"
#include "tests/bench/synthetic_batch.h"
#include "trainer/metrics/memory.h"
#include "trainer/models/model.h"
#include "trainer/ops/cpu_allocator.h"
#include "trainer/ops/head_cross_entropy.h"
#include "trainer/optimizers/optimizer.h"

namespace {

using namespace temper;
using namespace temper::trainer;

double seconds_of(const std::function<void()>& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<long>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

double gemm_rate(at::ScalarType dtype) {
  constexpr int64_t kSize = 2048;
  const at::Tensor a = at::randn({kSize, kSize}).to(dtype), b = at::randn({kSize, kSize}).to(dtype);
  at::Tensor c = at::mm(a, b);
  std::vector<double> seconds;
  for (int i = 0; i < 9; ++i) seconds.push_back(seconds_of([&] { at::mm_out(c, a, b); }));
  return 2.0 * kSize * kSize * kSize / median(seconds);
}

}  // namespace

int main(int count, char** arguments) {
  auto given = arguments_of(
      count, arguments,
      {{"--dtype", "fp32"}, {"--threads", "1"}, {"--steps", "5"}, {"--checkpointing", "none"}});
  at::set_num_threads(std::stoi(given["--threads"]));
  use_caching_cpu_allocator();
  const at::ScalarType dtype = given["--dtype"] == "bf16" ? at::kBFloat16 : at::kFloat;
  constexpr int64_t kRows = 8, kLength = 512;

  const ModelConfig config = llama_58m();
  const ModelOptions options{.compute = dtype,
                             .activation_checkpointing = given["--checkpointing"] == "full" ? 1
                                                         : given["--checkpointing"] == "selective"
                                                             ? 2
                                                             : 0};
  const auto model = build_model(config, options);
  draw_weights(*model, options, 1);
  recipes::Optimizer settings;
  settings.kind = "adamw";
  const auto optimizer = build_optimizer(settings, model->parameters());
  const data::Batch batch = synthetic_batch(kRows, kLength, config.vocab_size);
  const auto tokens = static_cast<double>(batch.input_tokens);

  std::map<std::string, std::vector<double>> parts;
  std::vector<double> steps, rates;
  double loss = 0;
  for (int step = 0; step <= std::stoi(given["--steps"]); ++step) {
    rates.push_back(
        gemm_rate(dtype));  // between the steps: the machine's clock and neighbours change
    std::map<std::string, double> seconds;
    at::Tensor hidden, sum;
    seconds["zero gradients"] = seconds_of([&] {
      for (Parameter& parameter : model->parameters()) {
        if (parameter.value.grad().defined()) parameter.value.mutable_grad().zero_();
      }
    });
    seconds["forward"] = seconds_of([&] { hidden = model->hidden(batch); });
    seconds["head and loss"] = seconds_of([&] {
      const HeadLoss head =
          head_cross_entropy(hidden, model->head(), batch.labels, TokenLoss::kNll);
      sum = head.sum;
    });
    seconds["backward"] = seconds_of([&] { sum.backward(); });
    seconds["optimizer"] = seconds_of([&] { optimizer->step(1e-4, 1.0 / tokens); });
    loss = sum.item<double>() / tokens;
    if (step == 0) continue;  // warms caches and makes kernels
    double whole = 0;
    for (const auto& [name, value] : seconds) {
      parts[name].push_back(value);
      whole += value;
    }
    steps.push_back(whole);
  }

  const double flops = training_flops_per_token(config, (kLength + 1) / 2.0);
  const double whole = median(steps);
  const double rate = median(rates);
  std::printf(
      "%s, %s threads: gemm %.1f GFLOP/s; step %.3f s, %.0f tokens/s, %.1f MFLOP/token, %.1f "
      "GFLOP/s = %.3f of the gemm; "
      "loss %.4f; peak %.0f MiB\n",
      given["--dtype"].c_str(), given["--threads"].c_str(), rate / 1e9, whole, tokens / whole,
      flops / 1e6, flops * tokens / whole / 1e9, flops * tokens / whole / rate, loss,
      peak_memory_mib());
  for (const auto& [name, values] : parts) {
    std::printf("  %-16s %.4f s  %4.1f %%\n", name.c_str(), median(values),
                100 * median(values) / whole);
  }
  return 0;
}
