#include "trainer/run.h"

#include <algorithm>
#include <cmath>
#include <regex>

#include <ATen/core/grad_mode.h>

#include "data/formats/row_encoder.h"
#include "data/hub/repository.h"
#include "data/loader/stream_loader.h"
#include "data/shards/first_rows.h"
#include "data/shards/prepare.h"
#include "data/shards/token_dataset.h"
#include "data/text/chat_template.h"
#include "recipes/diagnostic.h"
#include "recipes/objective_kinds.h"
#include "trainer/adapter_start.h"
#include "trainer/adapters/adapter_files.h"
#include "trainer/device_rules.h"
#include "trainer/make_reference.h"
#include "trainer/objectives/rollout_objective.h"
#include "trainer/ops/cpu_allocator.h"
#include "trainer/ops/device.h"
#include "trainer/optimizers/offloaded.h"
#include "trainer/rollouts/plan.h"
#include "trainer/rollouts/rollouts.h"
#include "trainer/models/quantization.h"
#include "trainer/models/rope_frequencies.h"
#include "trainer/models/value_head.h"
#include "trainer/teacher.h"

namespace temper::trainer {

namespace {

namespace fs = std::filesystem;

at::ScalarType scalar_type(recipes::Dtype dtype) {
  switch (dtype) {
    case recipes::Dtype::kFp32:
      return at::kFloat;
    case recipes::Dtype::kBf16:
      return at::kBFloat16;
    case recipes::Dtype::kFp16:
      return at::kHalf;
  }
  return at::kFloat;
}

std::optional<Float8Scaling> float8_scaling(recipes::Float8 float8) {
  switch (float8) {
    case recipes::Float8::kNone:
      return {};
    case recipes::Float8::kTensorwise:
      return Float8Scaling::kTensorwise;
    case recipes::Float8::kRowwise:
      return Float8Scaling::kRowwise;
  }
  return {};
}

// The model that the objective is for: a reward model has a head with one output.
ModelConfig with_head_for(const std::string& kind, ModelConfig config, const data::Tokenizer& tokenizer, const fs::path& directory) {
  if (recipes::find_objective_kind(kind)->rows_only) return config;
  if (kind != "reward") {
    if (config.num_labels == 0) return config;
    throw UserError(directory.string() + ": a " + config.architecture + " gives scores, not text: use objective.kind = \"reward\", or the model it was made of");
  }
  if (config.num_labels == 0) return with_score_head(std::move(config), 1, tokenizer.pad_id() ? tokenizer.pad_id() : tokenizer.eos_id());
  if (config.num_labels == 1) return config;
  throw UserError(directory.string() + ": a head of " + std::to_string(config.num_labels) +
                  " labels, but a reward model has one (id2label in config.json)");
}

// A prompt alone is no row to learn from unless each step answers it.
void check_answered(const recipes::Recipe& recipe, const std::string& path) {
  const recipes::Objective& objective = recipe.objective;
  if (!objective.teacher) return;
  if (objective.lmbda.value_or(0) < 1 && !objective.seq_kd.value_or(false)) {
    throw UserError(path + ": its rows are prompts without completions, which objective.kind = \"" + objective.kind +
                    "\" learns only with objective.lmbda = 1 (the student answers) or objective.seq_kd = true (the teacher does)");
  }
  if (recipe.data.on_long_row == recipes::OnLongRow::kTruncate) {
    throw UserError("data.on_long_row = \"truncate\": the rows of " + path +
                    " are prompts, and one without its end is another prompt: must be \"drop\" or \"error\"");
  }
}

data::EncoderFactory encoder_factory(const recipes::Recipe& recipe, const Inputs& inputs) {
  std::optional<data::ChatTemplate> chat = data::ChatTemplate::load(inputs.tokenizer_files.directory);
  if (!chat) chat = data::ChatTemplate::load(inputs.model_directory);
  const data::RowEncoderOptions encoder = data::row_encoder_options(recipe);
  return [&recipe, &inputs, encoder, chat](const recipes::DataSource& source, const data::Row& first_row) {
    const data::RowEncoder made = data::RowEncoder::make(encoder, source, first_row, inputs.tokenizer, chat);
    if (made.format() == "prompt") check_answered(recipe, source.path);
    return data::source_encoder(made);
  };
}

data::PrepareOptions prepare_options(const recipes::Recipe& recipe, const parallel::World& world) {
  data::PrepareOptions options = data::settings_of(recipe.data);
  options.rank = world.rank;
  options.ranks = world.size;
  return options;
}

// How many linear layers compute in float8; none is an error.
void look_at_float8(Run& run) {
  if (run.recipe.train.float8 == recipes::Float8::kNone) return;
  ModelOptions options = model_options(run.recipe);
  options.device = at::kMeta;
  const auto shapes = build_model(run.inputs.config, options);
  const std::vector<LinearSlot> layers = shapes->linears();
  const auto taken = std::ranges::count_if(
      layers, [](const LinearSlot& layer) { return takes_float8(layer.out_features, layer.in_features); });
  const std::string unfit = "sizes that are no multiples of 16";
  if (taken == 0) throw UserError("train.float8: all linear layers of the model have " + unfit + ": must be \"none\"");
  std::string line = "train.float8: " + std::to_string(taken) + " of " + std::to_string(layers.size()) + " linear layers of the blocks";
  if (taken < std::ssize(layers)) line += " (the others have " + unfit + ")";
  if (run.device.is_cpu() && run.recipe.train.device != recipes::Device::kCuda) line += "; emulated on the CPU, no faster";
  run.datasets.statements.push_back(line);
}

// An epoch is unknown: as transformers counts it, all steps are one.
void open_stream(Run& run) {
  const recipes::Data& data = run.recipe.data;
  auto stream = std::make_unique<data::StreamLoader>(data.train, encoder_factory(run.recipe, run.inputs),
                                                     prepare_options(run.recipe, run.world), run.loader_options,
                                                     data.shuffle ? data.shuffle_buffer : data.packing_window);
  const data::PrepareReport& first = stream->first_rows();
  for (const std::string& line : data::statements_of("data.train, streamed, the first rows", first, data.max_length)) {
    run.datasets.statements.push_back(line);
  }
  run.datasets.train_rows = first.rows;
  run.datasets.train_tokens = first.tokens;
  run.datasets.train_supervised = first.supervised;
  run.sequences = stream->first_sequences();
  run.total_steps = run.steps_per_epoch = *run.recipe.train.steps;
  run.mean_attended_length = stream->mean_length();
  run.loader = std::move(stream);
}

}  // namespace

void choose_trainable(Model& model, const recipes::Train& train) {
  const auto matches = [](const std::vector<std::string>& patterns, const std::string& name) {
    return std::any_of(patterns.begin(), patterns.end(),
                       [&](const std::string& pattern) { return std::regex_search(name, std::regex(pattern)); });
  };
  int64_t trainable = 0;
  for (Parameter& parameter : model.parameters()) {
    // A new head is noise until it is trained.
    const bool new_head = model.config().new_head && parameter.name == "score.weight";
    const bool trained = new_head || ((train.trainable.empty() || matches(train.trainable, parameter.name)) &&
                                      !matches(train.frozen, parameter.name));
    parameter.value.set_requires_grad(trained);
    if (!trained) parameter.master = parameter.value;  // nothing to add small steps to
    trainable += trained;
  }
  if (trainable == 0) throw UserError("train.trainable, train.frozen: no parameter is left to train");
}

Inputs read_inputs(const recipes::Recipe& recipe) {
  const fs::path directory = data::model_directory(recipe.model.path, "model.path", recipe.model.download);
  const fs::path adapter = recipe.model.adapter;
  const TokenizerFiles files{adapter.empty() ? directory : tokenizer_of(adapter, directory), recipe.model.add_tokens};
  Inputs inputs{.config = load_config(directory),
                .tokenizer = data::Tokenizer::load(files.directory, files.added_tokens),
                .model_directory = directory,
                .tokenizer_files = files};
  inputs.config = with_head_for(recipe.objective.kind, std::move(inputs.config), inputs.tokenizer, directory);
  const std::vector<int32_t>& added = inputs.tokenizer.added_ids();
  if (!added.empty() && !adapter.empty()) {
    throw UserError("model.add_tokens: " + adapter.string() + " has been trained without them: leave model.adapter out, or model.add_tokens");
  }
  if (!added.empty() || files.directory != directory) {
    inputs.config = with_tokens(inputs.config, inputs.tokenizer.size(), added);
  }
  if (inputs.tokenizer.size() > inputs.config.vocab_size) {
    throw UserError(directory.string() + ": the tokenizer has " + std::to_string(inputs.tokenizer.size()) +
                    " ids, but config.json has vocab_size = " + std::to_string(inputs.config.vocab_size) +
                    ": the two belong to different models");
  }
  if (recipe.objective.teacher) teacher_config(recipe, inputs);
  const recipes::Peft peft = recipe.model.adapter.empty() ? recipe.peft : read_adapter_config(recipe.model.adapter);
  const int64_t virtual_tokens = peft.num_virtual_tokens.value_or(0);
  if (recipe.data.max_length + virtual_tokens > inputs.config.max_position_embeddings) {
    throw UserError("data.max_length = " + std::to_string(recipe.data.max_length) +
                    (virtual_tokens > 0 ? " and num_virtual_tokens = " + std::to_string(virtual_tokens) : "") +
                    ": above the model's max_position_embeddings = " + std::to_string(inputs.config.max_position_embeddings) + " (" +
                    (directory / "config.json").string() + ")");
  }
  return inputs;
}

Datasets prepare_datasets(const recipes::Recipe& recipe, const Inputs& inputs, const parallel::World& world) {
  const data::EncoderFactory factory = encoder_factory(recipe, inputs);
  const data::PrepareOptions options = prepare_options(recipe, world);
  Datasets datasets;
  const auto prepare = [&](const std::string& set, const std::vector<recipes::DataSource>& sources, data::PrepareReport& report) {
    auto dataset = data::prepare(sources, factory, options, &report);
    for (std::string& line : data::statements_of(set, report, recipe.data.max_length)) datasets.statements.push_back(std::move(line));
    return dataset;
  };
  const bool prepares_train = !recipe.data.train.empty() && !recipe.data.streaming;
  // Of both sets, before any file is read as a whole.
  std::vector<recipes::DataSource> sources = recipe.data.eval;
  if (prepares_train) sources.insert(sources.begin(), recipe.data.train.begin(), recipe.data.train.end());
  data::check_first_rows(sources, factory, options);
  data::PrepareReport train, eval;
  if (prepares_train) datasets.train = prepare("data.train", recipe.data.train, train);
  if (!recipe.data.eval.empty()) datasets.eval = prepare("data.eval", recipe.data.eval, eval);
  datasets.train_rows = train.rows;
  datasets.train_tokens = train.tokens;
  datasets.train_supervised = train.supervised;
  return datasets;
}

ModelOptions model_options(const recipes::Recipe& recipe, at::Device device) {
  ModelOptions options{.compute = scalar_type(recipe.train.precision),
                       .weights = scalar_type(recipe.model.dtype),
                       .activation_checkpointing = static_cast<int>(recipe.train.activation_checkpointing),
                       .frozen = !recipe.peft.method.empty() || !recipe.model.adapter.empty(),
                       .double_quant = recipe.model.double_quant,
                       .device = device};
  options.quantize = quant_kind(recipe.model.quantize);
  options.float8 = float8_scaling(recipe.train.float8);
  return options;
}

int64_t total_steps(const recipes::Recipe& recipe, int64_t steps_per_epoch) {
  if (recipe.train.steps) return *recipe.train.steps;
  return static_cast<int64_t>(std::ceil(recipe.train.epochs * static_cast<double>(steps_per_epoch)));
}

std::optional<int64_t> exact_micro_batches(const recipes::Recipe& recipe, int64_t ranks) {
  if (recipe.run.deterministic != recipes::Deterministic::kLayout) return {};
  return recipe.batch.global / (recipe.batch.micro * ranks);
}

Run assemble(recipes::Recipe recipe, Inputs inputs, Datasets datasets, const parallel::World& world, at::Device device) {
  check_device_does(recipe, device, compute_capability(device));
  Run run{.recipe = std::move(recipe), .inputs = std::move(inputs), .datasets = std::move(datasets), .world = world, .device = device};
  look_at_float8(run);
  const recipes::Recipe& r = run.recipe;
  run.loader_options = {.global = r.batch.global,
                        .micro = r.batch.micro,
                        .rank = world.rank,
                        .ranks = world.size,
                        .shuffle = r.data.shuffle,
                        .drop_last = r.data.drop_last,
                        .group_by_length = r.data.group_by_length,
                        .seed = r.run.seed,
                        .max_length = r.data.max_length,
                        .packing = r.data.packing,
                        .packing_window = r.data.packing_window};
  if (const std::vector<std::string>& dropout = run.inputs.config.dropout; !dropout.empty()) {
    run.datasets.statements.push_back("config.json: " + join(dropout) + ": the model's own dropout is not applied");
  }
  run.objective = build_objective(r.objective);
  run.loader_options.row_layout = run.objective->row_layout();
  if (run.loader_options.row_layout) run.loader_options.row_layout->share_prefixes = !depends_on_length(run.inputs.config.rope);
  int64_t steps_of_a_row = 1;
  const bool rollouts = dynamic_cast<const RolloutObjective*>(run.objective.get()) != nullptr;
  if (rollouts) {
    const RolloutPlan plan = rollout_plan(r, world.size);
    run.loader_options.global = plan.prompts();
    run.loader_options.micro = 1;
    steps_of_a_row = plan.iterations;
  }
  if (rollouts || recipes::samples_completions(r.objective)) check_rollouts(run);
  if (r.data.streaming && !r.data.train.empty()) {
    open_stream(run);
  } else if (run.datasets.train) {
    auto loader = std::make_unique<data::DataLoader>(run.datasets.train, run.loader_options);
    run.sequences = loader->sequences();
    run.steps_per_epoch = loader->steps_per_epoch() * steps_of_a_row;
    run.loader = std::move(loader);
    run.total_steps = total_steps(r, run.steps_per_epoch);
    if (run.total_steps < 1) {
      throw UserError("data.train: " + std::to_string(run.sequences) + " sequences make no step of batch.global = " +
                      std::to_string(r.batch.global) + " with data.drop_last = true");
    }
    run.mean_attended_length = run.datasets.train->mean_length();
  }
  return run;
}

void make_mesh(Run& run) {
  run.mesh = std::make_unique<parallel::Mesh>(parallel::mesh_shape(run.recipe.parallel, run.world.size), *run.communicator);
}

// Full fine-tuning: before weights are loaded, so that no rank ever has them all. Of adapters' bases afterwards, since many starts
// read or change them.
void shard_blocks(Run& run, bool adapters) {
  const recipes::Parallel& layout = run.recipe.parallel;
  if (!run.mesh || recipes::zero_stage(layout) < 3) return;
  run.blocks = std::make_unique<ShardedBlocks>(*run.model, run.mesh->group(parallel::Axis::kShard), layout.bucket_mib << 20,
                                               ShardedBlocksOptions{.reshard = layout.reshard, .adapters = adapters});
  run.model->block_hooks() = run.blocks.get();
}

void fill_model(Run& run, const std::optional<fs::path>& checkpoint) {
  const ModelOptions options = model_options(run.recipe, run.device);
  run.model = build_model(run.inputs.config, options);
  if (!options.frozen) {
    choose_trainable(*run.model, run.recipe.train);
    shard_blocks(run, /*adapters=*/false);
  }
  if (run.recipe.model.init == recipes::Init::kPretrained) {
    load_weights(*run.model, options, run.inputs.model_directory);
    draw_head(*run.model, run.recipe.run.seed);
  } else {
    draw_weights(*run.model, options, run.recipe.run.seed);
  }
  if (const fs::path adapter = run.recipe.model.adapter; !adapter.empty()) {
    run.adapters = load_adapter(adapter, *run.model, options, stored_base(run));
  } else if (options.frozen) {
    run.adapters = start_adapters(run, options, checkpoint);
  }
  if (run.adapters && run.recipe.export_.merge) {
    if (run.recipe.model.init == recipes::Init::kRandom) {
      throw UserError("export.merge: a base that was drawn (model.init = \"random\") is nowhere to merge into");
    }
    run.adapters->check_mergeable();
  }
  if (run.objective->needs_reference()) run.reference = make_reference(run);
  if (run.objective->needs_value_head()) {
    add_value_head(*run.model, options);
    draw_value_head(*run.model, run.recipe.run.seed);
  }
  if (options.frozen) shard_blocks(run, /*adapters=*/true);
  release_idle_cpu_memory();
}

void prepare(Run& run, data::StepBatches& batches, int64_t step) {
  const at::NoGradGuard no_grad;
  run.objective->prepare(batches, {.model = *run.model,
                                   .reference = step == 0 && run.eval_reference ? run.eval_reference.get() : run.reference.get(),
                                   .communicator = *run.communicator,
                                   .step = step,
                                   .max_length = run.recipe.data.max_length,
                                   .temperature = run.recipe.generation.temperature.value_or(1)});
  end_passes(*run.model);
}

// LoRA+ (Hayou et al. 2024, arXiv:2402.12354): B and whatever is a vector learn faster than A, an adapted embedding at a rate of its own
// (PEFT's groups), and all without the recipe's decay.
void set_rates(std::vector<Parameter>& parameters, const recipes::Optimizer& optimizer) {
  if (!optimizer.loraplus_lr_ratio) return;
  for (Parameter& parameter : parameters) {
    if (parameter.name.find(".lora_embedding_") != std::string::npos) {
      parameter.lr_scale = optimizer.loraplus_lr_embedding / optimizer.lr.value();
    } else if (parameter.name.ends_with("lora_B.weight") || parameter.value.dim() == 1) {
      parameter.lr_scale = *optimizer.loraplus_lr_ratio;
    }
  }
}

std::vector<int64_t> bucket_units(const recipes::Recipe& recipe, const std::vector<Parameter>& parameters) {
  std::vector<int64_t> units;
  const bool exact = recipe.run.deterministic == recipes::Deterministic::kLayout;
  const int64_t stage = recipes::zero_stage(recipe.parallel);
  if (exact || stage == 3) {
    for (const Parameter& parameter : parameters) units.push_back(parameter.block);
  } else if (stage == 0) {
    const auto first = std::ranges::find_if(parameters, &Parameter::trainable);
    if (first == parameters.end() || first->value.dim() != 2 || first->value.numel() < parallel::kLargeMatrix) return units;
    for (const Parameter& parameter : parameters) units.push_back(&parameter == &*first);
  }
  return units;
}

// On the CPU everything is in host memory as it is.
std::unique_ptr<Optimizer> make_optimizer(const Run& run, std::vector<Parameter>& parameters) {
  recipes::Optimizer optimizer = run.recipe.optimizer;
  if (optimizer.loraplus_lr_ratio) optimizer.weight_decay = optimizer.loraplus_weight_decay;
  const bool offload = run.recipe.parallel.offload == recipes::Offload::kOptimizer && !run.device.is_cpu();
  if (!offload) return build_optimizer(optimizer, parameters);
  return build_offloaded_optimizer(optimizer, parameters, {.masters = run.adapters == nullptr});
}

// Everything that follows is in order on the stream that passes are recorded on; hooks of gradients belong to it, too. So no node that
// accumulates a gradient may be older: at the end of a recorded backward autograd would wait for its stream, which ends the recording.
void start_recording(Run& run) {
  if (!run.recipe.train.cuda_graphs) return;
  if (depends_on_length(run.inputs.config.rope)) {
    throw UserError("train.cuda_graphs: this model's rope_type is " + run.inputs.config.rope.type +
                    ", whose angles the host makes for each document: must be false");
  }
  use_own_stream(run.device);
  run.recorded = std::make_unique<RecordedPasses>(run.device, run.recipe.data.max_length);
}

void prepare_training(Run& run) {
  start_recording(run);
  if (run.reference && run.recipe.objective.precompute_ref_log_probs.value_or(false)) {
    const WholeBlocks whole(run.blocks.get());
    store_references(run);
  }
  set_rates(run.model->parameters(), run.recipe.optimizer);
  std::vector<at::Tensor> values;
  for (const Parameter& parameter : run.model->parameters()) values.push_back(parameter.value);
  const recipes::Parallel& layout = run.recipe.parallel;
  parallel::Communicator& shard = run.mesh->group(parallel::Axis::kShard);
  // Masters that go to the host make room for gradients.
  if (shard.size() == 1) run.optimizer = make_optimizer(run, run.model->parameters());
  run.reducer = std::make_unique<parallel::GradientReducer>(
      std::move(values), run.mesh->group(parallel::Axis::kReplicate), layout.bucket_mib << 20,
      exact_micro_batches(run.recipe, run.world.size),
      parallel::GradientSharding{.group = &shard, .keeps_segments = recipes::zero_stage(layout) >= 2},
      bucket_units(run.recipe, run.model->parameters()));
  if (run.blocks) run.blocks->join_backward_with([&reducer = *run.reducer] { reducer.join_backward(); });
  if (shard.size() > 1) {
    run.sharded = std::make_unique<ShardedParameters>(run.model->parameters(), *run.reducer, shard, run.adapters != nullptr, run.blocks.get());
    if (run.blocks) run.blocks->forget_masters();
    run.optimizer = make_optimizer(run, run.sharded->pieces());
    release_idle_cpu_memory();  // of the masters
  }
  run.source = make_step_source(run);
}

}  // namespace temper::trainer
