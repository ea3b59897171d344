#include "trainer/ops/head_products.h"

#include <algorithm>
#include <string>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "recipes/diagnostic.h"
#include "trainer/ops/device.h"
#include "trainer/ops/dispatch.h"
#include "trainer/ops/gemm.h"
#include "trainer/ops/gradient.h"

namespace temper::trainer {

int64_t head_chunk(int64_t count, int64_t vocabulary) {
  constexpr int64_t kBytes = int64_t{128} << 20;  // float32 logits that exist at once
  const int64_t rows = kBytes / static_cast<int64_t>(sizeof(float)) / vocabulary;
  return std::min(std::clamp<int64_t>(rows, 64, 1024), std::max<int64_t>(count, 1));
}

std::vector<at::Tensor> head_leaves(const OutputHead& head) {
  TEMPER_CHECK(!head.rows || !head.low_rank, "a head has trained rows or LoRA, not both");
  std::vector<at::Tensor> leaves = {head.weight};
  if (head.rows) leaves.push_back(head.rows->values);
  if (head.low_rank) {
    leaves.push_back(head.low_rank->parts.front().a);
    leaves.push_back(head.low_rank->parts.front().b);
    if (head.low_rank->parts.front().bias.defined()) {
      leaves.push_back(head.low_rank->parts.front().bias);
    }
  }
  return leaves;
}

at::Tensor add_at(const at::Tensor& rows, const at::Tensor& positions, at::IntArrayRef shape) {
  constexpr int64_t kBlock = 64;
  const int64_t count = rows.size(0), dim = rows.size(1);
  at::Tensor sum = at::zeros(shape, rows.options().dtype(at::kFloat)).view({-1, dim});
  const at::Tensor wide = rows.to(at::kFloat);
  if (kernels_for(rows)) {
    add_at_rows(sum, positions, wide);
    return sum.view(shape).to(rows.scalar_type());
  }
  const int64_t* position = positions.const_data_ptr<int64_t>();
  const float* in = input<float>(wide);
  float* out = output<float>(sum);
  at::parallel_for(0, (dim + kBlock - 1) / kBlock, 1, [&](int64_t first, int64_t last) {
    const int64_t begin = first * kBlock, end = std::min(dim, last * kBlock);
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t c = begin; c < end; ++c) out[position[i] * dim + c] += in[i * dim + c];
    }
  });
  return sum.view(shape).to(rows.scalar_type());
}

HeadProducts::HeadProducts(const OutputHead& head, const at::Tensor& x, int64_t first)
    : head_(head), x_(x) {
  if (!head.low_rank || !head.low_rank->context->enabled) return;
  lora_ = *head.low_rank;
  lora_->parts.front().module += "/" + std::to_string(first);
}

const TrainedRows* HeadProducts::rows() const {
  return head_.rows && head_.rows->context->enabled ? head_.rows.get() : nullptr;
}

void HeadProducts::logits_into(const at::Tensor& logits, double temperature) {
  GemmOptions options{.weight = true};
  if (lora_) {
    h_ = low_rank_inner(*lora_, x_);
    options.a2 = h_;
    options.b2 = lora_->parts.front().b.t();
  }
  gemm(logits, x_, head_.weight.t(), options);
  if (lora_ && lora_->parts.front().bias.defined()) {
    logits.add_(lora_->parts.front().bias.detach(), lora_->parts.front().scale);
  }
  if (rows()) {
    at::Tensor own = at::empty({x_.size(0), rows()->ids.numel()}, logits.options());
    gemm(own, x_, rows()->values.detach().t());
    logits.index_copy_(1, rows()->ids, own);
  }
  if (temperature != 1.0) logits.div_(temperature);
}

void HeadProducts::gradients(const at::Tensor& dlogits, const at::Tensor& dx) {
  GemmOptions options;
  at::Tensor dh;
  if (lora_) {
    dh = low_rank_inner_gradient(*lora_, {dlogits.size(1)}, dlogits, h_);
    add_gradient_of_a(*lora_, x_, dh);
    if (!lora_->drops()) {
      options.a2 = dh;
      options.b2 = lora_->a;
    }
  }
  if (rows()) {
    // Trained rows have gradients of their own, and the weight's rows beneath take no part.
    options.a2 = dlogits.index_select(1, rows()->ids);
    options.b2 = rows()->values.detach();
    gemm(float32_gradient(rows()->values), options.a2.t(), x_, {.accumulate = true});
    dlogits.index_fill_(1, rows()->ids, 0);
  }
  gemm(dx, dlogits, head_.weight, options);
  if (dh.defined() && lora_->drops()) add_through_dropout(dx, *lora_, dh);
  if (head_.weight.requires_grad())
    gemm(float32_gradient(head_.weight), dlogits.t(), x_, {.accumulate = true});
}

}  // namespace temper::trainer
