#pragma once

#include <span>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

/// The losses of DPO's family (Rafailov et al. 2023, arXiv:2305.18290) as pure functions of B pairs.
/// Every tensor is [B] float32.
namespace temper::trainer {

struct Pair {
  at::Tensor chosen, rejected;
};

/// Of values [2 B], chosen and rejected in turn.
Pair pair_of(const at::Tensor& values);

struct DpoInputs {
  Pair policy, reference;  // log-probabilities of whole completions, nats
  Pair lengths;            // tokens of the completions (ipo, sigmoid_norm)
  at::Tensor chosen_nll;   // [] mean over all chosen tokens of the micro-batch (sft)
  at::Tensor weights{};    // of the pairs (WPO), a constant; undefined: none
};

struct DpoOptions {
  std::vector<std::string> loss_types = {"sigmoid"};
  std::vector<double> loss_weights{};  // of loss_types; empty: 1 each
  double beta = 0.1;
  double label_smoothing = 0;
  std::string f_divergence_type = "reverse_kl";  // forward_kl | js_divergence | alpha_divergence
  double f_alpha_divergence_coef = 0.5;
  double discopop_tau = 0.05;
};

/// What a row of the table computes its loss from. c, r: policy minus reference, of the chosen and
/// the rejected completion; s_c, s_r: their f-divergence scores (c and r themselves for reverse_kl;
/// Wang et al. 2023, arXiv:2309.16240); d = s_c - s_r.
struct DpoTerms {
  const DpoInputs& in;
  const DpoOptions& options;
  at::Tensor c{}, r{}, s_c{}, s_r{}, d{};
};

struct DpoLoss {
  const char* name;  // objective.loss_type
  at::Tensor (*loss)(const DpoTerms& terms);
  bool f_divergence;  // depends on c and r by d alone, so that a divergence other than reverse_kl has a meaning
  const char* paper;
};
std::span<const DpoLoss> dpo_losses();

/// Throws UserError for a loss or divergence that is not there, or where the two do not go together.
void check(const DpoOptions& options);

/// The losses of `options`, weighted and added up: per pair.
at::Tensor dpo_loss(const DpoInputs& inputs, const DpoOptions& options);

/// LD-DPO (Liu et al. 2024, arXiv:2409.06411): of the longer completion of a pair the tokens beyond the
/// other's length count `ld_alpha`. Weights of the targets [n], on the host; `ends`: data::Targets.
at::Tensor ld_weights(const at::Tensor& ends, double ld_alpha);

/// WPO (Zhou et al. 2024, arXiv:2406.11827, eq. 2, aligned to sampling): the product of both completions'
/// exp(mean over tokens of log p - log sum_v p_v^2), [B]; a constant. Arguments [n].
at::Tensor wpo_weights(const at::Tensor& log_probs, const at::Tensor& log_sum_squares,
                       const at::Tensor& ends);

}  // namespace temper::trainer
