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

HeadChunk head_chunk(const HeadSizes& sizes, bool on_device, int64_t element) {
  constexpr int64_t kBytes = int64_t{128} << 20;  // float32 logits that exist at once
  constexpr int64_t kLogit = sizeof(float), kLargest = 1024;
  constexpr int64_t kTile = 128;  // rows that a device's products compute together
  const int64_t count = std::max<int64_t>(sizes.count, 1);
  const int64_t fitting = kBytes / kLogit / (sizes.models * sizes.vocabulary);
  if (!on_device) {
    const int64_t rows = std::min(std::clamp<int64_t>(fitting, 64, kLargest), count);
    return {.rows = rows, .logits = rows};
  }
  const int64_t logits = std::clamp((fitting + kTile / 2) / kTile * kTile, kTile, kLargest);
  const int64_t rows = logits * 2 * sizes.models * kLogit / element;
  return {.rows = std::min(rows, count), .logits = std::min(logits, count)};
}

HeadMemory::HeadMemory(const at::Tensor& hidden, const HeadSizes& sizes, bool with_gradients) {
  const bool on_device = kernels_for(hidden) != nullptr;
  chunk_ = head_chunk(sizes, on_device, hidden.element_size());
  // There neither cuBLAS nor our own kernels read a row well that begins just anywhere.
  const int64_t stride = on_device ? (sizes.vocabulary + 7) / 8 * 8 : sizes.vocabulary;
  const auto empty = [&](int64_t rows, at::ScalarType type) {
    return at::empty({rows, stride}, hidden.options().dtype(type)).narrow(1, 0, sizes.vocabulary);
  };
  if (with_gradients) dlogits_ = empty(chunk_.rows, hidden.scalar_type());
  const bool in_place = with_gradients && hidden.scalar_type() == at::kFloat;
  for (int64_t model = 0; model < sizes.models; ++model) {
    logits_.push_back(in_place && model == 0 ? at::Tensor() : empty(chunk_.logits, at::kFloat));
  }
}

at::Tensor HeadMemory::logits(int64_t first, int64_t count, int64_t model) const {
  const at::Tensor& own = logits_[static_cast<size_t>(model)];
  return own.defined() ? own.narrow(0, 0, count) : dlogits(first, count);
}

at::Tensor HeadMemory::dlogits(int64_t first, int64_t count) const {
  return dlogits_.defined() ? dlogits_.narrow(0, first, count) : at::Tensor();
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
  h_ = low_rank_inner(*lora_, x_);
}

const TrainedRows* HeadProducts::rows() const {
  return head_.rows && head_.rows->context->enabled ? head_.rows.get() : nullptr;
}

void HeadProducts::logits_into(const at::Tensor& logits, int64_t first, double temperature) const {
  const int64_t count = logits.size(0);
  const at::Tensor x = x_.narrow(0, first, count);
  GemmOptions options{.weight = true};
  if (lora_) {
    options.a2 = h_.narrow(0, first, count);
    options.b2 = lora_->parts.front().b.t();
  }
  gemm(logits, x, head_.weight.t(), options);
  if (lora_ && lora_->parts.front().bias.defined()) {
    logits.add_(lora_->parts.front().bias.detach(), lora_->parts.front().scale);
  }
  if (rows()) {
    at::Tensor own = at::empty({count, rows()->ids.numel()}, logits.options());
    gemm(own, x, rows()->values.detach().t());
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
