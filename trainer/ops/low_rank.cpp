#include "trainer/ops/low_rank.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "parallel/seed.h"
#include "trainer/ops/dispatch.h"

namespace temper::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// SplitMix64 (Steele et al. 2014): a counter's bits, well mixed. Two elements share 64 of them.
uint64_t mixed(uint64_t z) {
  z += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

struct Dropout : torch::autograd::Function<Dropout> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, double p, int64_t seed) {
    ctx->saved_data["p"] = p;
    ctx->saved_data["seed"] = seed;
    return masked(x, p, static_cast<uint64_t>(seed));
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto seed = static_cast<uint64_t>(ctx->saved_data["seed"].toInt());
    return {masked(grads[0], ctx->saved_data["p"].toDouble(), seed), {}, {}};
  }
};

}  // namespace

uint64_t dropout_seed(const std::string& module, const AdapterContext& context) {
  return parallel::seed_of(static_cast<int64_t>(context.seed), "dropout/" + module);
}

at::Tensor masked(const at::Tensor& x, double p, uint64_t seed) {
  const at::Tensor from = x.contiguous();
  at::Tensor to = at::empty_like(from);
  const auto limit = static_cast<uint32_t>(p * 4294967296.0);
  const auto scale = static_cast<float>(1 / (1 - p));
  with_kernel_type(from.scalar_type(), [&](auto type) {
    using T = std::conditional_t<std::is_same_v<decltype(type), float>, float, at::BFloat16>;
    const T* in = from.const_data_ptr<T>();
    T* out = to.mutable_data_ptr<T>();
    const int64_t count = from.numel();
    at::parallel_for(0, (count + 1) / 2, 1 << 14, [&](int64_t begin, int64_t end) {
      for (int64_t pair = begin; pair < end; ++pair) {
        const uint64_t bits = mixed(seed + static_cast<uint64_t>(pair));
        for (int64_t i = 2 * pair; i < std::min(count, 2 * pair + 2); ++i) {
          const auto draw = static_cast<uint32_t>(bits >> (32 * (i & 1)));
          out[i] = draw < limit ? T(0.0F) : static_cast<T>(static_cast<float>(in[i]) * scale);
        }
      }
    });
  });
  return to;
}

at::Tensor adapter_dropout(const at::Tensor& x, double p, const std::string& module,
                           const AdapterContext& context) {
  if (p == 0 || !context.training) return x;
  return Dropout::apply(x, p, static_cast<int64_t>(dropout_seed(module, context)));
}

}  // namespace temper::trainer
