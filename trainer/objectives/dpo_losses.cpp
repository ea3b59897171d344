// With b = beta, e = label_smoothing, S = log sigmoid, sg = sigmoid and DpoTerms' c, r, s_c, s_r, d.
#include "trainer/objectives/dpo_losses.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include <ATen/ATen.h>

#include "recipes/diagnostic.h"
#include "trainer/objectives/completions.h"
#include "trainer/ops/device.h"

namespace temper::trainer {
namespace {

at::Tensor S(const at::Tensor& x) { return at::log_sigmoid(x); }
at::Tensor sg(const at::Tensor& x) { return at::sigmoid(x); }

// -(1 - e) S(x) - e S(-x)
at::Tensor smoothed(const at::Tensor& x, double e) { return -S(x) * (1 - e) - S(-x) * e; }

// Differences of scores a token.
at::Tensor mean_difference(const DpoTerms& t) {
  return t.s_c / t.in.lengths.chosen - t.s_r / t.in.lengths.rejected;
}

at::Tensor sorted(const at::Tensor& x) { return std::get<0>(at::sort(x, 0)); }

at::Tensor sigmoid(const DpoTerms& t) { return -S(t.options.beta * t.d); }

at::Tensor hinge(const DpoTerms& t) { return at::relu(1 - t.options.beta * t.d); }

at::Tensor ipo(const DpoTerms& t) {
  return (mean_difference(t) - 1 / (2 * t.options.beta)).square();
}

at::Tensor sigmoid_norm(const DpoTerms& t) { return -S(t.options.beta * mean_difference(t)); }

// KL of {sg(b d), sg(-b d)} against {1 - e, e}.
at::Tensor exo_pair(const DpoTerms& t) {
  const at::Tensor x = t.options.beta * t.d;
  const double e = t.options.label_smoothing;
  return sg(x) * (S(x) - std::log1p(-e)) + sg(-x) * (S(-x) - std::log(e));
}

at::Tensor nca_pair(const DpoTerms& t) {
  const at::Tensor c = t.options.beta * t.c, r = t.options.beta * t.r;
  return -S(c) - 0.5 * S(-c) - 0.5 * S(-r);
}

at::Tensor robust(const DpoTerms& t) {
  const at::Tensor x = t.options.beta * t.d;
  const double e = t.options.label_smoothing;
  return (-(1 - e) * S(x) + e * S(-x)) / (1 - 2 * e);
}

at::Tensor bco_pair(const DpoTerms& t) {
  return -S(t.options.beta * t.c) - S(-t.options.beta * t.r);
}

at::Tensor sppo_hard(const DpoTerms& t) {
  const double half = 0.5 / t.options.beta;
  return (t.c - half).square() + (t.r + half).square();
}

// Both compare distributions over the pairs of the micro-batch: sorted against sorted.
at::Tensor aot(const DpoTerms& t) {
  const at::Tensor delta = sorted(t.in.policy.chosen - t.in.policy.rejected) -
                           sorted(t.in.reference.chosen - t.in.reference.rejected);
  return smoothed(t.options.beta * delta, t.options.label_smoothing);
}

at::Tensor aot_unpaired(const DpoTerms& t) {
  return smoothed(t.options.beta * (sorted(t.c) - sorted(t.r)), t.options.label_smoothing);
}

at::Tensor apo_zero(const DpoTerms& t) {
  return (1 - sg(t.options.beta * t.c)) + sg(t.options.beta * t.r);
}

at::Tensor apo_down(const DpoTerms& t) {
  return sg(t.options.beta * t.c) + (1 - sg(t.options.beta * (t.c - t.r)));
}

at::Tensor discopop(const DpoTerms& t) {
  const at::Tensor x = t.options.beta * t.d;
  const at::Tensor blend = sg(x / t.options.discopop_tau);
  return -S(x) * (1 - blend) + at::exp(-x) * blend;
}

at::Tensor sft(const DpoTerms& t) { return t.in.chosen_nll.expand_as(t.d); }

constexpr DpoLoss kLosses[] = {
    {"sigmoid", sigmoid, true, "arXiv:2305.18290"},
    {"hinge", hinge, true, "arXiv:2305.10425, arXiv:2309.06657"},
    {"ipo", ipo, true, "arXiv:2310.12036"},
    {"exo_pair", exo_pair, true, "arXiv:2402.00856"},
    {"nca_pair", nca_pair, false, "arXiv:2402.05369"},
    {"robust", robust, true, "arXiv:2403.00409"},
    {"bco_pair", bco_pair, false, "arXiv:2404.04656"},
    {"sppo_hard", sppo_hard, false, "arXiv:2405.00675"},
    {"aot", aot, false, "arXiv:2406.05882"},
    {"aot_unpaired", aot_unpaired, false, "arXiv:2406.05882"},
    {"apo_zero", apo_zero, false, "arXiv:2408.06266"},
    {"apo_down", apo_down, false, "arXiv:2408.06266"},
    {"discopop", discopop, true, "arXiv:2406.08414"},
    {"sft", sft, true, "arXiv:2404.19733, arXiv:2411.10442"},
    {"sigmoid_norm", sigmoid_norm, true, "arXiv:2411.15124"},
};

// f'(t) of the ratio t = exp(x).
at::Tensor score(const at::Tensor& x, const DpoOptions& options) {
  if (options.f_divergence_type == "forward_kl") return 1 - at::exp(-x);
  if (options.f_divergence_type == "js_divergence") return std::numbers::ln2 + S(x);
  if (options.f_divergence_type == "alpha_divergence") {
    const double a = options.f_alpha_divergence_coef - 1;
    // (t^a - 1) / a, whose limit at a = 0 is log t. float32 ends near exp(88).
    if (std::abs(a) >= 1e-6) return (at::exp(at::clamp_max(a * x, 80)) - 1) * (1 / a);
  }
  return x;
}

const DpoLoss& find(const std::string& name) {
  std::vector<std::string> names;
  for (const DpoLoss& row : kLosses) {
    if (name == row.name) return row;
    names.push_back(row.name);
  }
  throw UserError("objective.loss_type = \"" + name + "\": not there; allowed for dpo: " +
                  join(names));
}

}  // namespace

at::Tensor ld_weights(const at::Tensor& ends, double ld_alpha) {
  const int64_t* end = ends.const_data_ptr<int64_t>();
  const int64_t completions = ends.numel() - 1;
  at::Tensor weights = at::ones({end[completions]}, at::kFloat);
  float* weight = weights.mutable_data_ptr<float>();
  for (int64_t c = 0; c < completions; ++c) {
    const int64_t other = c ^ 1;
    const int64_t shared = std::min(end[c + 1] - end[c], end[other + 1] - end[other]);
    std::fill(weight + end[c] + shared, weight + end[c + 1], static_cast<float>(ld_alpha));
  }
  return weights;
}

at::Tensor wpo_weights(const at::Tensor& log_probs, const at::Tensor& log_sum_squares,
                       const at::Tensor& ends) {
  const at::Tensor sums = sum_per_completion(log_probs.detach() - log_sum_squares, ends);
  const at::Tensor lengths = sent_to(sums.device(), ends.diff().clamp_min(1));
  const at::Tensor weights = (sums / lengths).exp();
  return chosen_of(weights) * rejected_of(weights);
}

std::span<const DpoLoss> dpo_losses() { return kLosses; }

void check(const DpoOptions& options) {
  const std::string& divergence = options.f_divergence_type;
  if (divergence != "reverse_kl" && divergence != "forward_kl" && divergence != "js_divergence" &&
      divergence != "alpha_divergence") {
    throw UserError("objective.f_divergence_type = \"" + divergence +
                    "\": allowed: reverse_kl, forward_kl, js_divergence, alpha_divergence");
  }
  for (const std::string& name : options.loss_types) {
    if (find(name).f_divergence || divergence == "reverse_kl") continue;
    std::vector<std::string> allowed;
    for (const DpoLoss& row : kLosses) {
      if (row.f_divergence) allowed.push_back(row.name);
    }
    throw UserError("objective.f_divergence_type = \"" + divergence +
                    "\": has no meaning for loss_type \"" + name + "\", only for " + join(allowed));
  }
  if (!options.loss_weights.empty() && options.loss_weights.size() != options.loss_types.size()) {
    throw UserError("objective.loss_weights: needs one number for each of loss_type's " +
                    std::to_string(options.loss_types.size()));
  }
}

at::Tensor dpo_loss(const DpoInputs& inputs, const DpoOptions& options) {
  DpoTerms terms{.in = inputs, .options = options};
  terms.c = inputs.policy.chosen - inputs.reference.chosen;
  terms.r = inputs.policy.rejected - inputs.reference.rejected;
  terms.s_c = score(terms.c, options);
  terms.s_r = score(terms.r, options);
  terms.d = terms.s_c - terms.s_r;
  at::Tensor total;
  for (size_t i = 0; i < options.loss_types.size(); ++i) {
    at::Tensor loss = find(options.loss_types[i]).loss(terms);
    if (inputs.weights.defined()) loss = loss * inputs.weights;
    if (!options.loss_weights.empty()) loss = loss * options.loss_weights[i];
    total = total.defined() ? total + loss : loss;
  }
  return total;
}

Pair pair_of(const at::Tensor& values) { return {chosen_of(values), rejected_of(values)}; }

}  // namespace temper::trainer
