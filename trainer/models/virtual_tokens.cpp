#include "trainer/models/virtual_tokens.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "trainer/ops/device.h"

namespace temper::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct InsertRows : torch::autograd::Function<InsertRows> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& rows,
                            const at::Tensor& tokens, const at::Tensor& virtual_tokens) {
    ctx->save_for_backward({tokens, virtual_tokens});
    ctx->saved_data["rows"] = rows.sizes().vec();
    const int64_t width = x.size(1), documents = virtual_tokens.numel() / rows.size(0);
    at::Tensor front = at::zeros({rows.size(0), width}, x.options());
    front.narrow(1, width - rows.size(1), rows.size(1)).copy_(rows);
    at::Tensor out = at::empty({tokens.numel() + virtual_tokens.numel(), width}, x.options());
    out.index_copy_(0, tokens, x);
    out.index_copy_(0, virtual_tokens, front.repeat({documents, 1}));
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const std::vector<int64_t> shape = ctx->saved_data["rows"].toIntVector();
    const at::Tensor& dy = grads[0];
    at::Tensor drows = at::zeros(shape, dy.options().dtype(at::kFloat));
    const at::Tensor front = dy.index_select(0, saved[1]);
    for (int64_t first = 0; first < front.size(0); first += shape[0]) {
      drows.add_(front.narrow(0, first, shape[0]).narrow(1, dy.size(1) - shape[1], shape[1]));
    }
    return {dy.index_select(0, saved[0]), drows, {}, {}};
  }
};

struct TakeTokens : torch::autograd::Function<TakeTokens> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& tokens) {
    ctx->save_for_backward({tokens});
    ctx->saved_data["rows"] = x.size(0);
    return x.index_select(0, tokens);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const at::Tensor& dy = grads[0];
    at::Tensor dx = at::zeros({ctx->saved_data["rows"].toInt(), dy.size(1)}, dy.options());
    dx.index_copy_(0, ctx->get_saved_variables()[0], dy);
    return {dx, {}};
  }
};

}  // namespace

Longer longer_batch(const at::Tensor& positions, const DocumentLayout& documents, int64_t n) {
  const int64_t count = documents.ends.numel() - 1, real = positions.numel();
  const int32_t* prefix =
      documents.prefixes.defined() ? documents.prefixes.const_data_ptr<int32_t>() : nullptr;
  const auto has_prefix = [&](int64_t d) { return prefix != nullptr && prefix[d] >= 0; };
  int64_t roots = 0;
  for (int64_t d = 0; d < count; ++d) roots += has_prefix(d) ? 0 : 1;
  Longer longer{.documents = {at::empty({count + 1}, at::kInt), documents.prefixes},
                .positions = at::empty({real + roots * n}, at::kLong),
                .tokens = at::empty({real}, at::kLong),
                .virtual_tokens = at::empty({roots * n}, at::kLong)};
  const int32_t* ends = documents.ends.const_data_ptr<int32_t>();
  const int64_t* position = positions.const_data_ptr<int64_t>();
  int32_t* longer_ends = longer.documents.ends.mutable_data_ptr<int32_t>();
  int64_t* longer_position = longer.positions.mutable_data_ptr<int64_t>();
  int64_t* token = longer.tokens.mutable_data_ptr<int64_t>();
  int64_t* virtual_token = longer.virtual_tokens.mutable_data_ptr<int64_t>();
  int64_t at = 0;
  longer_ends[0] = 0;
  for (int64_t d = 0; d < count; ++d) {
    for (int64_t i = 0; i < n && !has_prefix(d); ++i, ++at) {
      *virtual_token++ = at;
      longer_position[at] = i;
    }
    for (int32_t t = ends[d]; t < ends[d + 1]; ++t, ++at) {
      token[t] = at;
      longer_position[at] = position[t] + n;
    }
    longer_ends[d + 1] = static_cast<int32_t>(at);
  }
  return longer;
}

at::Tensor insert_rows(const at::Tensor& x, const at::Tensor& rows, const Longer& longer) {
  return InsertRows::apply(x, rows, sent_to(x.device(), longer.tokens),
                           sent_to(x.device(), longer.virtual_tokens));
}

at::Tensor take_tokens(const at::Tensor& x, const Longer& longer) {
  return TakeTokens::apply(x, sent_to(x.device(), longer.tokens));
}

}  // namespace temper::trainer
