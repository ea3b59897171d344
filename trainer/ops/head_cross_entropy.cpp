#include "trainer/ops/head_cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "recipes/diagnostic.h"
#include "trainer/ops/device.h"
#include "trainer/ops/device_rows.h"
#include "trainer/ops/dispatch.h"
#include "trainer/ops/gradient.h"
#include "trainer/ops/head_products.h"
#include "trainer/ops/head_terms.h"

namespace temper::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kIgnored = -100;

struct TokenValues {
  float loss = 0, entropy = 0;
  bool correct = false;
};

struct Values : torch::CustomClassHolder {
  OutputHead head;
  std::vector<TokenValues> tokens;
  at::Tensor found;  // [3] float64 on a device: loss, entropy, correct of all tokens
};

// Rows of logits on the device, chunk by chunk; what they say of their labels stays there.
class DeviceChunks {
 public:
  DeviceChunks(const at::Tensor& labels, at::Device device) : labels_(sent_to(device, labels)) {
    if (labels.is_cpu()) return;
    counted_ = labels_.ne(kIgnored).to(at::kFloat);
    labels_ = labels_.clamp_min(0);
  }

  // The gradient, times `scale`, goes to `dlogits`, unless that is undefined.
  void add(const at::Tensor& logits, int64_t begin, bool dft, float scale,
           const at::Tensor& dlogits) {
    const at::Tensor labels = labels_.narrow(0, begin, logits.size(0));
    const LabelRows rows = label_rows(logits, labels);
    if (dlogits.defined()) {
      const at::Tensor factor =
          dft ? rows.log_prob.exp().mul_(-scale) : at::full_like(rows.log_prob, -scale);
      if (counted_.defined()) factor.mul_(counted_.narrow(0, begin, logits.size(0)));
      label_gradient(logits, labels, {.log_sum_exp = rows.log_sum_exp, .dlog_prob = factor},
                     dlogits);
    }
    chunks_.push_back(at::stack({rows.log_prob, rows.entropy, rows.correct}));
  }

  // Loss, entropy and correct, summed over all tokens: [3] float64.
  at::Tensor sums(bool dft) const {
    if (chunks_.empty()) return at::zeros({3}, labels_.options().dtype(at::kDouble));
    const at::Tensor all = at::cat(chunks_, 1);
    if (counted_.defined()) all.mul_(counted_);
    const at::Tensor log_prob = all[0];
    log_prob.mul_(dft ? log_prob.exp().neg_() : at::full_like(log_prob, -1.0));
    return all.sum(1, /*keepdim=*/false, at::kDouble);
  }

 private:
  at::Tensor labels_;
  at::Tensor counted_;  // [n] 1, or 0 where there is no label; undefined: all are counted
  std::vector<at::Tensor> chunks_;
};

