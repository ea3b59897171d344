#include "trainer/ops/low_rank.h"

#include <algorithm>
#include <numeric>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "parallel/seed.h"
#include "trainer/ops/device.h"
#include "trainer/ops/dispatch.h"
#include "trainer/ops/gemm.h"
#include "trainer/ops/gradient.h"

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

int64_t first_row(const std::vector<int64_t>& rows, size_t part) {
  return std::accumulate(rows.begin(), rows.begin() + static_cast<std::ptrdiff_t>(part),
                         int64_t{0});
}

at::Tensor LowRank::columns_of(const at::Tensor& h, size_t index) const {
  int64_t first = 0;
  for (size_t i = 0; i < index; ++i) first += parts[i].a.size(0);
  return h.narrow(1, first, parts[index].a.size(0));
}

uint64_t dropout_seed(const std::string& module, const AdapterContext& context) {
  return parallel::seed_of(static_cast<int64_t>(context.seed), "dropout/" + module);
}

at::Tensor masked(const at::Tensor& x, double p, uint64_t seed) {
  const at::Tensor from = x.contiguous();
  at::Tensor to = at::empty_like(from);
  const auto limit = static_cast<uint32_t>(p * 4294967296.0);
  const auto scale = static_cast<float>(1 / (1 - p));
  if (const cuda::Kernels* device = kernels_for(from)) {
    launch(from, device->dropout, element_of(from),
           cuda::DropoutView{.from = from.const_data_ptr(),
                             .to = to.mutable_data_ptr(),
                             .count = from.numel(),
                             .seed = seed,
                             .limit = limit,
                             .scale = scale});
    return to;
  }
  with_kernel_type(from.scalar_type(), [&](auto type) {
    using T = ScalarOf<decltype(type)>;
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

// Threads share out the columns.
void add_column_sums(const at::Tensor& dy, const at::Tensor& gradient) {
  if (kernels_for(dy)) {
    gradient.add_(dy.sum(0, /*keepdim=*/false, at::kFloat));
    return;
  }
  with_kernel_type(dy.scalar_type(), [&](auto type) {
    using T = decltype(type);
    at::parallel_for(0, dy.size(1), 64, [&](int64_t begin, int64_t end) {
      cpu::row_kernels<T>().column_sums(input<T>(dy) + begin, dy.stride(0),
                                        output<float>(gradient) + begin, dy.size(0), end - begin);
    });
  });
}

at::Tensor low_rank_inner(const LowRank& lora, const at::Tensor& x) {
  at::Tensor h = at::empty({x.size(0), lora.a.size(0)}, x.options());
  if (!lora.drops()) gemm(h, x, lora.a.t());
  for (size_t i = 0; i < lora.parts.size(); ++i) {
    const LowRankPart& part = lora.parts[i];
    at::Tensor own = lora.columns_of(h, i);
    if (lora.drops()) {
      gemm(own, masked(x, lora.dropout, dropout_seed(part.module, *lora.context)), part.a.t());
    }
    if (part.scale != 1) own.mul_(part.scale);
  }
  return h;
}

at::Tensor low_rank_inner_gradient(const LowRank& lora, const std::vector<int64_t>& rows,
                                   const at::Tensor& dy, const at::Tensor& h) {
  at::Tensor dh = at::empty({dy.size(0), lora.a.size(0)}, dy.options());
  for (size_t i = 0; i < lora.parts.size(); ++i) {
    const LowRankPart& part = lora.parts[i];
    const at::Tensor own_dy = dy.narrow(1, first_row(rows, part.part), rows[part.part]);
    at::Tensor own = lora.columns_of(dh, i);
    gemm(own, own_dy, part.b);
    if (part.scale != 1) own.mul_(part.scale);
    if (part.b.requires_grad()) {
      gemm(float32_gradient(part.b), own_dy.t(), lora.columns_of(h, i), {.accumulate = true});
    }
    if (part.bias.defined() && part.bias.requires_grad()) {
      const at::Tensor sums = at::zeros({own_dy.size(1)}, dy.options().dtype(at::kFloat));
      add_column_sums(own_dy, sums);
      float32_gradient(part.bias).add_(sums, part.scale);
    }
  }
  return dh;
}

// Computed as x^T dh, whose many rows the threads can share.
void add_gradient_of_a(const LowRank& lora, const at::Tensor& x, const at::Tensor& dh) {
  at::Tensor all;
  if (!lora.drops()) {
    all = at::empty({x.size(1), lora.a.size(0)}, x.options().dtype(at::kFloat));
    gemm(all, x.t(), dh);
  }
  for (size_t i = 0; i < lora.parts.size(); ++i) {
    const LowRankPart& part = lora.parts[i];
    if (!part.a.requires_grad()) continue;
    at::Tensor own;
    if (lora.drops()) {
      own = at::empty({x.size(1), part.a.size(0)}, x.options().dtype(at::kFloat));
      gemm(own, masked(x, lora.dropout, dropout_seed(part.module, *lora.context)).t(),
           lora.columns_of(dh, i));
    } else {
      own = lora.columns_of(all, i);
    }
    float32_gradient(part.a).add_(own.t());
  }
}

void add_through_dropout(at::Tensor dx, const LowRank& lora, const at::Tensor& dh) {
  at::Tensor back = at::empty_like(dx);
  for (size_t i = 0; i < lora.parts.size(); ++i) {
    gemm(back, lora.columns_of(dh, i), lora.parts[i].a);
    dx.add_(masked(back, lora.dropout, dropout_seed(lora.parts[i].module, *lora.context)));
  }
}

}  // namespace temper::trainer
