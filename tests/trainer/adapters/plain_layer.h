#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include <ATen/ATen.h>

#include "trainer/adapters/adapter.h"
#include "trainer/adapters/methods.h"

/// The methods by name with PEFT's defaults, and a plain layer for them to sit on.
namespace temper::trainer {

using Builder = std::unique_ptr<LinearAdapter> (*)(const recipes::Peft&, const LinearSite&,
                                                   AdapterTensors&);
inline const std::map<std::string, Builder> kBuilders = {
    {"ia3", build_ia3}, {"loha", build_loha}, {"lokr", build_lokr},       {"vera", build_vera},
    {"oft", build_oft}, {"boft", build_boft}, {"adalora", build_adalora},
};

inline recipes::Peft resolved(const std::string& method) {
  recipes::Peft peft;
  peft.method = method;
  peft.r = method == "vera" ? 256 : method == "oft" ? 0 : 8;
  peft.feedforward_modules = std::vector<std::string>{};
  peft.init_ia3_weights = true;
  peft.alpha = 8;
  peft.rank_dropout = peft.module_dropout = 0.0;
  peft.init_weights = true;
  peft.decompose_both = peft.rank_dropout_scale = false;
  peft.decompose_factor = -1;
  peft.projection_prng_key = 0;
  peft.save_projection = true;
  peft.vera_dropout = 0.0;
  peft.d_initial = 0.1;
  peft.oft_block_size = 32;
  peft.num_cayley_neumann_terms = 5;
  peft.coft = peft.block_share = false;
  peft.use_cayley_neumann = true;
  peft.eps = 6e-5;
  peft.boft_block_size = 4;
  peft.boft_block_num = 0;
  peft.boft_n_butterfly_factor = 1;
  peft.boft_dropout = 0.0;
  peft.lora_alpha = 8;
  peft.lora_dropout = 0.0;
  peft.init_lora_weights = true;
  peft.init_r = 12;
  peft.target_r = 8;
  peft.tinit = peft.tfinal = 0;
  peft.deltaT = 1;
  peft.total_step = 100;
  peft.beta1 = peft.beta2 = 0.85;
  peft.orth_reg_weight = 0.5;
  return peft;
}

inline BaseLinear base_linear(const at::Tensor& weight, const at::Tensor& bias) {
  return {.product = [weight](const at::Tensor& x) { return at::matmul(x, weight.t()); },
          .weight = [weight] { return weight; },
          .bias = bias};
}

}  // namespace temper::trainer
