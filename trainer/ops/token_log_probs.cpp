#include "trainer/ops/token_log_probs.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "recipes/diagnostic.h"
#include "trainer/ops/device.h"
#include "trainer/ops/device_rows.h"
#include "trainer/ops/dispatch.h"
#include "trainer/ops/head_products.h"

namespace temper::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// What forward leaves to backward and to the caller besides tensors that autograd knows.
struct Values : torch::CustomClassHolder {
  OutputHead head;
  LogProbOptions options;
  at::Tensor log_sum_exp, mean_logits, correct, log_sum_squares;  // [n]
};

// log sum_v p_v^2 of a row.
float log_sum_squares(const float* logits, int64_t vocabulary, float log_sum_exp) {
  double sum = 0;
  for (int64_t v = 0; v < vocabulary; ++v) sum += std::exp(2 * (logits[v] - log_sum_exp));
  return static_cast<float>(std::log(sum));
}

struct Function : torch::autograd::Function<Function> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& hidden, at::TensorList leaves,
                               const at::Tensor& positions, const at::Tensor& labels,
                               const c10::intrusive_ptr<Values>& values) {
    const int64_t vocabulary = values->head.weight.size(0), count = labels.numel();
    const at::Tensor rows = hidden.reshape({-1, hidden.size(-1)});
    const auto floats = hidden.options().dtype(at::kFloat);
    at::Tensor log_probs = at::empty({count}, floats), entropy = at::empty({count}, floats);
    values->log_sum_exp = at::empty({count}, floats);
    values->mean_logits = at::empty({count}, floats);
    values->correct = at::empty({count}, floats);
    const bool squares = values->options.sum_of_squares;
    if (squares) values->log_sum_squares = at::empty({count}, floats);
    const double temperature = values->options.temperature;
    const int64_t* label = labels.const_data_ptr<int64_t>();
    const HeadMemory memory(hidden, {.count = count, .vocabulary = vocabulary},
                            /*with_gradients=*/false);
    const HeadChunk& chunk = memory.chunk();
    const bool on_device = kernels_for(hidden) != nullptr;
    const at::Tensor where = sent_to(hidden.device(), positions);
    const at::Tensor labels_there = sent_to(hidden.device(), labels);
    for (int64_t begin = 0; begin < count; begin += chunk.rows) {
      const int64_t size = std::min(chunk.rows, count - begin);
      HeadProducts products(values->head, rows.index_select(0, where.narrow(0, begin, size)), begin);
      for (int64_t offset = 0; offset < size; offset += chunk.logits) {
        const int64_t part = std::min(chunk.logits, size - offset), start = begin + offset;
        const at::Tensor logits = memory.logits(offset, part);
        products.logits_into(logits, offset, temperature);
        if (on_device) {
          const LabelRows found = label_rows(logits, labels_there.narrow(0, start, part));
          const auto keep = [&](const at::Tensor& all, const at::Tensor& of_part) {
            all.narrow(0, start, part).copy_(of_part);
          };
          keep(log_probs, found.log_prob);
          keep(entropy, found.entropy);
          keep(values->log_sum_exp, found.log_sum_exp);
          keep(values->mean_logits, found.mean * temperature);
          keep(values->correct, found.correct);
          if (squares) {
            keep(values->log_sum_squares,
                 at::logsumexp(2 * logits, 1).sub_(found.log_sum_exp, 2));
          }
          continue;
        }
        at::parallel_for(0, part, 1, [&](int64_t first, int64_t last) {
          for (int64_t r = first; r < last; ++r) {
            const float* row = input<float>(logits) + r * vocabulary;
            const cpu::SoftmaxRow softmax = cpu::kernels().softmax_row(row, vocabulary);
            const int64_t i = start + r;
            output<float>(log_probs)[i] = row[label[i]] - softmax.log_sum_exp;
            output<float>(entropy)[i] = softmax.entropy;
            output<float>(values->log_sum_exp)[i] = softmax.log_sum_exp;
            output<float>(values->mean_logits)[i] = softmax.mean * static_cast<float>(temperature);
            output<float>(values->correct)[i] = softmax.argmax == label[i] ? 1.0f : 0.0f;
            if (!squares) continue;
            output<float>(values->log_sum_squares)[i] =
                log_sum_squares(row, vocabulary, softmax.log_sum_exp);
          }
        });
      }
    }
    ctx->save_for_backward({hidden, where, labels_there, entropy});
    ctx->saved_data["values"] = at::IValue::make_capsule(values);
    ctx->saved_data["inputs"] = static_cast<int64_t>(4 + leaves.size());
    if (!values->options.entropy_gradient) ctx->mark_non_differentiable({entropy});
    return {log_probs, entropy};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const auto values = c10::static_intrusive_pointer_cast<Values>(ctx->saved_data["values"].toCapsule());
    const at::Tensor &hidden = saved[0], &positions = saved[1], &labels = saved[2],
                     &entropy = saved[3];
    const at::Tensor of_log_prob = grads[0].contiguous();
    const at::Tensor of_entropy =
        grads[1].defined() ? grads[1].contiguous() : at::zeros_like(of_log_prob);
    const bool on_device = kernels_for(hidden) != nullptr;
    // Targets without a gradient (clipped, masked, without an advantage) cost nothing. A device is not
    // asked which they are: it would have to be waited for. Masks of dropout are those of forward, where
    // a row is the same one.
    const std::shared_ptr<const LowRank>& lora = values->head.low_rank;
    const bool all = on_device || (lora && lora->drops());
    const at::Tensor taken = all ? at::arange(of_log_prob.numel(), positions.options())
                                 : of_log_prob.ne(0).logical_or(of_entropy.ne(0)).nonzero().squeeze(1);
    const at::Tensor where = positions.index_select(0, taken);
    const int64_t count = taken.numel(), vocabulary = values->head.weight.size(0);
    const double temperature = values->options.temperature;
    const at::Tensor dlog_prob = of_log_prob / temperature, dentropy = of_entropy / temperature;
    const at::Tensor rows = hidden.reshape({-1, hidden.size(-1)});
    at::Tensor dx = at::empty({count, rows.size(1)}, rows.options());
    const HeadMemory memory(hidden, {.count = count, .vocabulary = vocabulary},
                            /*with_gradients=*/true);
    const HeadChunk& chunk = memory.chunk();
    const int64_t* target = taken.const_data_ptr<int64_t>();
    const int64_t* label = labels.const_data_ptr<int64_t>();
    for (int64_t begin = 0; begin < count; begin += chunk.rows) {
      const int64_t size = std::min(chunk.rows, count - begin);
      HeadProducts products(values->head, rows.index_select(0, where.narrow(0, begin, size)), begin);
      for (int64_t offset = 0; offset < size; offset += chunk.logits) {
        const int64_t part = std::min(chunk.logits, size - offset), start = begin + offset;
        const at::Tensor logits = memory.logits(offset, part);
        const at::Tensor dlogits = memory.dlogits(offset, part);
        products.logits_into(logits, offset, temperature);
        if (on_device) {
          const auto of_part = [&](const at::Tensor& all) { return all.narrow(0, start, part); };
          label_gradient(logits, of_part(labels),
                         {.log_sum_exp = of_part(values->log_sum_exp),
                          .dlog_prob = of_part(dlog_prob),
                          .entropy = of_part(entropy),
                          .dentropy = of_part(dentropy)},
                         dlogits);
          continue;
        }
        with_kernel_type(hidden.scalar_type(), [&](auto type) {
          using T = decltype(type);
          at::parallel_for(0, part, 1, [&](int64_t first, int64_t last) {
            for (int64_t r = first; r < last; ++r) {
              const int64_t i = target[start + r];
              cpu::row_kernels<T>().log_prob_gradient(
                  input<float>(logits) + r * vocabulary, input<float>(values->log_sum_exp)[i],
                  input<float>(entropy)[i], label[i], input<float>(dlog_prob)[i],
                  input<float>(dentropy)[i], output<T>(dlogits) + r * vocabulary, vocabulary);
            }
          });
        });
      }
      products.gradients(memory.dlogits(0, size), dx.narrow(0, begin, size));
    }
    variable_list result(ctx->saved_data["inputs"].toInt());
    result[0] = add_at(dx, where, hidden.sizes());
    return result;
  }
};

}  // namespace

TokenLogProbs token_log_probs(const at::Tensor& hidden, const OutputHead& head,
                              const at::Tensor& positions, const at::Tensor& labels,
                              const LogProbOptions& options) {
  TEMPER_CHECK(positions.numel() == labels.numel() && options.temperature > 0,
               "a label for each position, and a temperature");
  auto values = c10::make_intrusive<Values>();
  values->head = head;
  values->options = options;
  const std::vector<at::Tensor> leaves = head_leaves(head);
  const variable_list outputs =
      Function::apply(hidden, at::TensorList(leaves), positions, labels, values);
  return {.log_probs = outputs[0],
          .entropy = outputs[1],
          .mean_logits = values->mean_logits,
          .correct = values->correct,
          .log_sum_squares = values->log_sum_squares};
}

}  // namespace temper::trainer
