#include "trainer/ops/head_divergence.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "recipes/diagnostic.h"
#include "trainer/ops/device.h"
#include "trainer/ops/dispatch.h"
#include "trainer/ops/gradient.h"
#include "trainer/ops/head_products.h"
#include "trainer/ops/head_terms.h"

namespace temper::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct TokenValues {
  float divergence = 0, entropy = 0;
  bool correct = false;
};

// What forward needs besides tensors that autograd knows, and leaves to the caller.
struct Values : torch::CustomClassHolder {
  OutputHead head, teacher_head;
  DivergenceOptions options;
  std::vector<TokenValues> tokens;
  at::Tensor found;  // [3] float64 on a device: divergence, entropy, correct of all targets
};

// The loops of cpu/divergence.inl for rows of logits on a device, in LibTorch's operators. The
// gradient, times `scale`, goes to `out` unless that is undefined. Returns [3, n]: divergence, entropy, correct.
at::Tensor device_divergence(const at::Tensor& student, const at::Tensor& teacher,
                             const at::Tensor& labels, double beta, double scale,
                             const at::Tensor& out) {
  const at::Tensor log_s = at::log_softmax(student, 1), log_t = at::log_softmax(teacher, 1);
  const at::Tensor s = log_s.exp(), t = log_t.exp();
  const at::Tensor correct = student.argmax(1).eq(labels).to(at::kFloat);
  const at::Tensor entropy = (s * log_s).sum(1).neg_();
  at::Tensor divergence;
  if (beta == 0) {
    divergence = (t * (log_t - log_s)).sum(1);
    if (out.defined()) out.copy_((s - t).mul_(scale));
  } else {
    // KL(S || T) compares with T alone.
    const at::Tensor log_m =
        beta == 1 ? log_t : at::logaddexp(log_s + std::log1p(-beta), log_t + std::log(beta));
    const at::Tensor difference = log_s - log_m;
    const at::Tensor mean = (s * difference).sum(1, /*keepdim=*/true);
    divergence = beta == 1
                     ? mean.squeeze(1)
                     : (t * (log_t - log_m)).sum(1).mul_(beta).add_(mean.squeeze(1), 1 - beta);
    const double factor = beta == 1 ? scale : scale * (1 - beta);
    if (out.defined()) out.copy_((s * (difference - mean)).mul_(factor));
  }
  return at::stack({divergence, entropy, correct});
}

