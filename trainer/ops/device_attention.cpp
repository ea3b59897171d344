#include "trainer/ops/device_attention.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "trainer/ops/device.h"
#include "trainer/ops/dispatch.h"
#include "trainer/ops/head_products.h"

namespace temper::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct State : torch::CustomClassHolder {
  AttentionHeads heads;
  at::Tensor ends, prefixes, seen, seen_ends;  // on the device
  int64_t longest = 0, longest_seen = 0;       // document
};

double scale_of(const AttentionHeads& heads) {
  return 1.0 / std::sqrt(static_cast<double>(heads.head_dim));
}

// Queries of qkv, [N, H, E], and the keys and values they see, [n, K, E]: of the same tokens, or of a
// prefix again for each document behind it.
struct Parts {
  at::Tensor queries, keys, values;
};
Parts parts_of(const at::Tensor& qkv, const State& state) {
  const AttentionHeads& h = state.heads;
  const at::Tensor all = qkv.view({qkv.size(0), h.heads + 2 * h.kv_heads, h.head_dim});
  at::Tensor seen = all.narrow(1, h.heads, 2 * h.kv_heads);
  if (state.seen.defined()) seen = seen.index_select(0, state.seen);
  return {all.narrow(1, 0, h.heads), seen.narrow(1, 0, h.kv_heads),
          seen.narrow(1, h.kv_heads, h.kv_heads)};
}

// How many keys before its own position a query of the flash kernel sees; none: all.
std::optional<int64_t> window_of(const AttentionHeads& heads) {
  return heads.window > 0 ? std::optional(heads.window - 1) : std::nullopt;
}

struct Flash : torch::autograd::Function<Flash> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& qkv,
                            const c10::intrusive_ptr<State>& state) {
    const AttentionHeads& h = state->heads;
    const Parts p = parts_of(qkv, *state);
    const auto window = window_of(h);
    auto [out, lse, random, unused, mask] = at::_flash_attention_forward(
        p.queries, p.keys, p.values, state->ends, state->seen_ends, state->longest,
        state->longest_seen, /*dropout_p=*/0.0, /*is_causal=*/true, /*return_debug_mask=*/false,
        scale_of(h), window, window ? std::optional<int64_t>(0) : std::nullopt);
    ctx->save_for_backward({qkv, out, lse, random, unused});
    ctx->saved_data["state"] = c10::IValue::make_capsule(state);
    return out.reshape({qkv.size(0), h.heads * h.head_dim});
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto state =
        c10::static_intrusive_pointer_cast<State>(ctx->saved_data["state"].toCapsule());
    const variable_list saved = ctx->get_saved_variables();
    const AttentionHeads& h = state->heads;
    const Parts p = parts_of(saved[0], *state);
    const auto window = window_of(h);
    const int64_t tokens = saved[0].size(0);
    const auto [dq, dk, dv] = at::_flash_attention_backward(
        grads[0].contiguous().view({tokens, h.heads, h.head_dim}), p.queries, p.keys, p.values,
        saved[1], saved[2], state->ends, state->seen_ends, state->longest, state->longest_seen,
        /*dropout_p=*/0.0, /*is_causal=*/true, saved[3], saved[4], scale_of(h), window,
        window ? std::optional<int64_t>(0) : std::nullopt);
    if (!state->seen.defined()) return {at::cat({dq, dk, dv}, 1).view(saved[0].sizes()), {}};
    const at::Tensor dseen = at::cat({dk, dv}, 1).flatten(1);
    const at::Tensor dkeys_values = add_at(dseen, state->seen, {tokens, dseen.size(1)});
    return {at::cat({dq.flatten(1), dkeys_values}, 1), {}};
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
  state->seen = there.device_seen;
  state->seen_ends = state->seen.defined() ? there.device_seen_ends : state->ends;
  const int32_t* ends = input<int32_t>(documents.ends);
  const int32_t* prefixes =
      documents.prefixes.defined() ? input<int32_t>(documents.prefixes) : nullptr;
  const auto length = [&](int64_t d) { return int64_t{ends[d + 1]} - ends[d]; };
  for (int64_t d = 0; d + 1 < documents.ends.numel(); ++d) {
    if (length(d) == 0) continue;
    const int64_t before = prefixes && prefixes[d] >= 0 ? length(prefixes[d]) : 0;
    state->longest = std::max(state->longest, length(d));
    state->longest_seen = std::max(state->longest_seen, before + length(d));
  }
  const bool flash =
      !qkv.is_cpu() && qkv.scalar_type() != at::kFloat && heads.head_dim % 8 == 0;
  return flash ? Flash::apply(qkv, state) : Own::apply(qkv, state);
}

}  // namespace temper::trainer