struct HeadCrossEntropy : torch::autograd::Function<HeadCrossEntropy> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& hidden, at::TensorList leaves,
                            const at::Tensor& labels, bool dft, bool with_gradients,
                            const c10::intrusive_ptr<Values>& values) {
    const OutputHead& head = values->head;
    const int64_t dim = hidden.size(-1), vocabulary = head.weight.size(0);
    const at::Tensor rows = hidden.reshape({-1, dim});
    const at::Tensor flat = labels.reshape({-1});
    // Labels that are on the device are not waited for: all rows are computed, whatever theirs are.
    const at::Tensor supervised =
        labels.is_cpu() ? flat.ne(kIgnored).nonzero().squeeze(1) : at::Tensor();
    const int64_t count = supervised.defined() ? supervised.numel() : rows.size(0);
    const bool all = count == rows.size(0);
    const at::Tensor where = all ? at::Tensor() : sent_to(hidden.device(), supervised);
    const at::Tensor x = all ? rows : rows.index_select(0, where);
    const at::Tensor targets = supervised.defined() ? flat.index_select(0, supervised) : flat;
    const int64_t* target = targets.const_data_ptr<int64_t>();
    at::Tensor dx = with_gradients ? at::empty_like(x) : at::Tensor();
    const float scale = LossGradient::value();

    const HeadMemory memory(hidden, {.count = count, .vocabulary = vocabulary}, with_gradients);
    const HeadChunk& chunk = memory.chunk();
    std::optional<DeviceChunks> device;
    if (kernels_for(hidden)) {
      device.emplace(targets, hidden.device());
    } else {
      values->tokens.resize(count);
    }
    for (int64_t begin = 0; begin < count; begin += chunk.rows) {
      const int64_t size = std::min(chunk.rows, count - begin);
      HeadProducts products(head, x.narrow(0, begin, size), begin);
      for (int64_t offset = 0; offset < size; offset += chunk.logits) {
        const int64_t part = std::min(chunk.logits, size - offset);
        const at::Tensor logits = memory.logits(offset, part);
        const at::Tensor dlogits = memory.dlogits(offset, part);
        products.logits_into(logits, offset);
        if (device) {
          device->add(logits, begin + offset, dft, scale, dlogits);
          continue;
        }
        with_kernel_type(hidden.scalar_type(), [&](auto type) {
          using T = decltype(type);
          at::parallel_for(0, part, 1, [&](int64_t first, int64_t last) {
            for (int64_t r = first; r < last; ++r) {
              const int64_t i = begin + offset + r;
              const float* row = input<float>(logits) + r * vocabulary;
              const int64_t label = target[i];
              const cpu::SoftmaxRow softmax = cpu::kernels().softmax_row(row, vocabulary);
              const float nll = softmax.log_sum_exp - row[label];
              const float factor = dft ? std::exp(-nll) : 1.0f;
              values->tokens[i] = {nll * factor, softmax.entropy, softmax.argmax == label};
              if (with_gradients) {
                cpu::row_kernels<T>().softmax_gradient(row, softmax.log_sum_exp, label,
                                                       factor * scale,
                                                       output<T>(dlogits) + r * vocabulary,
                                                       vocabulary);
              }
            }
          });
        });
      }
      if (with_gradients) products.gradients(memory.dlogits(0, size), dx.narrow(0, begin, size));
    }
    if (with_gradients) {
      if (!all) dx = at::zeros_like(rows).index_copy_(0, where, dx);
      ctx->save_for_backward({dx.view(hidden.sizes())});
      ctx->saved_data["inputs"] = static_cast<int64_t>(5 + leaves.size());
      ctx->saved_data["scale"] = static_cast<double>(scale);
    }
    if (device) {
      values->found = device->sums(dft);
      return values->found[0].to(at::kFloat);
    }
    double sum = 0;
    for (const TokenValues& token : values->tokens) sum += token.loss;
    return at::scalar_tensor(sum, at::kFloat);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    // A device would have to be waited for.
    TEMPER_CHECK(!grads[0].is_cpu() ||
                     grads[0].item<double>() == ctx->saved_data["scale"].toDouble(),
                 "head_cross_entropy's sum is differentiated with LossGradient's value");
    variable_list result(ctx->saved_data["inputs"].toInt());
    result[0] = ctx->get_saved_variables()[0];
    return result;
  }
};

}  // namespace

at::Tensor head_logits(const at::Tensor& hidden, const OutputHead& head) {
  // In hidden's own type: a row or two would not pay for a float32 copy of the weight.
  at::Tensor logits = at::empty({hidden.size(0), head.weight.size(0)}, hidden.options());
  HeadProducts(head, hidden.detach(), 0).logits_into(logits);
  return logits.to(at::kFloat);
}

HeadTerms head_cross_entropy_terms(const at::Tensor& hidden, const OutputHead& head,
                                   const at::Tensor& labels, TokenLoss kind) {
  auto values = c10::make_intrusive<Values>();
  values->head = head;
  const std::vector<at::Tensor> leaves = head_leaves(head);
  const bool trained = std::any_of(leaves.begin(), leaves.end(),
                                   [](const at::Tensor& leaf) { return leaf.requires_grad(); });
  const bool with_gradients = at::GradMode::is_enabled() && (hidden.requires_grad() || trained);
  HeadTerms terms;
  terms.sum = HeadCrossEntropy::apply(hidden, at::TensorList(leaves), labels,
                                      kind == TokenLoss::kDft, with_gradients, values);
  values->head = {};  // the graph may live longer than it is needed
  if (values->found.defined()) {
    terms.entropy = values->found[1];
    terms.correct = values->found[2];
    return terms;
  }
  double correct = 0, entropy = 0;
  for (const TokenValues& token : values->tokens) {
    correct += token.correct ? 1 : 0;
    entropy += token.entropy;
  }
  terms.correct = at::scalar_tensor(correct, at::kDouble);
  terms.entropy = at::scalar_tensor(entropy, at::kDouble);
  return terms;
}

HeadLoss head_cross_entropy(const at::Tensor& hidden, const OutputHead& head,
                            const at::Tensor& labels, TokenLoss kind) {
  const HeadTerms terms = head_cross_entropy_terms(hidden, head, labels, kind);
  return {.sum = terms.sum.cpu(),
          .correct = terms.correct.item<double>(),
          .entropy = terms.entropy.item<double>()};
}

}  // namespace temper::trainer