struct Function : torch::autograd::Function<Function> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& hidden, at::TensorList leaves,
                            const at::Tensor& teacher_hidden, const at::Tensor& positions,
                            const at::Tensor& labels, bool with_gradients,
                            const c10::intrusive_ptr<Values>& values) {
    const OutputHead& head = values->head;
    const int64_t vocabulary = head.weight.size(0), count = positions.numel();
    const at::Tensor rows = hidden.reshape({-1, hidden.size(-1)});
    const at::Tensor teacher_rows = teacher_hidden.reshape({-1, teacher_hidden.size(-1)});
    const int64_t* label = labels.const_data_ptr<int64_t>();
    at::Tensor dx =
        with_gradients ? at::empty({count, rows.size(1)}, rows.options()) : at::Tensor();

    const HeadMemory memory(hidden, {.count = count, .vocabulary = vocabulary, .models = 2},
                            with_gradients);
    const HeadChunk& chunk = memory.chunk();
    const auto beta = static_cast<float>(values->options.beta);
    const double temperature = values->options.temperature;
    const float loss_gradient = LossGradient::value();
    const double scale = loss_gradient / temperature;
    const bool on_device = kernels_for(hidden) != nullptr;
    if (!on_device) values->tokens.resize(static_cast<size_t>(count));
    const at::Tensor all_where = sent_to(hidden.device(), positions);
    const at::Tensor device_labels = on_device ? sent_to(hidden.device(), labels) : at::Tensor();
    std::vector<at::Tensor> chunks;
    for (int64_t begin = 0; begin < count; begin += chunk.rows) {
      const int64_t size = std::min(chunk.rows, count - begin);
      const at::Tensor where = all_where.narrow(0, begin, size);
      HeadProducts products(head, rows.index_select(0, where), begin);
      HeadProducts teacher(values->teacher_head, teacher_rows.index_select(0, where), begin);
      for (int64_t offset = 0; offset < size; offset += chunk.logits) {
        const int64_t part = std::min(chunk.logits, size - offset);
        const at::Tensor logits = memory.logits(offset, part);
        const at::Tensor teacher_logits = memory.logits(offset, part, 1);
        const at::Tensor dlogits = memory.dlogits(offset, part);
        products.logits_into(logits, offset, temperature);
        teacher.logits_into(teacher_logits, offset, temperature);
        if (on_device) {
          chunks.push_back(device_divergence(logits, teacher_logits,
                                             device_labels.narrow(0, begin + offset, part),
                                             values->options.beta, scale, dlogits));
          continue;
        }
        with_kernel_type(hidden.scalar_type(), [&](auto type) {
          using T = decltype(type);
          at::parallel_for(0, part, 1, [&](int64_t first, int64_t last) {
            for (int64_t r = first; r < last; ++r) {
              const int64_t i = begin + offset + r;
              float* own = output<float>(logits) + r * vocabulary;
              float* other = output<float>(teacher_logits) + r * vocabulary;
              const cpu::SoftmaxRow s = cpu::kernels().softmax_row(own, vocabulary);
              const cpu::SoftmaxRow t = cpu::kernels().softmax_row(other, vocabulary);
              T* out = with_gradients ? output<T>(dlogits) + r * vocabulary : nullptr;
              const float divergence =
                  cpu::row_kernels<T>().divergence(own, s, other, t, beta,
                                                   static_cast<float>(scale), out, vocabulary);
              values->tokens[static_cast<size_t>(i)] = {divergence, s.entropy,
                                                        s.argmax == label[i]};
            }
          });
        });
      }
      if (with_gradients) products.gradients(memory.dlogits(0, size), dx.narrow(0, begin, size));
    }
    if (with_gradients) {
      ctx->save_for_backward({add_at(dx, all_where, hidden.sizes())});
      ctx->saved_data["inputs"] = static_cast<int64_t>(6 + leaves.size());
      ctx->saved_data["scale"] = static_cast<double>(loss_gradient);
    }
    if (on_device) {
      values->found = chunks.empty() ? at::zeros({3}, hidden.options().dtype(at::kDouble))
                                     : at::cat(chunks, 1).sum(1, /*keepdim=*/false, at::kDouble);
      return values->found[0].to(at::kFloat);
    }
    double sum = 0;
    for (const TokenValues& token : values->tokens) sum += token.divergence;
    return at::scalar_tensor(sum, at::kFloat);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    // A device would have to be waited for.
    TEMPER_CHECK(!grads[0].is_cpu() ||
                     grads[0].item<double>() == ctx->saved_data["scale"].toDouble(),
                 "head_divergence's sum is differentiated with LossGradient's value");
    variable_list result(ctx->saved_data["inputs"].toInt());
    result[0] = ctx->get_saved_variables()[0];
    return result;
  }
};

}  // namespace

HeadTerms head_divergence_terms(const at::Tensor& hidden, const OutputHead& head,
                                const at::Tensor& teacher_hidden, const OutputHead& teacher_head,
                                const at::Tensor& positions, const at::Tensor& labels,
                                const DivergenceOptions& options) {
  TEMPER_CHECK(head.weight.size(0) == teacher_head.weight.size(0),
               "both models have one vocabulary");
  TEMPER_CHECK(positions.numel() == labels.numel(), "a label for each position");
  auto values = c10::make_intrusive<Values>();
  values->head = head;
  values->teacher_head = teacher_head;
  values->options = options;
  const std::vector<at::Tensor> leaves = head_leaves(head);
  const bool trained = std::any_of(leaves.begin(), leaves.end(),
                                   [](const at::Tensor& leaf) { return leaf.requires_grad(); });
  const bool with_gradients = at::GradMode::is_enabled() && (hidden.requires_grad() || trained);
  HeadTerms terms;
  terms.sum = Function::apply(hidden, at::TensorList(leaves), teacher_hidden, positions, labels,
                              with_gradients, values);
  values->head = values->teacher_head = {};  // the graph may live longer than they are needed
  if (values->found.defined()) {
    terms.entropy = values->found[1];
    terms.correct = values->found[2];
    return terms;
  }
  double correct = 0, entropy = 0;
  for (const TokenValues& token : values->tokens) {
    entropy += token.entropy;
    correct += token.correct ? 1 : 0;
  }
  terms.correct = at::scalar_tensor(correct, at::kDouble);
  terms.entropy = at::scalar_tensor(entropy, at::kDouble);
  return terms;
}

HeadDivergence head_divergence(const at::Tensor& hidden, const OutputHead& head,
                               const at::Tensor& teacher_hidden, const OutputHead& teacher_head,
                               const at::Tensor& positions, const at::Tensor& labels,
                               const DivergenceOptions& options) {
  const HeadTerms terms =
      head_divergence_terms(hidden, head, teacher_hidden, teacher_head, positions, labels, options);
  return {.sum = terms.sum.cpu(),
          .entropy = terms.entropy.item<double>(),
          .correct = terms.correct.item<double>()};
}

}  // namespace temper::trainer
