#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

/// Every knob of the product in one place: plain structs, one a table of the recipe, with their
/// defaults. Member names are the recipe's keys (`export` is a C++ keyword, hence `export_`).
/// Ranges, units and sentences stand beside each key in schema.cpp; rules across tables in
/// validate.cpp. No LibTorch here.
namespace temper::recipes {

enum class Resume { kAuto, kNever, kMust };
enum class Deterministic { kFalse, kTrue, kLayout };
enum class Init { kPretrained, kRandom };
enum class Dtype { kFp32, kBf16, kFp16 };
enum class Attention { kAuto, kFlash, kMath };
enum class Packing { kNone, kBfd, kBfdSplit, kWrapped };
enum class LossOn { kAuto, kAll, kCompletion, kAssistant };
enum class OnBadRow { kError, kSkip };
enum class OnLongRow { kAuto, kTruncate, kSplit, kDrop, kError };
enum class ActivationCheckpointing { kNone, kFull, kSelective };
enum class Float8 { kNone, kTensorwise, kRowwise };
enum class Device { kAuto, kCuda, kCpu };
enum class OnNan { kStop, kSkip };
enum class Backend { kAuto, kNccl, kMpi };
enum class Offload { kNone, kOptimizer };

struct Run {
  std::string name;
  std::string output = "runs";
  int64_t seed = 42;
  Resume resume = Resume::kAuto;
  bool overwrite = false;
  Deterministic deterministic = Deterministic::kTrue;
  bool operator==(const Run&) const = default;
};

struct Model {
  std::string path;
  Init init = Init::kPretrained;
  Dtype dtype = Dtype::kBf16;
  Attention attention = Attention::kAuto;
  std::string quantize = "none";
  bool double_quant = true;
  std::string adapter;
  std::vector<std::string> add_tokens;
  bool download = false;
  bool operator==(const Model&) const = default;
};

/// One regular expression that must match a whole module name (or a word that PEFT knows, as
/// "all-linear"), or a list of names.
using NamesOrPattern = std::variant<std::string, std::vector<std::string>>;
using BoolOrWord = std::variant<bool, std::string>;
using IntOrInts = std::variant<int64_t, std::vector<int64_t>>;

/// `[peft]`: the fields of PEFT 0.21.2's config of that method, under its names. Unset means PEFT's
/// default; resolve() writes the defaults of the method's own fields, so that whoever trains can
/// rely on them (fields whose default is None stay unset). No method: full fine-tuning.
struct Peft {
  std::string method;  // peft_type in lower case; "": none
  Dtype dtype = Dtype::kFp32;
  // Where.
  std::optional<NamesOrPattern> target_modules, exclude_modules, feedforward_modules;
  std::optional<std::vector<std::string>> modules_to_save, target_parameters;
  std::optional<IntOrInts> layers_to_transform;
  std::optional<NamesOrPattern> layers_pattern;
  std::optional<std::vector<int64_t>> trainable_token_indices;
  // The same of an untied output head. No key: model.add_tokens and adapters of PEFT say it.
  std::optional<std::vector<int64_t>> head_token_indices;
  // lora; r, layers and rank_pattern also of others
  std::optional<int64_t> r;
  std::optional<int64_t> lora_alpha;
  std::optional<double> lora_dropout;
  std::optional<std::string> bias;
  std::optional<bool> use_rslora, use_dora, lora_bias;
  std::optional<BoolOrWord> init_lora_weights;
  std::map<std::string, int64_t> rank_pattern, alpha_pattern;
  // Entries of alpha_pattern that are no whole numbers. No key: EVA makes them, adapters hold them.
  std::map<std::string, double> alpha_fractions;
  std::optional<int64_t> loftq_bits, loftq_iter;  // [peft.loftq_config]
  std::optional<double> eva_rho, eva_tau;         // [peft.eva_config]
  std::optional<bool> eva_use_label_mask, eva_whiten, eva_adjust_scaling_factors;
  // adalora
  std::optional<int64_t> target_r, init_r, tinit, tfinal, deltaT, total_step;
  std::optional<double> beta1, beta2, orth_reg_weight;
  // ia3
  std::optional<bool> init_ia3_weights;
  // loha, lokr
  std::optional<int64_t> alpha;
  std::optional<double> rank_dropout, module_dropout;  // module_dropout also of oft
  std::optional<BoolOrWord> init_weights;              // also of vera, oft, boft, prefix_tuning
  std::optional<bool> use_effective_conv2d, decompose_both, rank_dropout_scale;
  std::optional<int64_t> decompose_factor;
  // vera
  std::optional<int64_t> projection_prng_key;
  std::optional<bool> save_projection;
  std::optional<double> vera_dropout, d_initial;
  // oft, boft
  std::optional<int64_t> oft_block_size, num_cayley_neumann_terms;
  std::optional<bool> coft, block_share, use_cayley_neumann;
  std::optional<double> eps;
  std::optional<int64_t> boft_block_size, boft_block_num, boft_n_butterfly_factor;
  std::optional<double> boft_dropout;
  // prompt_tuning, p_tuning, prefix_tuning
  std::optional<int64_t> num_virtual_tokens;
  std::optional<std::string> prompt_tuning_init, prompt_tuning_init_text;
  std::optional<std::string> encoder_reparameterization_type;
  std::optional<int64_t> encoder_hidden_size, encoder_num_layers;
  std::optional<double> encoder_dropout;
  std::optional<bool> prefix_projection;
  bool operator==(const Peft&) const = default;
};

struct DataSource {
  std::string path;
  double weight = 1.0;
  std::map<std::string, std::string> columns;  // our name -> name in the file
  bool operator==(const DataSource&) const = default;
};

struct Data {
  std::string format = "auto";
  int64_t max_length = 1024;
  Packing packing = Packing::kBfd;
  int64_t packing_window = 100000;
  bool streaming = false;
  int64_t shuffle_buffer = 100000;
  bool group_by_length = false;
  bool drop_last = false;
  LossOn loss_on = LossOn::kAuto;
  OnBadRow on_bad_row = OnBadRow::kError;
  OnLongRow on_long_row = OnLongRow::kAuto;
  bool shuffle = true;
  int64_t workers = 1;
  std::string cache = "cache";
  std::vector<DataSource> train;
  std::vector<DataSource> eval;
  bool operator==(const Data&) const = default;
};

/// One of [[objective.rewards]]. Which keys belong to which kind: objective_kinds.h.
struct Reward {
  std::string kind;  // accuracy | format | regex | length | repetition | model | program
  std::string name;  // of its metrics; "": the kind
  double weight = 1.0;
  std::optional<std::string> answer;       // accuracy: the column with the right answer
  std::optional<std::string> pattern;      // format: "think" or a whole completion's; regex: found
  std::optional<int64_t> max, soft;        // length: tokens; the penalty begins `soft` before max
  std::optional<int64_t> ngram;            // repetition
  std::optional<double> max_penalty;       // repetition
  std::optional<std::string> path;         // model: a reward model's directory
  std::optional<NamesOrPattern> command;   // program: a shell line, or a list of arguments
  std::optional<int64_t> workers;          // program
  std::optional<double> timeout;           // program: seconds a completion
  bool operator==(const Reward&) const = default;
};

/// `[objective]`: TRL 1.16.0's config fields that change the loss, under its names. Unset means the
/// kind's default, which resolve() writes (objective_kinds.h has them); fields whose default is None
/// stay unset.
struct Objective {
  std::string kind = "sft";
  std::optional<NamesOrPattern> loss_type;  // dpo: one or a list; others: one
  std::vector<Reward> rewards;
  // preference
  std::optional<double> beta, label_smoothing, f_alpha_divergence_coef, discopop_tau, ld_alpha;
  std::optional<std::vector<double>> loss_weights;
  std::optional<std::string> f_divergence_type, ref_model;
  std::optional<bool> use_weighting, precompute_ref_log_probs, sync_ref_model, disable_dropout;
  std::optional<double> ref_model_mixup_alpha;
  std::optional<int64_t> ref_model_sync_steps;
  std::optional<double> desirable_weight, undesirable_weight;      // kto
  std::optional<double> cpo_alpha, simpo_gamma, alpha;             // cpo
  std::optional<double> center_rewards_coefficient;                // reward
  // grpo, rloo, online_dpo, ppo
  std::optional<int64_t> num_generations, max_completion_length, num_iterations,
      steps_per_generation;
  std::optional<double> epsilon, epsilon_high, delta;
  std::optional<double> sapo_temperature_neg, sapo_temperature_pos;
  std::optional<double> vespo_k_pos, vespo_lambda_pos, vespo_k_neg, vespo_lambda_neg;
  std::optional<std::string> importance_sampling_level, multi_objective_aggregation, scale_rewards,
      zero_variance;
  std::optional<bool> mask_truncated_completions, use_bias_correction_kl, use_adaptive_entropy;
  std::optional<double> top_entropy_quantile, off_policy_mask_threshold;
  std::optional<double> entropy_coef, entropy_coef_min, entropy_coef_max, entropy_coef_delta,
      entropy_target;
  std::optional<bool> normalize_advantages;             // rloo
  std::optional<std::vector<double>> reward_clip_range;  // rloo
  std::optional<double> missing_eos_penalty;             // online_dpo, ppo
  // gkd, distill
  std::optional<std::string> teacher;
  std::optional<double> lmbda;
  std::optional<bool> seq_kd;
  // ppo
  std::optional<double> gamma, lam, vf_coef, cliprange, cliprange_value, kl_coef;
  std::optional<bool> whiten_rewards;
  bool operator==(const Objective&) const = default;
};

struct Generation {
  // Unset: the model's generation_config.json decides, else greedy.
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<int64_t> top_k;
  std::optional<double> min_p;
  std::optional<double> repetition_penalty;
  int64_t max_new_tokens = 128;
  std::vector<std::string> stop;
  bool exact = false;
  bool operator==(const Generation&) const = default;
};

struct Optimizer {
  std::string kind = "adamw";
  std::optional<double> lr;  // unset: the objective's default; resolve() fills it in
  std::vector<double> betas = {0.9, 0.999};
  double eps = 1e-8;
  double momentum = 0.0;  // sgd
  double weight_decay = 0.0;
  double max_grad_norm = 1.0;  // 0: no clipping
  // LoRA+ (PEFT's create_loraplus_optimizer): B learns this many times faster; unset: plain LoRA.
  std::optional<double> loraplus_lr_ratio;
  double loraplus_lr_embedding = 1e-6;
  double loraplus_weight_decay = 0.0;
  bool operator==(const Optimizer&) const = default;
};

struct Schedule {
  std::string kind = "cosine";
  double warmup = 0.03;  // below 1: a fraction of all steps; else steps
  // transformers' lr_scheduler_kwargs; unset means the schedule's own default.
  std::optional<double> num_cycles;
  std::optional<double> min_lr;
  std::optional<double> min_lr_rate;
  std::optional<double> warmup_lr_rate;
  std::optional<double> lr_end;
  std::optional<double> power;
  std::optional<int64_t> timescale;
  std::optional<int64_t> num_decay_steps;
  std::optional<double> min_lr_ratio;
  std::optional<std::string> decay_type;
  std::optional<std::string> warmup_type;
  bool operator==(const Schedule&) const = default;
};

struct Batch {
  int64_t global = 64;
  int64_t micro = 4;
  bool operator==(const Batch&) const = default;
};

struct Train {
  double epochs = 1;
  std::optional<int64_t> steps;  // instead of epochs
  Dtype precision = Dtype::kBf16;
  Float8 float8 = Float8::kNone;
  ActivationCheckpointing activation_checkpointing = ActivationCheckpointing::kNone;
  Device device = Device::kAuto;
  bool cuda_graphs = false;
  std::optional<int64_t> threads;  // unset ("auto"): the cores this host allows / ranks on it
  OnNan on_nan = OnNan::kStop;
  std::vector<std::string> trainable;
  std::vector<std::string> frozen;
  double neftune_noise_alpha = 0.0;
  bool operator==(const Train&) const = default;
};

struct Parallel {
  Backend backend = Backend::kAuto;
  std::string rendezvous = "mpi";
  int64_t bucket_mib = 25;
  Dtype reduce_dtype = Dtype::kFp32;
  Offload offload = Offload::kNone;
  bool reshard = true;
  std::optional<int64_t> replicate;  // unset ("auto"): what is left of the world
  int64_t shard = 1;
  std::optional<int64_t> zero;  // unset: 3 when shard is above 1
  int64_t tensor = 1;
  int64_t pipeline = 1;
  int64_t context = 1;
  int64_t expert = 1;
  double timeout = 600;  // seconds
  bool operator==(const Parallel&) const = default;
};

/// What ranks of a copy share: 1 optimizer state, 2 gradients too, 3 weights too; 0: they are copies.
inline int64_t zero_stage(const Parallel& parallel) {
  return parallel.zero.value_or(parallel.shard > 1 ? 3 : 0);
}

struct Checkpoint {
  int64_t every = 200;
  int64_t keep = 2;
  bool best = false;
  bool async = true;
  bool operator==(const Checkpoint&) const = default;
};

struct Eval {
  int64_t every = 200;
  bool at_start = false;
  std::string metric = "eval_loss";
  bool greater_is_better = false;
  int64_t early_stopping_patience = 0;
  bool operator==(const Eval&) const = default;
};

struct Log {
  int64_t every = 10;
  bool tensorboard = true;
  bool samples = true;
  bool trace = false;
  bool operator==(const Log&) const = default;
};

struct Export {
  std::vector<std::string> format = {"safetensors"};
  std::string dtype = "auto";  // auto | fp32 | bf16 | fp16
  bool merge = false;
  std::string max_shard_size = "5GB";
  bool operator==(const Export&) const = default;
};

struct Recipe {
  Run run;
  Model model;
  Peft peft;
  Data data;
  Objective objective;
  Generation generation;
  Optimizer optimizer;
  Schedule schedule;
  Batch batch;
  Train train;
  Parallel parallel;
  Checkpoint checkpoint;
  Eval eval;
  Log log;
  Export export_;
  bool operator==(const Recipe&) const = default;
};

}  // namespace temper::recipes
