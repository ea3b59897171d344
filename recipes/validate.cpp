#include "recipes/validate.h"

#include <algorithm>
#include <bit>
#include <cctype>
#include <cmath>
#include <regex>
#include <string>
#include <type_traits>
#include <vector>

#include "recipes/diagnostic.h"
#include "recipes/judgement.h"
#include "recipes/objective_kinds.h"
#include "recipes/peft_methods.h"
#include "recipes/rendezvous.h"
#include "recipes/resolve.h"
#include "recipes/schema.h"

namespace temper::recipes {

namespace {

std::string text(double value) { return to_toml(Value{value}); }
std::string text(int64_t value) { return std::to_string(value); }

// ---- this version ------------------------------------------------------------------------------

void judge_what_works(Judgement& judge) {
  for (const Key& key : keys()) {
    const std::string problem = not_yet(key, key.get(judge.recipe));
    judge.require(problem.empty(), {key.name}, problem);
  }
  const auto judge_list = [&](const std::string& list, const auto& entries) {
    using Entry = typename std::remove_cvref_t<decltype(entries)>::value_type;
    for (size_t i = 0; i < entries.size(); ++i) {
      for (const KeyOf<Entry>& key : keys_of<Entry>()) {
        const std::string problem = not_yet(key, key.get(entries[i]));
        judge.require(problem.empty(), {list + "." + std::to_string(i) + "." + key.name}, problem);
      }
    }
  };
  for (const std::string& list : list_names()) {
    use_list(judge.recipe, list, [&](const auto& entries) { judge_list(list, entries); });
  }
}

// ---- what the purpose needs --------------------------------------------------------------------

void judge_presence(Judgement& judge, Purpose purpose) {
  // What an unreadable base recipe would have given is not known.
  if (!judge.findings.clean({"extends"})) return;
  const Recipe& recipe = judge.recipe;
  judge.require(!recipe.model.path.empty(), {"model.path"}, "needed: the directory of the model");
  if (purpose == Purpose::kEval) {
    judge.require(!recipe.data.eval.empty(), {"data.eval"},
                  "needed: [[data.eval]] with the path of the rows to evaluate on");
  } else {
    judge.require(!recipe.data.train.empty(), {"data.train"},
                  "needed: [[data.train]] with the path of the rows to train on");
  }
  if (purpose == Purpose::kTrain) {
    judge.require(!recipe.run.name.empty(), {"run.name"},
                  "needed: the run's directory is run.output/run.name");
  }
  const auto judge_paths = [&](const std::string& list, const std::vector<DataSource>& sources) {
    for (size_t i = 0; i < sources.size(); ++i) {
      const std::string entry = list + "." + std::to_string(i);
      judge.require(!sources[i].path.empty() || !judge.findings.clean({entry}),
                    {entry + ".path", entry}, "needs a path: the rows to read");
    }
  };
  judge_paths("data.train", recipe.data.train);
  judge_paths("data.eval", recipe.data.eval);
}

void judge_run_name(Judgement& judge) {
  const std::string& name = judge.recipe.run.name;
  const bool plain = name != "." && name != ".." && name.size() <= 200 &&
                     std::none_of(name.begin(), name.end(), [](unsigned char c) {
                       return c == '/' || c == '\\' || std::iscntrl(c);
                     });
  judge.require(plain, {"run.name"},
                "must be the plain name of a directory, without '/' and at most 200 bytes long");
}

// ---- data --------------------------------------------------------------------------------------

void judge_data(Judgement& judge) {
  const Data& data = judge.recipe.data;
  // Of other objectives that pack nothing: objective_rules.cpp.
  judge.require(data.packing != Packing::kNone || data.packing_window == Data{}.packing_window,
                {"data.packing_window"}, "has no effect with data.packing = \"none\"");
  const std::vector<std::string> grouping = {"data.group_by_length"};
  if (data.group_by_length) {
    judge.require(resolve(judge.recipe).data.packing == Packing::kNone, grouping,
                  "needs data.packing = \"none\": packed rows are all nearly full");
    judge.require(data.shuffle, grouping, "contradicts data.shuffle = false: rows in file order");
    judge.require(!data.streaming, grouping, "needs rows whose lengths are known: data.streaming = false");
  }
  const bool buffers = data.streaming && data.shuffle;
  judge.require(buffers || data.shuffle_buffer == Data{}.shuffle_buffer, {"data.shuffle_buffer"},
                no_effect(data.streaming ? "data.shuffle = false" : "data.streaming = false"));
  if (!data.streaming) return;
  const std::vector<std::string> streaming = {"data.streaming"};
  judge.require(judge.recipe.train.steps.has_value(), streaming,
                "needs train.steps: a stream has no last row");
  judge.require(!data.drop_last, {"data.drop_last"}, no_effect("data.streaming = true"));
  judge.require(judge.recipe.peft.init_lora_weights != BoolOrWord("eva"), streaming,
                "must be false with peft.init_lora_weights = \"eva\", which looks at prepared rows first");
}

// ---- optimizer and schedule --------------------------------------------------------------------

void judge_optimizer(Judgement& judge) {
  const Optimizer& optimizer = judge.recipe.optimizer;
  const Optimizer unset;
  judge.require(optimizer.betas.size() == 2, {"optimizer.betas"},
                "must be two numbers, as [0.9, 0.999]");
  if (optimizer.kind == "sgd") {
    judge.require(optimizer.betas == unset.betas, {"optimizer.betas"},
                  "belongs to the adamw kinds, not to sgd");
    judge.require(optimizer.eps == unset.eps, {"optimizer.eps"},
                  "belongs to the adamw kinds, not to sgd");
  } else {
    judge.require(optimizer.momentum == unset.momentum, {"optimizer.momentum"},
                  "belongs to sgd, not to " + optimizer.kind + " (its momentum is betas[0])");
  }
}

// Which schedules know a key: transformers' lr_scheduler_kwargs.
struct ScheduleKey {
  const char* name;
  std::vector<std::string> kinds;
};

const std::vector<ScheduleKey>& schedule_keys() {
  static const std::vector<std::string> with_min_lr = {"cosine_with_min_lr",
                                                       "cosine_warmup_with_min_lr"};
  static const std::vector<ScheduleKey> rows = {
      {"schedule.num_cycles",
       {"cosine", "cosine_with_restarts", "cosine_with_min_lr", "cosine_warmup_with_min_lr",
        "warmup_stable_decay"}},
      {"schedule.min_lr", with_min_lr},
      {"schedule.min_lr_rate", with_min_lr},
      {"schedule.warmup_lr_rate", {"cosine_warmup_with_min_lr"}},
      {"schedule.lr_end", {"polynomial"}},
      {"schedule.power", {"polynomial"}},
      {"schedule.timescale", {"inverse_sqrt"}},
      {"schedule.num_decay_steps", {"warmup_stable_decay"}},
      {"schedule.min_lr_ratio", {"warmup_stable_decay"}},
      {"schedule.decay_type", {"warmup_stable_decay"}},
      {"schedule.warmup_type", {"warmup_stable_decay"}},
  };
  return rows;
}

void judge_schedule_keys(Judgement& judge) {
  const Schedule& schedule = judge.recipe.schedule;
  if (!judge.findings.clean({"schedule.kind"})) return;
  for (const ScheduleKey& row : schedule_keys()) {
    const bool unset = find_key(row.name)->get(judge.recipe) == Value{};
    const bool known =
        std::find(row.kinds.begin(), row.kinds.end(), schedule.kind) != row.kinds.end();
    judge.require(
        unset || known, {row.name},
        "belongs to " + join(row.kinds) + ", not to schedule.kind = " + in_quotes(schedule.kind));
  }
  if (schedule.kind == "cosine_with_min_lr" || schedule.kind == "cosine_warmup_with_min_lr") {
    judge.require(schedule.min_lr.has_value() != schedule.min_lr_rate.has_value(),
                  {"schedule.kind", "schedule.min_lr", "schedule.min_lr_rate"},
                  "needs exactly one of schedule.min_lr and schedule.min_lr_rate");
  }
  if (schedule.kind == "warmup_stable_decay") {
    judge.require(schedule.num_decay_steps.has_value(),
                  {"schedule.kind", "schedule.num_decay_steps"}, "needs schedule.num_decay_steps");
  }
}

void judge_schedule_numbers(Judgement& judge) {
  const Schedule& schedule = judge.recipe.schedule;
  judge.require(schedule.warmup < 1 || schedule.warmup == std::floor(schedule.warmup),
                {"schedule.warmup"}, "must be a fraction below 1 or a whole number of steps");
  judge.require(
      schedule.kind != "constant" || schedule.warmup == 0 || schedule.warmup == Schedule{}.warmup,
      {"schedule.warmup"},
      "has no effect with schedule.kind = \"constant\": take \"constant_with_warmup\"");
  if (const auto steps = judge.recipe.train.steps) {
    const double warmup = schedule.warmup < 1 ? 0 : schedule.warmup;
    const double decay = static_cast<double>(schedule.num_decay_steps.value_or(0));
    judge.require(
        warmup + decay <= static_cast<double>(*steps),
        {schedule.num_decay_steps ? "schedule.num_decay_steps" : "schedule.warmup", "train.steps"},
        std::string("warm-up") + (schedule.num_decay_steps ? " and decay" : "") +
            " must fit into train.steps = " + text(*steps));
  }
  if (!judge.findings.clean({"objective.kind"})) return;
  const double lr = *resolve(judge.recipe).optimizer.lr;
  judge.require(schedule.min_lr.value_or(0) <= lr, {"schedule.min_lr", "optimizer.lr"},
                "must be at most optimizer.lr = " + text(lr));
  judge.require(!schedule.lr_end || *schedule.lr_end < lr, {"schedule.lr_end", "optimizer.lr"},
                "must be below optimizer.lr = " + text(lr));
}

// ---- training ----------------------------------------------------------------------------------

void judge_patterns(Judgement& judge) {
  const auto judge_list = [&](const std::string& key, const std::vector<std::string>& patterns) {
    for (const std::string& pattern : patterns) judge.require_pattern(pattern, key);
  };
  judge_list("train.trainable", judge.recipe.train.trainable);
  judge_list("train.frozen", judge.recipe.train.frozen);
}

void judge_float8(Judgement& judge) {
  const Recipe& recipe = judge.recipe;
  if (recipe.train.float8 == Float8::kNone) return;
  judge.require(recipe.model.quantize == "none", {"train.float8", "model.quantize"},
                "must be \"none\" with model.quantize = " + in_quotes(recipe.model.quantize) +
                    ", whose base is in fewer bits already");
  judge.require(recipe.train.precision != Dtype::kFp16, {"train.float8", "train.precision"},
                "must be \"none\" with train.precision = \"fp16\": scales of its own stand in the "
                "place of a loss scaler; use \"bf16\"");
  judge.require(!recipe.generation.exact, {"train.float8", "generation.exact"},
                "must be \"none\" with generation.exact = true: decoding computes in "
                "train.precision");
}

// What is recorded must be the same work for every micro-batch.
void judge_cuda_graphs(Judgement& judge) {
  const Recipe& recipe = judge.recipe;
  if (!recipe.train.cuda_graphs) return;
  const auto need = [&](bool holds, const std::string& key, const std::string& what) {
    judge.require(holds, {"train.cuda_graphs", key}, "needs " + key + " " + what);
  };
  need(recipe.train.device != Device::kCpu, "train.device", "\"cuda\"");
  need(recipe.objective.kind == "sft", "objective.kind", "\"sft\"");
  need(recipe.data.packing != Packing::kNone, "data.packing", "other than \"none\": rows of one length");
  need(recipe.train.precision != Dtype::kFp16, "train.precision", "other than \"fp16\", whose loss scale changes");
  need(zero_stage(recipe.parallel) < 2, "parallel.zero", "below 2: gradients that stay where they are");
  need(recipe.peft.method.empty() || recipe.peft.method == "lora", "peft.method", "\"lora\" or none");
  need(recipe.peft.lora_dropout.value_or(0) == 0, "peft.lora_dropout", "0: masks would be the same in every step");
}

void judge_evaluation(Judgement& judge) {
  const Recipe& recipe = judge.recipe;
  const bool stops = recipe.eval.early_stopping_patience > 0;
  if (recipe.data.eval.empty()) {
    const std::string problem = "needs [[data.eval]]";
    judge.require(!recipe.checkpoint.best, {"checkpoint.best"}, problem);
    judge.require(!stops, {"eval.early_stopping_patience"}, problem);
    judge.require(!recipe.eval.at_start, {"eval.at_start"}, problem);
  }
  if (recipe.checkpoint.best || stops) {
    const bool greater = recipe.eval.metric != "eval_loss";
    judge.require(
        recipe.eval.greater_is_better == greater, {"eval.greater_is_better", "eval.metric"},
        "of " + recipe.eval.metric + " the " + (greater ? "greater" : "lower") +
            " is better: eval.greater_is_better must be " + (greater ? "true" : "false"));
  }
}

void judge_export(Judgement& judge) {
  static const std::regex size(R"(\d+(\.\d+)? ?([KMGT]i?)?B)");
  judge.require(std::regex_match(judge.recipe.export_.max_shard_size, size),
                {"export.max_shard_size"}, "must be a size, as \"5GB\" or \"800MiB\"");
}

// ---- ranks -------------------------------------------------------------------------------------

const std::vector<std::string>& axes() {
  static const std::vector<std::string> names = {"parallel.replicate", "parallel.shard",
                                                 "parallel.tensor",    "parallel.pipeline",
                                                 "parallel.context",   "parallel.expert"};
  return names;
}

// "; nearest: parallel.shard = 2 or 4": those that divide the ranks.
std::string nearest_shards(int64_t shard, int64_t ranks) {
  if (shard == 1 || ranks < 1 || ranks % shard == 0) return "";
  int64_t below = std::min(shard, ranks), above = shard;
  while (ranks % below != 0) --below;
  while (above < ranks && ranks % above != 0) ++above;
  return "; nearest: parallel.shard = " + text(below) + (above <= ranks && above > below ? " or " + text(above) : "");
}

void judge_axes(Judgement& judge, int64_t world_size) {
  if (!judge.findings.clean(axes())) return;  // and the product below cannot overflow
  const Parallel& parallel = judge.recipe.parallel;
  const int64_t others =
      parallel.shard * parallel.tensor * parallel.pipeline * parallel.context * parallel.expert;
  const int64_t product = others * parallel.replicate.value_or(1);
  const bool fits = parallel.replicate ? product == world_size : world_size % others == 0;
  judge.require(fits, axes(),
                "the product of the axes is " + text(product) + ", but there " +
                    (world_size == 1 ? "is 1 rank" : "are " + text(world_size) + " ranks") +
                    " (\"auto\" takes what the others leave" +
                    (parallel.replicate ? "" : nearest_shards(parallel.shard, world_size * parallel.shard / others)) +
                    ")");
}

void judge_backend(Judgement& judge) {
  const Recipe& recipe = judge.recipe;
  judge.require(recipe.parallel.backend != Backend::kNccl || recipe.train.device != Device::kCpu,
                {"parallel.backend", "train.device"}, "needs train.device = \"cuda\"; the CPU has \"mpi\"");
}

void judge_rendezvous(Judgement& judge) {
  const auto rendezvous = read_rendezvous(judge.recipe.parallel.rendezvous);
  judge.require(rendezvous.has_value(), {"parallel.rendezvous"},
                "must be \"mpi\", \"tcp://host:port\" or \"file:///path\"");
  judge.require(!rendezvous || rendezvous->kind == Rendezvous::Kind::kMpi ||
                    judge.recipe.train.device == Device::kCuda,
                {"parallel.rendezvous", "train.device"},
                "needs train.device = \"cuda\": ranks on the CPU meet over MPI (\"mpi\")");
}

void judge_sharding(Judgement& judge) {
  const Recipe& recipe = judge.recipe;
  const Parallel& parallel = recipe.parallel;
  if (parallel.shard == 1) {
    judge.require(!parallel.zero, {"parallel.zero"},
                  "needs parallel.shard above 1: the ranks that share one copy");
    return;
  }
  // What every rank computes from whole gradients or float32 weights.
  judge.require(recipe.peft.method != "adalora", {"parallel.shard", "peft.method"},
                "must be 1 with peft.method = \"adalora\", which ranks its directions by whole "
                "gradients");
  const bool whole_masters = zero_stage(parallel) < 3 && recipe.train.precision == Dtype::kFp32 &&
                             recipe.model.dtype == Dtype::kFp32;
  judge.require(!recipe.objective.sync_ref_model.value_or(false) || whole_masters,
                {"parallel.shard", "objective.sync_ref_model"},
                "must be 1 with objective.sync_ref_model = true, which follows whole float32 "
                "weights (or set train.precision and model.dtype to \"fp32\" and parallel.zero to 1 "
                "or 2)");
  judge.require(zero_stage(parallel) < 3 || !changes_base(recipe.peft),
                {"parallel.zero", "peft.init_lora_weights"},
                "needs parallel.zero = 1 or 2: pissa, olora and loftq change the base, which "
                "parallel.zero = 3 shares out");
}

void judge_batch(Judgement& judge, int64_t ranks) {
  const Batch& batch = judge.recipe.batch;
  if (!judge.findings.clean({"batch.global", "batch.micro"})) return;
  const int64_t unit = batch.micro * ranks;
  const auto [below, above] = nearest_multiples(batch.global, unit);
  // The line may stand at batch.micro, when that alone was written.
  const bool names_global =
      judge.findings.place("batch.global") || !judge.findings.place("batch.micro");
  judge.require(batch.global % unit == 0, {"batch.global", "batch.micro"},
                (names_global ? "" : "batch.global = " + text(batch.global) + " ") +
                    "must be a multiple of batch.micro x data-parallel ranks = " +
                    text(batch.micro) + " x " + text(ranks) + " = " + text(unit) +
                    " (nearest: " + (below > 0 ? text(below) + " or " : "") + text(above) + ")");
}

// The order of sums in layout-exact mode is a binary tree over the micro-batches of a step.
void judge_layout(Judgement& judge, int64_t ranks) {
  const Recipe& recipe = judge.recipe;
  if (recipe.run.deterministic != Deterministic::kLayout) return;
  const auto below = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(ranks)));
  judge.require(below == ranks, {"run.deterministic"},
                "needs a power of two of data-parallel ranks, not " + text(ranks) +
                    " (nearest: " + text(below) + " or " + text(2 * below) + ")");
  const ObjectiveKind* kind = find_objective_kind(recipe.objective.kind);
  const NamesOrPattern loss = recipe.objective.loss_type.value_or("kto");
  judge.require(!kind || kind->name != "kto" || loss != NamesOrPattern("kto"),
                {"run.deterministic", "objective.loss_type"},
                "cannot be \"layout\" with kto's loss_type = \"kto\", whose KL is of the "
                "micro-batches that the ranks have at the same time");
  const bool samples = kind && (kind->samples || samples_completions(resolve(recipe).objective));
  judge.require(!samples, {"run.deterministic", "objective.kind"},
                "cannot be \"layout\" with an objective that samples, in this version");
}

}  // namespace

