// What stands in for LibTorch's flash attention, which is CUDA's alone: the same operators for the
// CPU, document by document, with all scores at once. Where a document has fewer queries than keys,
// the last query stands at the last key.
#include <algorithm>
#include <functional>
#include <limits>
#include <optional>
#include <tuple>

#include <ATen/ATen.h>
#include <torch/library.h>

namespace temper::emulator {

namespace {

using OptionalTensor = std::optional<at::Tensor>;

struct Sizes {
  int64_t max_q = 0, max_k = 0;
  float scale = 1;
  std::optional<int64_t> window;  // keys before the query's own
};

// Of one document, float32: queries [H, q, E]; keys and values [H, k, E], each for all the queries'
// heads that share it; scores [H, q, k], -inf where a query does not see a key.
struct Document {
  int64_t first_query = 0, first_key = 0;
  at::Tensor queries, keys, values, scores;

  // Its part of what there is of all queries, or keys: [n, heads, E], as [heads, its n, E].
  at::Tensor of_queries(const at::Tensor& all) const {
    return all.narrow(0, first_query, queries.size(1)).transpose(0, 1);
  }
  at::Tensor of_keys(const at::Tensor& all) const {
    return all.narrow(0, first_key, keys.size(1)).transpose(0, 1);
  }
};

void for_each_document(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                       const at::Tensor& ends_q, const at::Tensor& ends_k, const Sizes& sizes,
                       const std::function<void(const Document&)>& compute) {
  const auto last = [](const at::Tensor& ends) { return ends[-1].item<int64_t>(); };
  TORCH_CHECK(ends_q.scalar_type() == at::kInt && ends_k.scalar_type() == at::kInt &&
                  ends_q.sizes() == ends_k.sizes() && last(ends_q) == queries.size(0) &&
                  last(ends_k) == keys.size(0) && keys.sizes() == values.sizes(),
              "flash attention: documents that do not cover the tokens");
  TORCH_CHECK(queries.scalar_type() != at::kFloat && queries.size(2) % 8 == 0 &&
                  queries.stride(2) == 1 && keys.stride(2) == 1 && values.stride(2) == 1,
              "flash attention: a type or a head that CUDA's does not take");
  int64_t longest_q = 0, longest_k = 0;
  for (int64_t d = 0; d + 1 < ends_q.numel(); ++d) {
    Document document;
    document.first_query = ends_q[d].item<int64_t>();
    document.first_key = ends_k[d].item<int64_t>();
    const int64_t count_q = ends_q[d + 1].item<int64_t>() - document.first_query;
    const int64_t count_k = ends_k[d + 1].item<int64_t>() - document.first_key;
    longest_q = std::max(longest_q, count_q);
    longest_k = std::max(longest_k, count_k);
    if (count_q == 0) continue;
    const auto part = [&](const at::Tensor& all, int64_t first, int64_t count) {
      return all.narrow(0, first, count)
          .to(at::kFloat)
          .repeat_interleave(queries.size(1) / all.size(1), 1)
          .transpose(0, 1);
    };
    document.queries = part(queries, document.first_query, count_q);
    document.keys = part(keys, document.first_key, count_k);
    document.values = part(values, document.first_key, count_k);
    const at::Tensor at_key = at::arange(count_k);
    const at::Tensor at_query = at::arange(count_k - count_q, count_k).unsqueeze(1);
    at::Tensor unseen = at_key > at_query;
    if (sizes.window) unseen.logical_or_(at_key < at_query - *sizes.window);
    document.scores = at::bmm(document.queries, document.keys.transpose(1, 2))
                          .mul_(sizes.scale)
                          .masked_fill_(unseen, -std::numeric_limits<double>::infinity());
    compute(document);
  }
  TORCH_CHECK(longest_q <= sizes.max_q && longest_k <= sizes.max_k,
              "flash attention: a document is longer than was said");
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> forward(
    const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
    const OptionalTensor& ends_q, const OptionalTensor& ends_k, int64_t max_q, int64_t max_k,
    double dropout, bool causal, bool debug, std::optional<double> scale,
    std::optional<int64_t> window_left, std::optional<int64_t> window_right,
    const OptionalTensor& used, const OptionalTensor& slopes) {
  TORCH_CHECK(dropout == 0 && causal && !debug && window_right.value_or(0) == 0 && !used && !slopes,
              "flash attention: not emulated");
  at::Tensor out = at::zeros(queries.sizes(), queries.options());
  at::Tensor lse = at::zeros({queries.size(1), queries.size(0)}, out.options().dtype(at::kFloat));
  const Sizes sizes{max_q, max_k, static_cast<float>(scale.value()), window_left};
  for_each_document(queries, keys, values, *ends_q, *ends_k, sizes, [&](const Document& d) {
    d.of_queries(out).copy_(at::bmm(at::softmax(d.scores, 2), d.values));
    lse.narrow(1, d.first_query, d.queries.size(1)).copy_(at::logsumexp(d.scores, 2));
  });
  const at::Tensor none = at::empty({0}, lse.options());
  return {out, lse, none.clone(), none.clone(), none.clone()};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward(
    const at::Tensor& dout, const at::Tensor& queries, const at::Tensor& keys,
    const at::Tensor& values, const at::Tensor& out, const at::Tensor& lse,
    const at::Tensor& ends_q, const at::Tensor& ends_k, int64_t max_q, int64_t max_k, double, bool,
    const at::Tensor&, const at::Tensor&, std::optional<double> scale,
    std::optional<int64_t> window_left, std::optional<int64_t>) {
  at::Tensor dq = at::zeros(queries.sizes(), queries.options());
  at::Tensor dk = at::zeros(keys.sizes(), keys.options()), dv = at::zeros_like(dk);
  const Sizes sizes{max_q, max_k, static_cast<float>(scale.value()), window_left};
  for_each_document(queries, keys, values, ends_q, ends_k, sizes, [&](const Document& d) {
    const at::Tensor d_of = d.of_queries(dout).to(at::kFloat);
    const at::Tensor of_lse = lse.narrow(1, d.first_query, d.queries.size(1)).unsqueeze(2);
    const at::Tensor p = (d.scores - of_lse).exp();
    const at::Tensor delta = (d_of * d.of_queries(out)).sum(2, /*keepdim=*/true);
    const at::Tensor dscores =
        p * (at::bmm(d_of, d.values.transpose(1, 2)) - delta) * sizes.scale;
    d.of_queries(dq).copy_(at::bmm(dscores, d.keys));
    const auto over_group = [&](const at::Tensor& all) {  // [H, k, E] to [K, k, E]
      return all.view({keys.size(1), -1, all.size(1), all.size(2)}).sum(1);
    };
    d.of_keys(dk).copy_(over_group(at::bmm(dscores.transpose(1, 2), d.queries)));
    d.of_keys(dv).copy_(over_group(at::bmm(p.transpose(1, 2), d_of)));
  });
  return {dq, dk, dv};
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, CPU, library) {
  library.impl("_flash_attention_forward", &forward);
  library.impl("_flash_attention_backward", &backward);
}

}  // namespace temper::emulator
