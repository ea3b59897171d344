#pragma once

#include "trainer/adapters/adapter.h"

namespace temper::trainer {

/// LoRA (Hu et al. 2021, arXiv:2106.09685): y = W x + b + s B A dropout(x), s = lora_alpha / r, or
/// lora_alpha / sqrt(r) with use_rslora (arXiv:2312.03732).
/// DoRA (Liu et al. 2024, arXiv:2402.09353): y = (m / |W + s B A|) (W x + s B A x) + b, with the
/// norm of each row held constant in backward. Unless it is DoRA, the layer's own node computes it
/// (ops/linear.h) and part() is what goes there; forward() is DoRA's.
class Lora : public LinearAdapter {
 public:
  /// `stacked_a`: [R, D] rows of the projection's stacked A.
  Lora(const recipes::Peft& peft, const LinearSite& site, int64_t rank, const at::Tensor& stacked_a,
       AdapterTensors& tensors);

  at::Tensor forward(const at::Tensor& x, const BaseLinear& base,
                     const AdapterContext& context) const override;
  at::Tensor initialize(const BaseWeight& weight, uint64_t seed) override;
  void merge(at::Tensor& weight, at::Tensor& bias, at::ScalarType dtype) const override;

  LowRankPart part(size_t index) const;
  const Parameter& a() const { return a_; }
  const Parameter& b() const { return b_; }
  double scale() const { return scale_; }

  /// Of a start that changes the base: A and B that take part in making it (LoftQ's `taken`, else
  /// those of before step 1). What loading writes into them counts from then on.
  const at::Tensor& start_a() const { return start_a_; }
  const at::Tensor& start_b() const { return start_b_; }
  /// The base [N, D] float32 that such a start makes of the original weight.
  at::Tensor changed_base(const at::Tensor& original) const;

 private:
  at::Tensor delta() const;  // s B A [N, D] float32
  void initialize_decomposed(const at::Tensor& weight, const std::string& how, uint64_t seed);

  const recipes::Peft peft_;
  const LinearSite site_;
  const int64_t rank_;
  double scale_;
  Parameter a_, b_, bias_, magnitude_;
  at::Tensor start_a_, start_b_;
};

/// init_lora_weights = "loftq" (loftq.h): the base becomes a quantised one.
bool starts_quantised(const recipes::Peft& peft);

/// Rank of a site by peft.r and rank_pattern. Throws UserError above what the matrix has.
/// An adapter's directory may have more (combinations and converted PiSSA adapters do), and so may
/// what EVA has shared out.
int64_t lora_rank(const recipes::Peft& peft, const LinearSite& site, bool from_file);

/// s of a module, by peft.lora_alpha, alpha_pattern and alpha_fractions.
double lora_scale(const recipes::Peft& peft, const std::string& module, int64_t rank);

}  // namespace temper::trainer
