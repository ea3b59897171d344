#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/loader/loader.h"
#include "data/text/tokenizer.h"
#include "parallel/communicator.h"
#include "parallel/mesh.h"
#include "parallel/replicate/gradient_reducer.h"
#include "parallel/world.h"
#include "recipes/recipe.h"
#include "trainer/adapters/adapters.h"
#include "trainer/checkpoint/export.h"
#include "trainer/models/model.h"
#include "trainer/objectives/objective.h"
#include "trainer/objectives/reference.h"
#include "trainer/optimizers/optimizer.h"
#include "trainer/recorded_passes.h"
#include "trainer/sharded_parameters.h"
#include "trainer/step_source.h"

/// Everything that a recipe and a world make, put together in one readable place:
///     read_inputs -> prepare_datasets -> assemble -> make_mesh -> fill_model -> prepare_training -> loop.h
namespace temper::trainer {

/// What is read before anything is built: cheap, and enough to refuse a recipe.
struct Inputs {
  ModelConfig config;
  data::Tokenizer tokenizer;  // with model.add_tokens
  std::filesystem::path model_directory;
  TokenizerFiles tokenizer_files;  // the model's, or those that model.adapter brings
};

/// config.json and tokenizer of recipe.model.path; checks that they belong together (a tokenizer larger than the embedding, ...).
/// Throws UserError with all findings.
Inputs read_inputs(const recipes::Recipe& recipe);

struct Datasets {
  std::shared_ptr<const data::TokenDataset> train;   // null without [[data.train]], and of a stream
  std::shared_ptr<const data::TokenDataset> eval;    // null without [[data.eval]]
  std::vector<std::string> statements;               // what was recognised, truncated, dropped: a line each
  int64_t train_rows = 0;
  int64_t train_tokens = 0;
  int64_t train_supervised = 0;  // of these
};

/// Tokenizes what the cache lacks, sharing the work with the other ranks; no collective. Training rows that are streamed are left
/// to assemble(). Throws UserError.
Datasets prepare_datasets(const recipes::Recipe& recipe, const Inputs& inputs, const parallel::World& world);

/// Of the weights on `device`.
ModelOptions model_options(const recipes::Recipe& recipe, at::Device device = at::kCPU);

/// Full fine-tuning unless the recipe names what is trained or frozen (BitFit: train.trainable = ["bias$"]); what is frozen has no
/// master. Throws UserError when nothing is left to train.
void choose_trainable(Model& model, const recipes::Train& train);

struct Run {
  recipes::Recipe recipe;
  Inputs inputs;
  Datasets datasets;
  parallel::World world;
  at::Device device = at::kCPU;  // of weights, gradients, states and activations; batches, losses and metrics are on the host
  std::unique_ptr<parallel::Communicator> communicator{};
  data::LoaderOptions loader_options{};
  std::unique_ptr<Model> model{};
  std::unique_ptr<Adapters> adapters{};                     // null for full fine-tuning
  std::unique_ptr<Objective> objective{};
  std::unique_ptr<Reference> reference{};                   // null unless the objective needs one
  std::unique_ptr<Reference> eval_reference{};              // of [[data.eval]], where that is another: stored log-probabilities
  std::unique_ptr<data::Loader> loader{};                   // null when only evaluating
  std::unique_ptr<StepSource> source{};                     // null when only evaluating
  std::unique_ptr<parallel::Mesh> mesh{};                   // null when only evaluating
  std::unique_ptr<parallel::GradientReducer> reducer{};     // null when only evaluating
  std::unique_ptr<RecordedPasses> recorded{};               // null unless train.cuda_graphs
  std::unique_ptr<ShardedBlocks> blocks{};                  // null unless parallel.zero is 3
  std::unique_ptr<ShardedParameters> sharded{};             // null unless parallel.shard is above 1
  std::unique_ptr<Optimizer> optimizer{};                   // null when only evaluating
  int64_t total_steps = 0;
  int64_t steps_per_epoch = 0;       // total_steps of a stream
  int64_t sequences = 0;             // of an epoch, which train_tokens is of too; of a stream's first window
  double mean_attended_length = 0;   // tokens of the mean document, for FLOPs
};

/// Steps of the whole run: train.steps, or epochs x steps of an epoch.
int64_t total_steps(const recipes::Recipe& recipe, int64_t steps_per_epoch);

/// With run.deterministic = "layout": the micro-batches of a rank in a full step, whose numbers decide the order of sums.
std::optional<int64_t> exact_micro_batches(const recipes::Recipe& recipe, int64_t ranks);

/// What buckets of gradients do not mix: blocks, where their weights are gathered one by one, and on every layout that must give the
/// same bits; with replicas alone a large matrix that comes first and all the others (gradient_reducer.h); empty: they mix as they like.
std::vector<int64_t> bucket_units(const recipes::Recipe& recipe, const std::vector<Parameter>& parameters);

/// Everything but the weights: enough to know how many steps there are. The communicator is the caller's to add, since making one
/// is a collective and this is not. Throws UserError, also for what `device` does not do.
Run assemble(recipes::Recipe recipe, Inputs inputs, Datasets datasets, const parallel::World& world,
             at::Device device = at::kCPU);

/// Which ranks share what. Needs the communicator; before fill_model, which then keeps no more of the weights than ZeRO leaves this
/// rank. Collective.
void make_mesh(Run& run);

/// The model with its weights: read from model.path, or drawn from the seed; frozen and trainable as the recipe says, with the
/// adapters of [peft] or model.adapter; and the reference that the objective needs. `checkpoint`: what is going to be loaded into
/// it. Throws UserError. Collective where there is a mesh.
void fill_model(Run& run, const std::optional<std::filesystem::path>& checkpoint = {});

/// What the objective needs before the step's losses (Objective::prepare), in no-grad mode. Collective.
void prepare(Run& run, data::StepBatches& batches, int64_t step);

/// Gradient buckets, optimizer states, where batches come from, and the reference's log-probabilities where they are computed
/// once. Needs the communicator; `run` stays where it is. Collective.
void prepare_training(Run& run);

}  // namespace temper::trainer
