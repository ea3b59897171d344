#include "trainer/checkpoints.h"

#include <ATen/ATen.h>

#include <cmath>
#include <optional>

#include "parallel/log.h"
#include "parallel/trace.h"
#include "recipes/diagnostic.h"
#include "recipes/resolve.h"
#include "trainer/adapters/adapter_config.h"
#include "trainer/checkpoint/manifest.h"
#include "trainer/checkpoint/piece.h"
#include "trainer/checkpoint/state.h"
#include "trainer/recorder.h"
#include "trainer/run.h"
#include "trainer/run_directory.h"

namespace temper::trainer {

struct Checkpoints::State {
  Run& run;
  const RunDirectory& directory;
  Recorder& recorder;
  std::optional<LossScaler>& loss_scaler;
  CheckpointWriter writer;
  int64_t newest = 0;
  std::optional<double> best_metric{};
  std::optional<int64_t> best_step{};
  int64_t evaluations_without_improvement = 0;
  PendingLine pending_line{};
  std::string failure{};  // of this rank, not yet agreed on
};

namespace {

NamedTensors tensors_of(Run& run) {
  NamedTensors tensors;
  for (const Parameter& parameter : run.model->parameters()) {
    // The base of adapters is where it came from, and does not change.
    if (run.adapters && !parameter.trainable()) continue;
    if (run.sharded && parameter.trainable()) continue;
    if (run.blocks && run.blocks->holds(parameter)) {
      for (const ShardedBlocks::Piece& piece : run.blocks->pieces_of(parameter)) {
        tensors.emplace_back("weights/" + piece_name(parameter.name, parameter.value.sizes(), piece.begin, piece.value.numel()), piece.value);
      }
    } else {
      tensors.emplace_back("weights/" + parameter.name, parameter.master);
    }
  }
  if (run.sharded) {
    for (const Parameter& piece : run.sharded->pieces()) tensors.emplace_back("weights/" + piece.name, piece.master);
  }
  if (run.adapters) {
    for (auto& [name, tensor] : run.adapters->start()) tensors.emplace_back("start/" + name, tensor);
  }
  if (run.adapters && run.adapters->allocator()) {
    for (auto& [name, tensor] : run.adapters->allocator()->state()) tensors.emplace_back("ranks/" + name, tensor);
  }
  if (run.reference) {
    for (auto& [name, tensor] : run.reference->state()) tensors.emplace_back("reference/" + name, tensor);
  }
  for (auto& [name, tensor] : run.optimizer->state()) tensors.emplace_back("optimizer/" + name, tensor);
  return tensors;
}

// Whole tensors, and of the pieces, which all replicas have, those that are this one's to write.
NamedTensors written_by(const Run& run, NamedTensors tensors) {
  const int64_t replicas = run.mesh->shape().size_of(parallel::Axis::kReplicate);
  const int64_t replica = run.mesh->coordinate(parallel::Axis::kReplicate);
  int64_t pieces = 0;
  std::erase_if(tensors, [&](const auto& named) { return piece_of(named.first) && pieces++ % replicas != replica; });
  return tensors;
}

// What batches come from: of sizes that only the checkpoint knows.
constexpr const char* kSource = "source/";

NamedTensors with_source(NamedTensors tensors, const StepSource& source) {
  for (auto& [name, tensor] : source.tensors()) tensors.emplace_back(kSource + name, tensor);
  return tensors;
}

NamedTensors source_of(const std::filesystem::path& checkpoint) {
  NamedTensors tensors;
  for (auto& [name, tensor] : read_checkpoint(checkpoint)) {
    if (name.starts_with(kSource)) tensors.emplace_back(name.substr(std::string_view(kSource).size()), tensor);
  }
  return tensors;
}

}  // namespace

Checkpoints::Checkpoints(Run& run, const RunDirectory& directory, Recorder& recorder, std::optional<LossScaler>& loss_scaler)
    : state_(new State{.run = run,
                       .directory = directory,
                       .recorder = recorder,
                       .loss_scaler = loss_scaler,
                       .writer = CheckpointWriter(directory.checkpoints(), run.world.rank, run.world.size,
                                                  run.recipe.checkpoint.async)}) {}

Checkpoints::~Checkpoints() = default;

int64_t Checkpoints::newest() const { return state_->newest; }

NamedTensors Checkpoints::weights(const NamedTensors& values) const {
  NamedTensors named, weights;
  for (const auto& [name, value] : values) {
    // Of what is trained there are masters.
    weights.emplace_back(name, at::empty(value.sizes(), value.requires_grad() ? at::kFloat : value.scalar_type()));
    named.emplace_back("weights/" + name, weights.back().second);
  }
  load_checkpoint(state_->directory.checkpoints() / step_directory(state_->newest), named);
  return weights;
}

PendingLine& Checkpoints::pending_line() { return state_->pending_line; }

int64_t Checkpoints::resume() {
  if (!state_->directory.checkpoint) return 0;
  Run& run = state_->run;
  const data::Json scalars = load_checkpoint(*state_->directory.checkpoint, tensors_of(run));
  if (run.sharded) {
    run.sharded->refresh_values();
  } else {
    refresh_values(*run.model);
  }
  if (run.reference) run.reference->restored();
  // A drawn base is the same on every machine; decompositions of stored weights need not be.
  if (run.adapters && !run.adapters->start().empty() && run.recipe.model.init == recipes::Init::kPretrained) {
    run.adapters->change_base_again(
        [&](const std::string& name) { return stored_tensor(run.inputs.model_directory, name, run.inputs.config); });
  }
  run.optimizer->updates = scalars.at("updates");
  state_->recorder.restore(scalars.at("recorder"));
  if (state_->loss_scaler && scalars.contains("loss_scaler")) {  // not where the run has been made in another type
    const data::Json& saved = scalars.at("loss_scaler");
    state_->loss_scaler->restore(
        {.scale = saved.at("scale"), .good_steps = saved.at("good_steps"), .overflows = saved.at("overflows")});
  }
  run.source->restore(scalars.at("source"), source_of(*state_->directory.checkpoint));
  if (scalars.contains("best_step")) {
    state_->best_step = scalars.at("best_step").get<int64_t>();
    state_->best_metric = scalars.at("best_metric").get<double>();
  }
  state_->evaluations_without_improvement = scalars.at("evaluations_without_improvement");
  if (scalars.contains("pending_line")) {
    state_->pending_line = {.due = true,
                            .grad_norm = scalars.at("pending_line").at("grad_norm"),
                            .learning_rate = scalars.at("pending_line").at("learning_rate")};
  }
  state_->newest = scalars.at("step");
  return state_->newest;
}

void Checkpoints::judge(int64_t step, const MetricLine& evaluation) {
  const recipes::Eval& eval = state_->run.recipe.eval;
  for (const auto& [name, value] : evaluation) {
    if (name != eval.metric) continue;
    const bool better = !state_->best_metric || (eval.greater_is_better ? value > *state_->best_metric
                                                                        : value < *state_->best_metric);
    if (better && std::isfinite(value)) {
      state_->best_metric = value;
      state_->best_step = step;
      state_->evaluations_without_improvement = 0;
    } else {
      ++state_->evaluations_without_improvement;
    }
    return;
  }
  std::vector<std::string> names;
  for (const auto& metric : evaluation) names.push_back(metric.first);
  throw UserError("eval.metric = \"" + eval.metric + "\": no such metric of an evaluation (there are: " + join(names) + ")");
}

bool Checkpoints::best_is(int64_t step) const { return state_->run.recipe.checkpoint.best && state_->best_step == step; }

bool Checkpoints::out_of_patience() const {
  const int64_t patience = state_->run.recipe.eval.early_stopping_patience;
  return patience > 0 && state_->evaluations_without_improvement >= patience;
}

void Checkpoints::begin(int64_t step) {
  State& s = *state_;
  if (s.newest == step) return;
  const parallel::TraceSpan span("checkpoint snapshot");
  // A failure of the earlier one stays in s.failure and is agreed on in the next step's exchange.
  if (s.writer.pending()) s.failure = complete();
  data::Json scalars = {{"step", step},
                        {"total_steps", s.run.total_steps},
                        {"updates", s.run.optimizer->updates},
                        {"recorder", s.recorder.state()},
                        {"source", s.run.source->state()},
                        {"evaluations_without_improvement", s.evaluations_without_improvement},
                        {"early_stopped", out_of_patience()},
                        {"recipe", recipes::to_toml(s.run.recipe)},
                        {"config", s.run.inputs.config.json},
                        {"model_directory", s.run.inputs.model_directory.string()},
                        {"tokenizer_directory", s.run.inputs.tokenizer_files.directory.string()},
                        {"added_tokens", s.run.inputs.tokenizer_files.added_tokens}};
  if (const Adapters* adapters = s.run.adapters.get()) {
    scalars["adapter"] = adapter_config(adapters->peft(), s.run.recipe.model.path, adapters->saved_targets(), s.run.inputs.config);
    scalars["adapter_seed"] = s.run.recipe.run.seed;
    scalars["adapter_dtype"] = std::string(c10::toString(adapter_dtype(adapters->peft())));
    scalars["adapter_start"] = s.run.recipe.model.adapter;
    scalars["base_drawn"] = s.run.recipe.model.init == recipes::Init::kRandom;
  }
  if (s.loss_scaler) {
    const LossScaler::State& state = s.loss_scaler->state();
    scalars["loss_scaler"] = {{"scale", state.scale}, {"good_steps", state.good_steps}, {"overflows", state.overflows}};
  }
  if (s.best_step) {
    scalars["best_step"] = *s.best_step;
    scalars["best_metric"] = *s.best_metric;
  }
  if (s.pending_line.due) {
    scalars["pending_line"] = {{"grad_norm", s.pending_line.grad_norm}, {"learning_rate", s.pending_line.learning_rate}};
  }
  try {
    s.writer.begin(step, {.tensors = written_by(s.run, with_source(tensors_of(s.run), *s.run.source)), .scalars = std::move(scalars)});
  } catch (const RunError& error) {
    s.failure = error.what();
  }
  s.newest = step;
}

void Checkpoints::report(StepSums& sums) {
  State& s = *state_;
  if (s.failure.empty() && s.writer.pending()) {
    try {
      sums.written = s.writer.rank_done() ? 1 : 0;
    } catch (const RunError& error) {
      s.failure = error.what();
    }
  }
  if (!s.failure.empty()) {
    parallel::warn(s.failure, true);
    sums.failed = 1;
  }
}

std::string Checkpoints::progress(const StepSums& sums) {
  State& s = *state_;
  if (sums.failed > 0) {
    return s.failure.empty() ? "stopped: another rank could not write its checkpoint" : s.failure;
  }
  if (s.writer.pending() && sums.written == static_cast<double>(s.run.world.size)) {
    const parallel::TraceSpan span("checkpoint commit");
    // Rank 0 writes the manifest and renames; the others just forget the pending step. What fails here is told in the next exchange.
    try {
      s.writer.commit(s.run.recipe.checkpoint.keep, s.run.recipe.checkpoint.best ? s.best_step : std::nullopt);
    } catch (const RunError& error) {
      s.failure = error.what();
    }
  }
  return "";
}

std::string Checkpoints::complete() {
  State& s = *state_;
  StepSums sums;
  try {
    s.writer.wait();
  } catch (const RunError& error) {
    s.failure = error.what();
  }
  report(sums);
  exchange(sums, *s.run.communicator);
  if (const std::string problem = progress(sums); !problem.empty()) return problem;
  StepSums committed;
  report(committed);
  exchange(committed, *s.run.communicator);
  return progress(committed);
}

}  // namespace temper::trainer
