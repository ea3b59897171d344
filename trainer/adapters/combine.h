#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

/// Several LoRA adapters of one base model as one: PEFT's add_weighted_adapter. With each adapter's
/// delta W_i = s_i B_i A_i and weight w_i, the new one (scaling 1) is
///   cat          [B_1 B_2 ...] over [w_1 s_1 A_1; w_2 s_2 A_2; ...]: the weighted sum exactly, of
///                the sum of the ranks
///   svd          the best approximation of the weighted sum of the rank of the largest
///   linear       A = sum sign(w_i) sqrt|w_i s_i| A_i, B = sum sqrt|w_i s_i| B_i: cheap, rough
///   ties         linear on what TIES leaves of A_i and B_i (Yadav et al. 2023, arXiv:2306.01708):
///                the `density` largest entries, of those the ones of the sign that prevails in
///                sum, averaged over how many there are
///   dare_linear, dare_ties   the same, but each entry is kept with probability `density` and then
///                divided by it (DARE, Yu et al. 2024, arXiv:2311.03099)
/// Legend: D input features, N output features, R rank.
namespace temper::trainer {

/// A [R, D] and B [N, R], float32; of an embedding lora_embedding_A and lora_embedding_B.
struct LoraFactors {
  at::Tensor a;
  at::Tensor b;
  double scaling = 1.0;
};

/// By module.
using LoraModules = std::map<std::string, LoraFactors>;

struct Combination {
  std::string type = "svd";         // linear | cat | svd | ties | dare_linear | dare_ties
  std::optional<double> density{};  // above 0, at most 1; ties and dare_* need it
  uint64_t seed = 0;  // of dare_*; an entry's draw depends on nothing else but its place
};

struct CombinedLora {
  int64_t r = 0;  // of every module (missing rows and columns are zero); lora_alpha is the same
  LoraModules modules;  // those that any of the adapters has
};

/// A single adapter is combined linearly whatever `combination` says, as in PEFT. Throws UserError
/// for an unknown type, a density out of range, and ranks that differ where they must not.
CombinedLora combine_adapters(const std::vector<LoraModules>& adapters,
                              const std::vector<double>& weights, Combination combination);

}  // namespace temper::trainer
