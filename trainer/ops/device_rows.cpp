#include "trainer/ops/device_rows.h"

#include <ATen/ATen.h>

#include "trainer/ops/device.h"
#include "trainer/ops/dispatch.h"

namespace temper::trainer {

LabelRows label_rows(const at::Tensor& logits, const at::Tensor& labels) {
  TEMPER_CHECK(logits.stride(1) == 1 && labels.is_contiguous() && labels.size(0) == logits.size(0),
               "a label for each row of logits");
  const at::Tensor all = at::empty({5, logits.size(0)}, logits.options());
  LabelRows rows{.log_prob = all[0],
                 .entropy = all[1],
                 .log_sum_exp = all[2],
                 .mean = all[3],
                 .correct = all[4]};
  launch(logits, kernels_for(logits)->token_values,
         cuda::TokenRowsView{.logits = input<float>(logits),
                             .stride = logits.stride(0),
                             .labels = input<int64_t>(labels),
                             .log_prob = output<float>(rows.log_prob),
                             .entropy = output<float>(rows.entropy),
                             .log_sum_exp = output<float>(rows.log_sum_exp),
                             .mean = output<float>(rows.mean),
                             .correct = output<float>(rows.correct),
                             .rows = logits.size(0),
                             .vocabulary = logits.size(1)});
  return rows;
}

void label_gradient(const at::Tensor& logits, const at::Tensor& labels,
                    const LabelGradient& gradient, const at::Tensor& out) {
  TEMPER_CHECK(logits.stride(1) == 1 && out.stride(1) == 1 && out.sizes() == logits.sizes(),
               "the gradient has the shape of the logits");
  const bool of_entropy = gradient.dentropy.defined();
  launch(logits, kernels_for(logits)->token_gradient, element_of(out),
         cuda::TokenGradientView{.logits = input<float>(logits),
                                 .stride = logits.stride(0),
                                 .labels = input<int64_t>(labels),
                                 .log_sum_exp = input<float>(gradient.log_sum_exp),
                                 .entropy = of_entropy ? input<float>(gradient.entropy) : nullptr,
                                 .dlog_prob = input<float>(gradient.dlog_prob),
                                 .dentropy = of_entropy ? input<float>(gradient.dentropy) : nullptr,
                                 .out = out.mutable_data_ptr(),
                                 .stride_out = out.stride(0),
                                 .rows = logits.size(0),
                                 .vocabulary = logits.size(1)});
}

}  // namespace temper::trainer
