#include "recipes/objective_kinds.h"
#include "recipes/row.h"

namespace temper::recipes {

// Which of these a kind has, and its default: objective_kinds.cpp. Here is what the values mean and
// what they may be for any kind.
std::vector<Key> objective_rows() {
  return {
      ROW(objective.kind, .meaning = "What is learnt.",
          .choices = {"sft", "dpo", "kto", "orpo", "cpo", "reward", "grpo", "rloo", "online_dpo",
                      "gkd", "distill", "ppo", "classify", "tokens", "qa", "embed", "cross_encoder",
                      "mlm"},
          .works = {"sft", "dpo", "kto", "orpo", "cpo", "reward", "grpo", "rloo", "online_dpo",
                    "ppo", "gkd", "distill", "classify", "embed", "cross_encoder"}),
      ROW(objective.loss_type,
          .meaning = "The form of the loss, by its name in TRL; dpo takes a list too, whose losses "
                     "are added with loss_weights.",
          .not_empty = true),
      ROW(objective.loss_weights, .meaning = "A weight for each of loss_type; unset: 1 each.",
          .not_empty = true),

      ROW(objective.beta,
          .meaning = "How strongly the policy is held to the reference; orpo: weight of the odds "
                     "ratio; grpo, rloo: weight of the KL divergence, 0 needs no reference; gkd, "
                     "distill: the divergence, from 0, KL(teacher || student), to 1, KL(student || "
                     "teacher).",
          .range = at_least(0)),
      ROW(objective.label_smoothing,
          .meaning = "Share of preferences taken to be the wrong way round; dpo: of exo_pair, "
                     "robust, aot and aot_unpaired; cpo: of sigmoid and simpo.",
          .range = from_to_below(0, 1)),
      ROW(objective.f_divergence_type,
          .meaning = "Divergence from the reference (arXiv:2309.16240).",
          .choices = {"reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"}),
      ROW(objective.f_alpha_divergence_coef, .meaning = "alpha_divergence: its alpha."),
      ROW(objective.discopop_tau,
          .meaning = "discopop: temperature of the blend (arXiv:2406.08414).", .range = above(0)),
      ROW(objective.ld_alpha,
          .meaning = "Weight of what a completion has more tokens than the other (LD-DPO, "
                     "arXiv:2409.06411); unset: 1.",
          .range = between(0, 1)),
      ROW(objective.use_weighting,
          .meaning = "Weigh pairs by how likely the policy makes them (WPO, arXiv:2406.11827)."),
      ROW(objective.desirable_weight, .meaning = "Weight of good completions.",
          .range = at_least(0)),
      ROW(objective.undesirable_weight, .meaning = "Weight of bad completions.",
          .range = at_least(0)),
      ROW(objective.cpo_alpha,
          .meaning = "Weight of the chosen completions' cross-entropy; 0 with simpo: pure SimPO.",
          .range = at_least(0)),
      ROW(objective.simpo_gamma, .meaning = "simpo: the margin aimed at (arXiv:2405.14734).",
          .range = at_least(0)),
      ROW(objective.alpha,
          .meaning = "AlphaPO's shape of the reward (arXiv:2501.03884); 0: the log-probability."),
      ROW(objective.center_rewards_coefficient,
          .meaning = "Weight of what keeps the rewards around 0 (arXiv:2312.09244); unset: 0.",
          .range = at_least(0)),
      ROW(objective.ref_model,
          .meaning = "Directory of the reference model; \"\": the weights at the start (with an "
                     "adapter: without it)."),
      ROW(objective.precompute_ref_log_probs,
          .meaning = "Compute the reference's log-probabilities once, before training; they are "
                     "kept beside the token shards."),
      ROW(objective.sync_ref_model,
          .meaning = "Move the reference towards the policy (TR-DPO, arXiv:2404.09656)."),
      ROW(objective.ref_model_mixup_alpha,
          .meaning = "sync_ref_model: share of the policy in the new reference.",
          .range = between(0, 1)),
      ROW(objective.ref_model_sync_steps, .meaning = "sync_ref_model: steps between two moves.",
          .unit = "steps", .range = at_least(1)),
      ROW(objective.disable_dropout, .meaning = "Train without dropout."),

      ROW(objective.num_generations,
          .meaning = "Completions of a prompt: a group; batch.global counts completions and is a "
                     "multiple of it.",
          .range = between(2, 1e6)),
      ROW(objective.max_completion_length, .meaning = "Longest completion.", .unit = "tokens",
          .range = between(1, 1e9)),
      ROW(objective.num_iterations, .meaning = "Passes over a batch of rollouts (mu).",
          .range = between(1, 1e6)),
      ROW(objective.steps_per_generation,
          .meaning = "Micro-batches of a rank that are sampled at once: batch.micro x ranks x this "
                     "is a multiple of batch.global; unset: those of one step.",
          .range = between(1, 1e6)),
      ROW(objective.epsilon, .meaning = "The ratio of probabilities is clipped at 1 - epsilon.",
          .range = at_least(0)),
      ROW(objective.epsilon_high,
          .meaning = "The ratio is clipped at 1 + epsilon_high; cispo: at epsilon_high itself; "
                     "unset: epsilon.",
          .range = at_least(0)),
      ROW(objective.delta,
          .meaning = "Upper bound of the ratio where the advantage is negative (arXiv:2505.07291).",
          .range = above(0)),
      ROW(objective.importance_sampling_level,
          .meaning = "The ratio is one of each token, or of the sequence (GSPO, arXiv:2507.18071).",
          .choices = {"token", "sequence"}),
      ROW(objective.scale_rewards,
          .meaning = "Advantages are divided by the standard deviation of the group, of the whole "
                     "batch, or not (arXiv:2503.20783).",
          .choices = {"group", "batch", "none"}),
      ROW(objective.multi_objective_aggregation,
          .meaning = "Rewards are added and then normalised, or each is normalised first (GDPO, "
                     "arXiv:2601.05242).",
          .choices = {"sum_then_normalize", "normalize_then_sum"}),
      ROW(objective.zero_variance,
          .meaning = "Groups whose rewards are all equal, which teach nothing: kept, left out, or "
                     "sampled anew with other prompts.",
          .choices = {"keep", "skip", "resample"}),
      ROW(objective.mask_truncated_completions,
          .meaning = "Completions that reached max_completion_length do not count in the loss."),
      ROW(objective.use_bias_correction_kl,
          .meaning = "Weigh the KL divergence by the ratio (arXiv:2512.02556)."),
      ROW(objective.top_entropy_quantile,
          .meaning = "Share of the tokens, those of the highest entropy, that count "
                     "(arXiv:2506.01939).",
          .range = above_up_to(0, 1)),
      ROW(objective.off_policy_mask_threshold,
          .meaning = "Completions with a negative advantage whose divergence from the policy that "
                     "sampled them is above this do not count (arXiv:2512.02556); unset: all do.",
          .range = at_least(0)),
      ROW(objective.entropy_coef, .meaning = "Weight of the entropy that is added to the aim.",
          .range = at_least(0)),
      ROW(objective.use_adaptive_entropy,
          .meaning = "entropy_coef rises and falls with the entropy (arXiv:2505.22312)."),
      ROW(objective.entropy_coef_min, .meaning = "use_adaptive_entropy: the lowest coefficient.",
          .range = at_least(0)),
      ROW(objective.entropy_coef_max, .meaning = "use_adaptive_entropy: the highest coefficient.",
          .range = at_least(0)),
      ROW(objective.entropy_coef_delta, .meaning = "use_adaptive_entropy: its change in a step.",
          .range = above(0)),
      ROW(objective.entropy_target, .meaning = "use_adaptive_entropy: the entropy aimed at.",
          .range = at_least(0)),
      ROW(objective.sapo_temperature_neg, .meaning = "sapo: temperature of negative advantages.",
          .range = above(0)),
      ROW(objective.sapo_temperature_pos, .meaning = "sapo: temperature of positive advantages.",
          .range = above(0)),
      ROW(objective.vespo_k_pos, .meaning = "vespo: exponent, advantage at least 0.",
          .range = at_least(0)),
      ROW(objective.vespo_lambda_pos, .meaning = "vespo: decay, advantage at least 0.",
          .range = at_least(0)),
      ROW(objective.vespo_k_neg, .meaning = "vespo: exponent, advantage below 0.",
          .range = at_least(0)),
      ROW(objective.vespo_lambda_neg, .meaning = "vespo: decay, advantage below 0.",
          .range = at_least(0)),
      ROW(objective.normalize_advantages,
          .meaning = "Advantages of the whole batch get mean 0 and deviation 1."),
      ROW(objective.missing_eos_penalty,
          .meaning = "Taken off the reward of a completion that reached max_completion_length; "
                     "unset: nothing.",
          .range = above(0)),
      ROW(objective.gamma, .meaning = "Discount of what comes a token later.",
          .range = between(0, 1)),
      ROW(objective.lam,
          .meaning = "Advantages: 0 trusts the value head, 1 the rewards (GAE, arXiv:1506.02438).",
          .range = between(0, 1)),
      ROW(objective.cliprange, .meaning = "The ratio is clipped at 1 - cliprange and 1 + cliprange.",
          .range = above(0)),
      ROW(objective.cliprange_value,
          .meaning = "The value head's estimates are clipped at so much from those of sampling.",
          .range = above(0)),
      ROW(objective.vf_coef, .meaning = "Weight of the value head's loss.", .range = above(0)),
      ROW(objective.kl_coef,
          .meaning = "Weight of the divergence from the reference in each token's reward; 0 needs "
                     "no reference.",
          .range = at_least(0)),
      ROW(objective.whiten_rewards,
          .meaning = "Tokens' rewards of the whole batch get the deviation 1."),
      ROW(objective.reward_clip_range,
          .meaning = "Rewards are clipped to these two numbers; unset: not.", .not_empty = true),

      ROW(objective.teacher,
          .meaning = "Directory of the teacher, a language model with the student's vocabulary; "
                     "needed.",
          .not_empty = true),
      ROW(objective.lmbda,
          .meaning = "Share of the rows whose completion the student samples anew in each step.",
          .range = between(0, 1)),
      ROW(objective.seq_kd,
          .meaning = "The teacher samples the completions of all other rows; false: they are taken "
                     "as they stand."),
  };
}

std::vector<RewardKey> reward_rows() {
  return {
      REWARD_ROW(kind, .meaning = "What scores a completion; needed.",
                 .choices = names_of(reward_kinds()), .not_empty = true),
      REWARD_ROW(name, .meaning = "Its name in metrics and samples; \"\": the kind."),
      REWARD_ROW(weight, .meaning = "Rewards are added, each times its weight."),
      REWARD_ROW(answer, .meaning = "Column of the row with the right answer.", .not_empty = true),
      REWARD_ROW(pattern,
                 .meaning = "A regular expression; format: for the whole completion, or `think` "
                            "for `<think>...</think>` and an answer.",
                 .not_empty = true),
      REWARD_ROW(max, .meaning = "Length at which the reward is -1; unset: max_completion_length.",
                 .unit = "tokens", .range = at_least(1)),
      REWARD_ROW(soft, .meaning = "Tokens before max over which it falls; unset: a fifth of max.",
                 .unit = "tokens", .range = at_least(1)),
      REWARD_ROW(ngram, .meaning = "Tokens of an n-gram.", .range = at_least(1)),
      REWARD_ROW(max_penalty, .meaning = "The reward of nothing but repetition.",
                 .range = {.high = 0}),
      REWARD_ROW(path, .meaning = "Directory of the reward model; needed.", .not_empty = true),
      REWARD_ROW(command,
                 .meaning = "A line for /bin/sh, or a list of program and arguments; it gets "
                            "prompt, completion and all other columns; needed.",
                 .not_empty = true),
      REWARD_ROW(workers, .meaning = "Processes that score at the same time, on each rank.",
                 .range = between(1, 1024)),
      REWARD_ROW(timeout,
                 .meaning = "A completion that takes longer has no score, and the program is "
                            "started again.",
                 .unit = "seconds", .range = above(0)),
  };
}

}  // namespace temper::recipes
