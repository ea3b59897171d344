#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "recipes/recipe.h"
#include "trainer/models/model.h"

namespace temper::trainer {

/// The budget of AdaLoRA (Zhang et al. 2023, arXiv:2303.10512), as in PEFT 0.21.2: which ranks of
/// all adapted layers together stay alive while the budget falls from init_r to target_r a layer.
/// The importance of a rank is that of its singular value plus the means over its two vectors;
/// importance of a number is its smoothed |w dw| times the smoothed deviation from that.
///
/// A training loop calls, each step, with whole (reduced, unsharded) gradients:
///     loss += allocator.regularize(count) / count;   // before norm, clip and update
///     optimizer.step(lr, scale);                     // scale = clip factor / count
///     allocator.step(step, scale);                   // before gradients are cleared
class RankAllocator {
 public:
  /// Finds the layers among `parameters` by name (lora_A, lora_E, lora_B). Throws UserError where
  /// tinit, tfinal and total_step leave no step for the budget to fall, or target_r is above
  /// init_r.
  RankAllocator(const recipes::Peft& peft, const std::vector<Parameter>& parameters);

  /// Adds `scale` times the gradient of orth_reg_weight times the mean over all A and B of
  /// ||A A^T - I||_F (B: B^T B) to the `.grad` of A and B. Returns `scale` times the term itself.
  double regularize(double scale);

  /// After update number `step` (from 1): importance from the new weights and this step's gradients
  /// times `gradient_scale`, then singular values that are over the budget become zero. A step that
  /// was skipped (train.on_nan) need not be told; the last cut is made up for at the next.
  void step(int64_t step, double gradient_scale);

  /// Ranks that may live after `step`, over all layers.
  int64_t budget(int64_t step) const;

  /// By name, float32, views that loading writes into: what a resumed run continues from.
  std::vector<std::pair<std::string, at::Tensor>> state();

 private:
  struct Smoothed {
    Parameter parameter;
    at::Tensor importance, uncertainty;  // float32, as the parameter
  };
  struct Layer {
    std::string name;
    Smoothed a, b, e;
    at::Tensor kept;  // float32 [R, 1]: 0 where the rank is masked
  };

  void smooth(Smoothed& smoothed, double gradient_scale) const;
  void mask_to_budget(int64_t budget);
  int64_t alive() const;  // ranks that are not masked
  void apply_mask();

  std::vector<Layer> layers_;
  double beta1_, beta2_, orthogonality_;
  int64_t first_, last_, every_;  // the budget falls after step `first` and is reached at `last`
  int64_t initial_ = 0, target_ = 0;
};

}  // namespace temper::trainer
