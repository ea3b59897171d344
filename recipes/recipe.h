#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
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

struct Objective {
  std::string kind = "sft";
  std::string loss_type = "nll";  // sft: nll | dft
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
  ActivationCheckpointing activation_checkpointing = ActivationCheckpointing::kNone;
  Device device = Device::kAuto;
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
