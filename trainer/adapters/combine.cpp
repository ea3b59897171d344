#include "trainer/adapters/combine.h"

#include <algorithm>
#include <cmath>
#include <set>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include "parallel/seed.h"
#include "recipes/diagnostic.h"

namespace temper::trainer {

namespace {

// One adapter's share in one module.
struct Part {
  LoraFactors factors;
  double weight = 0;
  size_t adapter = 0;
};

// The k entries of the largest magnitude; the others are zero.
at::Tensor keep_largest(const at::Tensor& tensor, double density) {
  const auto kept = static_cast<int64_t>(density * static_cast<double>(tensor.numel()));
  const at::Tensor flat = tensor.reshape(-1);
  const at::Tensor places = std::get<1>(flat.abs().topk(kept));
  return at::zeros_like(flat).index_copy_(0, places, flat.index_select(0, places)).view_as(tensor);
}

at::Tensor keep_random(const at::Tensor& tensor, double density, uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  return tensor * at::empty_like(tensor).bernoulli_(density, generator) / density;
}

at::Tensor weighted(const at::Tensor& stacked, const std::vector<double>& weights) {
  return stacked * at::tensor(weights, at::kFloat).view({-1, 1, 1});
}

// Of each entry the values with the sign of the sum over all, weighted and averaged.
at::Tensor elect_signs(const at::Tensor& stacked, const std::vector<double>& weights) {
  const at::Tensor sign = at::where(stacked.sum(0) >= 0, 1.0f, -1.0f);
  const at::Tensor agree = stacked.sign() == sign;
  return (weighted(stacked, weights) * agree).sum(0) / agree.sum(0).clamp_min(1);
}

at::Tensor combine_side(const std::vector<at::Tensor>& sides, const std::vector<double>& weights,
                        const Combination& combination, const std::vector<uint64_t>& seeds) {
  const bool dare = combination.type.starts_with("dare_");
  const bool ties = combination.type.ends_with("ties");
  std::vector<at::Tensor> kept;
  for (size_t i = 0; i < sides.size(); ++i) {
    if (combination.type == "linear" || *combination.density >= 1) {
      kept.push_back(sides[i]);
    } else if (dare) {
      kept.push_back(keep_random(sides[i], *combination.density, seeds[i]));
    } else {
      kept.push_back(keep_largest(sides[i], *combination.density));
    }
  }
  const at::Tensor stacked = at::stack(kept);
  return ties ? elect_signs(stacked, weights) : weighted(stacked, weights).sum(0);
}

LoraFactors arithmetic(const std::vector<Part>& parts, const std::string& module,
                       const Combination& combination) {
  std::vector<at::Tensor> as, bs;
  std::vector<double> weights_a, weights_b;
  std::vector<uint64_t> seeds_a, seeds_b;
  for (const Part& part : parts) {
    const double weight = part.weight * part.factors.scaling;
    weights_b.push_back(std::sqrt(std::abs(weight)));
    weights_a.push_back(weight < 0 ? -weights_b.back() : weights_b.back());
    as.push_back(part.factors.a);
    bs.push_back(part.factors.b);
    if (part.factors.a.sizes() != as.front().sizes()) {
      throw UserError("combining adapters (" + combination.type + "): '" + module +
                      "' has different ranks in them: combine by cat or svd");
    }
    const auto seed = static_cast<int64_t>(combination.seed);
    const auto adapter = static_cast<int64_t>(part.adapter);
    seeds_a.push_back(parallel::seed_of(seed, "dare A " + module, adapter));
    seeds_b.push_back(parallel::seed_of(seed, "dare B " + module, adapter));
  }
  return {.a = combine_side(as, weights_a, combination, seeds_a),
          .b = combine_side(bs, weights_b, combination, seeds_b)};
}

LoraFactors concatenated(const std::vector<Part>& parts) {
  std::vector<at::Tensor> as, bs;
  for (const Part& part : parts) {
    as.push_back(part.factors.a * (part.weight * part.factors.scaling));
    bs.push_back(part.factors.b);
  }
  return {.a = at::cat(as, 0), .b = at::cat(bs, 1)};
}

LoraFactors decomposed(const std::vector<Part>& parts, int64_t rank) {
  std::vector<at::Tensor> deltas;
  std::vector<double> weights;
  for (const Part& part : parts) {
    deltas.push_back(part.factors.b.matmul(part.factors.a) * part.factors.scaling);
    weights.push_back(part.weight);
  }
  const auto [u, s, v] = at::linalg_svd(weighted(at::stack(deltas), weights).sum(0), false);
  const int64_t kept = std::min(rank, s.size(0));
  return {.a = v.narrow(0, 0, kept).contiguous(),
          .b = (u.narrow(1, 0, kept) * s.narrow(0, 0, kept)).contiguous()};
}

LoraFactors padded(const LoraFactors& factors, int64_t rank) {
  const int64_t missing = rank - factors.a.size(0);
  if (missing == 0) return factors;
  return {.a = at::constant_pad_nd(factors.a, {0, 0, 0, missing}),
          .b = at::constant_pad_nd(factors.b, {0, missing})};
}

void check(const Combination& combination) {
  const std::vector<std::string> types = {"linear", "cat",         "svd",
                                          "ties",   "dare_linear", "dare_ties"};
  if (std::find(types.begin(), types.end(), combination.type) == types.end()) {
    throw UserError("combination \"" + combination.type + "\": must be one of " + join(types));
  }
  const bool sparse = combination.type == "ties" || combination.type.starts_with("dare_");
  if (!sparse) return;
  if (!combination.density) {
    throw UserError("combination \"" + combination.type +
                    "\" needs a density: the part of the entries that is kept, above 0 and at most "
                    "1 (typical: 0.2 to 0.5)");
  }
  if (!(*combination.density > 0 && *combination.density <= 1)) {
    throw UserError("combination \"" + combination.type + "\": density " +
                    std::to_string(*combination.density) + " must be above 0 and at most 1");
  }
}

}  // namespace

CombinedLora combine_adapters(const std::vector<LoraModules>& adapters,
                              const std::vector<double>& weights, Combination combination) {
  TEMPER_CHECK(!adapters.empty() && adapters.size() == weights.size(), "a weight an adapter");
  check(combination);
  if (adapters.size() == 1) combination.type = "linear";
  const at::NoGradGuard off;

  CombinedLora result;
  std::vector<int64_t> ranks;
  std::map<std::string, std::vector<Part>> parts;
  for (size_t i = 0; i < adapters.size(); ++i) {
    int64_t rank = 0;
    for (const auto& [module, factors] : adapters[i]) {
      rank = std::max(rank, factors.a.size(0));
      parts[module].push_back({.factors = {.a = factors.a.to(at::kFloat),
                                           .b = factors.b.to(at::kFloat),
                                           .scaling = factors.scaling},
                               .weight = weights[i],
                               .adapter = i});
    }
    ranks.push_back(rank);
    result.r = combination.type == "cat" ? result.r + rank : std::max(result.r, rank);
  }
  const bool free_ranks = combination.type == "cat" || combination.type == "svd";
  if (!free_ranks && std::set<int64_t>(ranks.begin(), ranks.end()).size() > 1) {
    std::vector<std::string> texts;
    for (const int64_t rank : ranks) texts.push_back(std::to_string(rank));
    throw UserError("combination \"" + combination.type +
                    "\" needs adapters of the same r, they have " + join(texts) +
                    ": combine by cat or svd");
  }
  for (const auto& [module, here] : parts) {
    const LoraFactors combined = combination.type == "cat" ? concatenated(here)
                                 : combination.type == "svd"
                                     ? decomposed(here, result.r)
                                     : arithmetic(here, module, combination);
    result.modules.emplace(module, padded(combined, result.r));
  }
  return result;
}

}  // namespace temper::trainer