std::pair<int64_t, int64_t> nearest_multiples(int64_t value, int64_t unit) {
  const int64_t below = value / unit * unit;
  return {below, below + unit};
}

int64_t data_parallel_ranks(const Parallel& parallel, int64_t world_size) {
  return world_size / (parallel.tensor * parallel.pipeline * parallel.context * parallel.expert);
}

void validate(const Recipe& recipe, const Setting& setting, Findings& findings) {
  Judgement judge{recipe, findings};
  judge_what_works(judge);
  judge_presence(judge, setting.purpose);
  judge_run_name(judge);
  judge_data(judge);
  judge_optimizer(judge);
  judge_schedule_keys(judge);
  judge_schedule_numbers(judge);
  judge_patterns(judge);
  judge_float8(judge);
  judge_cuda_graphs(judge);
  judge_evaluation(judge);
  judge_export(judge);
  judge_peft(judge, setting.purpose);
  judge_objective(judge, setting.purpose);
  judge_backend(judge);
  judge_rendezvous(judge);
  judge_sharding(judge);
  if (setting.purpose != Purpose::kTrain) return;
  const int64_t world_size = setting.world_size.value_or(1);
  if (setting.world_size) judge_axes(judge, world_size);
  if (!findings.clean(axes())) return;
  const int64_t ranks =
      std::max<int64_t>(1, data_parallel_ranks(recipe.parallel, world_size));
  judge_batch(judge, ranks);
  judge_rollouts(judge, ranks);
  judge_layout(judge, ranks);
}

}  // namespace temper::recipes
