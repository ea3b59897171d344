#include "trainer/ops/device_attention.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "trainer/ops/device.h"
#include "trainer/ops/dispatch.h"

namespace temper::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct State : torch::CustomClassHolder {
  AttentionHeads heads;
  at::Tensor ends, prefixes;  // on the device
  int64_t longest = 0;        // document
};

double scale_of(const AttentionHeads& heads) {
  return 1.0 / std::sqrt(static_cast<double>(heads.head_dim));
}

// Queries, keys and values of qkv, [N, heads, E] views.
struct Parts {
  at::Tensor queries, keys, values;
};
Parts parts_of(const at::Tensor& qkv, const AttentionHeads& h) {
  const at::Tensor all = qkv.view({qkv.size(0), h.heads + 2 * h.kv_heads, h.head_dim});
  return {all.narrow(1, 0, h.heads), all.narrow(1, h.heads, h.kv_heads),
          all.narrow(1, h.heads + h.kv_heads, h.kv_heads)};
}

// How many keys before its own position a query of the flash kernel sees; none: all.
std::optional<int64_t> window_of(const AttentionHeads& heads) {
  return heads.window > 0 ? std::optional(heads.window - 1) : std::nullopt;
}

struct Flash : torch::autograd::Function<Flash> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& qkv,
                            const c10::intrusive_ptr<State>& state) {
    const AttentionHeads& h = state->heads;
    const Parts p = parts_of(qkv, h);
    const auto window = window_of(h);
    auto [out, lse, random, unused, mask] = at::_flash_attention_forward(
        p.queries, p.keys, p.values, state->ends, state->ends, state->longest, state->longest,
        /*dropout_p=*/0.0, /*is_causal=*/true, /*return_debug_mask=*/false, scale_of(h), window,
        window ? std::optional<int64_t>(0) : std::nullopt);
    ctx->save_for_backward({qkv, out, lse, random, unused});
    ctx->saved_data["state"] = c10::IValue::make_capsule(state);
    return out.reshape({qkv.size(0), h.heads * h.head_dim});
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto state =
        c10::static_intrusive_pointer_cast<State>(ctx->saved_data["state"].toCapsule());
    const variable_list saved = ctx->get_saved_variables();
    const AttentionHeads& h = state->heads;
    const Parts p = parts_of(saved[0], h);
    const auto window = window_of(h);
    const auto [dq, dk, dv] = at::_flash_attention_backward(
        grads[0].contiguous().view({saved[0].size(0), h.heads, h.head_dim}), p.queries, p.keys,
        p.values, saved[1], saved[2], state->ends, state->ends, state->longest, state->longest,
        /*dropout_p=*/0.0, /*is_causal=*/true, saved[3], saved[4], scale_of(h), window,
        window ? std::optional<int64_t>(0) : std::nullopt);
    return {at::cat({dq, dk, dv}, 1).view(saved[0].sizes()), {}};
  }
};

struct Own : torch::autograd::Function<Own> {
  static cuda::AttentionView view_of(const at::Tensor& qkv, const State& state,
                                     const at::Tensor& out, const at::Tensor& lse) {
    const AttentionHeads& h = state.heads;
    return {.qkv = qkv.const_data_ptr(),
            .stride = qkv.size(1),
            .tokens = qkv.size(0),
            .heads = h.heads,
            .kv_heads = h.kv_heads,
            .dim = h.head_dim,
            .window = h.window,
            .scale = static_cast<float>(scale_of(h)),
            .ends = input<int32_t>(state.ends),
            .prefixes = state.prefixes.defined() ? input<int32_t>(state.prefixes) : nullptr,
            .documents = state.ends.numel() - 1,
            .out = out.data_ptr(),
            .lse = lse.data_ptr<float>()};
  }

  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& qkv,
                            const c10::intrusive_ptr<State>& state) {
    const AttentionHeads& h = state->heads;
    at::Tensor out = at::empty({qkv.size(0), h.heads * h.head_dim}, qkv.options());
    at::Tensor lse = at::empty({h.heads, qkv.size(0)}, qkv.options().dtype(at::kFloat));
    launch(qkv, kernels_for(qkv)->attention, element_of(qkv), view_of(qkv, *state, out, lse));
    ctx->save_for_backward({qkv, out, lse});
    ctx->saved_data["state"] = c10::IValue::make_capsule(state);
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto state =
        c10::static_intrusive_pointer_cast<State>(ctx->saved_data["state"].toCapsule());
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &qkv = saved[0], &out = saved[1], &lse = saved[2];
    const at::Tensor dout = grads[0].contiguous();
    at::Tensor dqkv = at::empty_like(qkv), delta = at::empty_like(lse);
    launch(qkv, kernels_for(qkv)->attention_backward, element_of(qkv),
           cuda::AttentionBackwardView{.forward = view_of(qkv, *state, out, lse),
                                       .dout = dout.const_data_ptr(),
                                       .dqkv = dqkv.mutable_data_ptr(),
                                       .delta = output<float>(delta)});
    return {dqkv, {}};
  }
};

}  // namespace

at::Tensor device_attention(const at::Tensor& qkv, const DocumentLayout& documents,
                            const AttentionHeads& heads) {
  TEMPER_CHECK(
      qkv.is_contiguous() && qkv.size(1) == (heads.heads + 2 * heads.kv_heads) * heads.head_dim,
      "attention takes a contiguous qkv");
  TEMPER_CHECK(heads.head_dim <= cuda::kLargestHead, "heads of at most 256 features on a device");
  auto state = c10::make_intrusive<State>();
  state->heads = heads;
  const DocumentLayout there = on_device(documents, qkv.device());
  state->ends = there.device_ends;
  state->prefixes = there.device_prefixes;
  const int32_t* ends = input<int32_t>(documents.ends);
  for (int64_t d = 0; d + 1 < documents.ends.numel(); ++d)
    state->longest = std::max<int64_t>(state->longest, ends[d + 1] - ends[d]);
  const bool flash = qkv.is_cuda() && qkv.scalar_type() != at::kFloat && heads.head_dim % 8 == 0 &&
                     !documents.prefixes.defined();
  return flash ? Flash::apply(qkv, state) : Own::apply(qkv, state);
}

}  // namespace temper::trainer
