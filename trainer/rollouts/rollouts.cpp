#include "trainer/rollouts/rollouts.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "data/loader/loader.h"
#include "data/shards/token_dataset.h"
#include "parallel/log.h"
#include "parallel/seed.h"
#include "recipes/diagnostic.h"
#include "trainer/models/model.h"
#include "trainer/models/rope_frequencies.h"
#include "trainer/ops/token_log_probs.h"
#include "trainer/rollouts/completion_samples.h"
#include "trainer/rollouts/metrics.h"
#include "trainer/run.h"

namespace temper::trainer {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kAttempts = 4;                 // of zero_variance = "resample"
constexpr int64_t kBatchesWithoutVariance = 10;  // after which it is said

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

bool truncates_the_draw(const SamplingSettings& settings) {
  return settings.top_p < 1 || settings.top_k > 0 || settings.min_p > 0 ||
         settings.repetition_penalty != 1;
}

SamplingSettings rollout_settings(const Run& run) {
  const recipes::Generation& generation = run.recipe.generation;
  SamplingSettings settings;
  const std::filesystem::path config = run.inputs.model_directory / "generation_config.json";
  if (std::filesystem::exists(config)) {
    settings.eos_ids = settings_from(data::read_json(config)).eos_ids;
  }
  const std::optional<int32_t> eos = run.inputs.tokenizer.eos_id();
  if (eos &&
      std::find(settings.eos_ids.begin(), settings.eos_ids.end(), *eos) == settings.eos_ids.end()) {
    settings.eos_ids.insert(settings.eos_ids.begin(), *eos);
  }
  settings.temperature = generation.temperature.value_or(1.0);
  settings.top_p = generation.top_p.value_or(1.0);
  settings.top_k = generation.top_k.value_or(0);
  settings.min_p = generation.min_p.value_or(0.0);
  settings.repetition_penalty = generation.repetition_penalty.value_or(1.0);
  settings.max_new_tokens = run.recipe.objective.max_completion_length.value_or(512);
  settings.stop = generation.stop;
  return settings;
}

void check_room(const data::TokenDataset& prompts, const std::string& set, int64_t completion,
                const Run& run) {
  int64_t longest = 0;
  for (int64_t i = 0; i < prompts.size(); ++i) longest = std::max(longest, prompts.length(i));
  const int64_t room = run.inputs.config.max_position_embeddings;
  if (longest + completion <= room) return;
  throw UserError(
      "objective.max_completion_length = " + std::to_string(completion) +
      ": with the longest prompt of " + set + " (" + std::to_string(longest) +
      " tokens) above the model's max_position_embeddings = " + std::to_string(room) +
      "; at most " + std::to_string(std::max<int64_t>(0, room - longest)) +
      " (or data.max_length=" + std::to_string(std::max<int64_t>(0, room - completion)) + ")");
}

}  // namespace

void check_rollouts(const Run& run) {
  const int64_t completion = run.recipe.objective.max_completion_length.value_or(512);
  if (run.datasets.train) check_room(*run.datasets.train, "data.train", completion, run);
  if (run.datasets.eval) check_room(*run.datasets.eval, "data.eval", completion, run);
}

// A prompt to answer: where it stands in its generation batch, and the names of its draws.
struct Rollouts::Prompt {
  int32_t slice = 0, place = 0;
  data::TokenizedRow row;
  uint64_t seed = 0;
};

Rollouts::Rollouts(Run& run)
    : run_(run),
      objective_(dynamic_cast<RolloutObjective&>(*run.objective)),
      plan_(rollout_plan(run.recipe, run.world.size)),
      settings_(rollout_settings(run)),
      entropy_coef_(run.recipe.objective.entropy_coef.value_or(0)),
      last_entropy_(std::numeric_limits<double>::infinity()) {
  const recipes::Objective& objective = run.recipe.objective;
  layout_ = {.micro = run.recipe.batch.micro,
             .mask_truncated = objective.mask_truncated_completions.value_or(false),
             .temperature = settings_.temperature,
             .share_prompts = !depends_on_length(run.inputs.config.rope)};
  for (const recipes::Reward& reward : objective.rewards) {
    rewards_.push_back({.name = name_of(reward),
                        .weight = reward.weight,
                        .reward = build_reward(reward, settings_.max_new_tokens)});
  }
}

data::StepBatches Rollouts::next(int64_t step) {
  if (plan_.batch_of(step) != batch_) generate(step);
  data::StepBatches batches;
  const auto slice = static_cast<int32_t>(plan_.slice_of(step));
  batches.micro_batches = micro_batches(groups_, slice, run_.world.rank, run_.world.size, layout_);
  const recipes::Objective& objective = run_.recipe.objective;
  const bool adaptive = objective.use_adaptive_entropy.value_or(false);
  const bool applies = !adaptive || last_entropy_ <= objective.entropy_target.value_or(0.2);
  for (data::Batch& batch : batches.micro_batches) {
    batch.rollout.entropy_coef = applies ? entropy_coef_ : 0;
  }
  return batches;
}

std::vector<Rollouts::Prompt> Rollouts::prompts_of(int64_t batch) const {
  std::vector<Prompt> prompts;
  const int64_t own = plan_.prompts() / run_.world.size;
  for (int64_t slice = 0; slice < plan_.slices; ++slice) {
    int64_t place = run_.world.rank * own;
    for (data::Batch& row : run_.loader->step(batch * plan_.slices + slice).micro_batches) {
      const std::string name = "rollout/" + std::to_string(slice) + "/" + std::to_string(place);
      prompts.push_back({.slice = static_cast<int32_t>(slice),
                         .place = static_cast<int32_t>(place),
                         .row = std::move(row.tokenized.front()),
                         .seed = parallel::seed_of(run_.recipe.run.seed, name, 0, batch)});
      ++place;
    }
  }
  return prompts;
}

void Rollouts::generate(int64_t step) {
  const at::NoGradGuard no_grad;
  const auto start = Clock::now();
  batch_ = plan_.batch_of(step);
  SampledGroups own = sample_and_score(prompts_of(batch_));
  const std::string& zero_variance = run_.recipe.objective.zero_variance.value_or("keep");
  if (zero_variance == "resample") resample(own, batch_);
  if (zero_variance != "keep") leave_out(own);
  const double seconds = seconds_since(start);
  add_log_probs(own, !plan_.aligned() || objective_.penalizes_kl());
  groups_ = gather(own, *run_.communicator);
  const Advantages advantages = score(groups_);
  pending_ = metrics_of(groups_, advantages);
  watch_variance(advantages.zero_std_share);
  pending_.push_back({"generation_time", seconds, 1});
  warn_of_errors();
}

SampledGroups Rollouts::sample_and_score(const std::vector<Prompt>& prompts) {
  std::vector<SampleRequest> requests;
  SampledGroups groups;
  for (const Prompt& prompt : prompts) {
    requests.push_back(
        {.prompt = prompt.row.documents.front().ids, .samples = plan_.group, .seed = prompt.seed});
    groups.push_back(
        {.slice = prompt.slice,
         .place = prompt.place,
         .prompt = prompt.row.documents.front().ids,
         .completions = std::vector<SampledCompletion>(static_cast<size_t>(plan_.group))});
  }
  if (prompts.empty()) return groups;
  const data::Tokenizer& tokenizer = run_.inputs.tokenizer;
  const bool drawn = truncates_the_draw(settings_);
  std::vector<SampledCompletion*> submitted;
  const auto ended = [&](int64_t request, int64_t s, const Sampled& sampled) {
    SampledGroup& group = groups[static_cast<size_t>(request)];
    SampledCompletion& completion = group.completions[static_cast<size_t>(s)];
    completion.ids = sampled.ids;
    completion.truncated = sampled.finish_reason == "length";
    completion.sampling_log_probs = drawn ? sampled.drawn_log_probs : sampled.log_probs;
    const std::string& columns = prompts[static_cast<size_t>(request)].row.columns;
    const Completed completed{
        .prompt = tokenizer.decode(group.prompt, false),
        .completion = tokenizer.decode(completion.ids, true),
        .prompt_ids = group.prompt,
        .completion_ids = completion.ids,
        .truncated = completion.truncated,
        .columns = columns.empty() ? data::Json::object() : data::Json::parse(columns)};
    for (const NamedReward& reward : rewards_) reward.reward->submit(completed);
    submitted.push_back(&completion);
  };
  sample(*run_.model, tokenizer, requests, settings_, {.exact = run_.recipe.generation.exact},
         ended);
  for (const NamedReward& reward : rewards_) {
    const std::vector<double> scores = reward.reward->collect();
    TEMPER_CHECK(scores.size() == submitted.size(), "a score for each completion");
    for (size_t i = 0; i < scores.size(); ++i)
      submitted[i]->scores.push_back(static_cast<float>(scores[i]));
  }
  return groups;
}

// DAPO's dynamic sampling (Yu et al. 2025, arXiv:2503.14476): groups whose rewards are all equal
// give their place to other prompts, drawn at random, until rewards differ or the attempts are used
// up.
void Rollouts::resample(SampledGroups& groups, int64_t batch) {
  for (int64_t attempt = 1; attempt <= kAttempts; ++attempt) {
    if (groups.empty()) return;
    const at::Tensor equal = without_variance(scores_of(groups));
    std::vector<Prompt> prompts;
    std::vector<size_t> replaced;
    for (size_t g = 0; g < groups.size(); ++g) {
      if (!equal.const_data_ptr<bool>()[g]) continue;
      const std::string name = "resample/" + std::to_string(attempt) + "/" +
                               std::to_string(groups[g].slice) + "/" +
                               std::to_string(groups[g].place);
      const uint64_t seed = parallel::seed_of(run_.recipe.run.seed, name, 0, batch);
      const auto row =
          static_cast<int64_t>(seed % static_cast<uint64_t>(run_.datasets.train->size()));
      prompts.push_back({.slice = groups[g].slice,
                         .place = groups[g].place,
                         .row = run_.datasets.train->row(row),
                         .seed = seed});
      replaced.push_back(g);
    }
    if (prompts.empty()) return;
    SampledGroups others = sample_and_score(prompts);
    for (size_t i = 0; i < replaced.size(); ++i) groups[replaced[i]] = std::move(others[i]);
  }
}

void Rollouts::leave_out(SampledGroups& groups) const {
  if (groups.empty()) return;
  const at::Tensor equal = without_variance(scores_of(groups));
  for (size_t g = 0; g < groups.size(); ++g) groups[g].left_out = equal.const_data_ptr<bool>()[g];
}

// Of this rank's groups: the policy's own log-probabilities as training computes them, and the
// reference's.
void Rollouts::add_log_probs(SampledGroups& groups, bool old) {
  if (!old && !objective_.needs_reference()) return;
  for (int32_t slice = 0; slice < static_cast<int32_t>(plan_.slices); ++slice) {
    std::vector<SampledCompletion*> completions;
    for (SampledGroup& group : groups) {
      if (group.left_out || group.slice != slice) continue;
      for (SampledCompletion& completion : group.completions) {
        if (!(layout_.mask_truncated && completion.truncated)) completions.push_back(&completion);
      }
    }
    size_t next = 0;
    for (const data::Batch& batch : micro_batches(groups, slice, 0, 1, layout_)) {
      at::Tensor own, reference;
      if (old) {
        own =
            token_log_probs(run_.model->hidden(batch), run_.model->head(), batch.targets.positions,
                            batch.targets.labels, {.temperature = layout_.temperature})
                .log_probs;
      }
      if (objective_.needs_reference()) {
        TEMPER_CHECK(run_.reference != nullptr, "an objective with a reference has one");
        reference = run_.reference->log_probs(batch, layout_.temperature);
      }
      for (int64_t begin = 0; begin < batch.targets.labels.numel();) {
        SampledCompletion& completion = *completions.at(next++);
        const auto count = static_cast<int64_t>(completion.ids.size());
        const auto take = [&](const at::Tensor& from, std::vector<float>& to) {
          if (!from.defined()) return;
          const float* values = from.const_data_ptr<float>() + begin;
          to.assign(values, values + count);
        };
        take(own, completion.old_log_probs);
        take(reference, completion.reference_log_probs);
        begin += count;
      }
    }
  }
}

Scores Rollouts::scores_of(const SampledGroups& groups) const {
  std::vector<float> values;
  for (const SampledGroup& group : groups) {
    for (const SampledCompletion& completion : group.completions) {
      values.insert(values.end(), completion.scores.begin(), completion.scores.end());
    }
  }
  Scores scores{
      .values = at::tensor(values, at::kFloat).view({-1, static_cast<int64_t>(rewards_.size())}),
      .group = plan_.group,
      .weights = {}};
  for (const NamedReward& reward : rewards_) scores.weights.push_back(reward.weight);
  return scores;
}

// Writes the advantages of all ranks' groups.
Advantages Rollouts::score(SampledGroups& groups) const {
  const at::Tensor kl = objective_.penalizes_kl() ? reference_divergence(groups) : at::Tensor();
  Advantages advantages = objective_.advantages(scores_of(groups), kl);
  const float* values = advantages.values.const_data_ptr<float>();
  for (SampledGroup& group : groups) {
    for (SampledCompletion& completion : group.completions) completion.advantage = *values++;
  }
  return advantages;
}

std::vector<MetricSum> Rollouts::metrics_of(const SampledGroups& groups,
                                            const Advantages& advantages) const {
  const Scores scores = scores_of(groups);
  std::vector<std::string> names;
  for (const NamedReward& reward : rewards_) names.push_back(reward.name);
  std::vector<MetricSum> metrics = reward_metrics(scores, names);
  metrics.push_back({"frac_reward_zero_std", advantages.zero_std_share, 1});
  if (objective_.penalizes_kl()) {
    double tokens = 0;
    for (const SampledGroup& group : groups) {
      for (const SampledCompletion& completion : group.completions) {
        tokens += static_cast<double>(completion.old_log_probs.size());
      }
    }
    metrics.push_back({"kl", reference_divergence(groups).sum(at::kDouble).item<double>(),
                       std::max(tokens, 1.0)});
  }
  for (MetricSum& metric : length_metrics(groups)) metrics.push_back(std::move(metric));
  return metrics;
}

void Rollouts::watch_variance(double zero_std_share) {
  batches_without_variance_ = zero_std_share == 1 ? batches_without_variance_ + 1 : 0;
  if (batches_without_variance_ != kBatchesWithoutVariance) return;
  parallel::say("the rewards of each prompt's completions have all been equal for " +
                std::to_string(kBatchesWithoutVariance) +
                " generation batches: there is nothing to learn from them (samples/ shows "
                "completions and scores; "
                "are the prompts too hard or too easy, or is generation.temperature too low?)");
}

void Rollouts::warn_of_errors() {
  int64_t errors = 0;
  std::string last;
  for (const NamedReward& reward : rewards_) {
    errors += reward.reward->errors();
    if (reward.reward->errors() > 0) last = reward.name + ": " + reward.reward->last_error();
  }
  if (errors == reported_errors_) return;
  parallel::warn(std::to_string(errors - reported_errors_) +
                     " completions could not be scored and do not count (" + last + ")",
                 true);
  reported_errors_ = errors;
}

void Rollouts::finished(StepSums& sums) {
  const recipes::Objective& objective = run_.recipe.objective;
  const bool adaptive = objective.use_adaptive_entropy.value_or(false);
  for (const MetricSum& metric : sums.metrics) {
    if (!adaptive || metric.name != "policy_entropy") continue;
    last_entropy_ = metric.numerator / std::max(1.0, metric.denominator);
    const double delta = objective.entropy_coef_delta.value_or(0.005);
    entropy_coef_ = last_entropy_ <= objective.entropy_target.value_or(0.2)
                        ? std::min(entropy_coef_ + delta, objective.entropy_coef_max.value_or(1.0))
                        : std::max(entropy_coef_ - delta, objective.entropy_coef_min.value_or(0.0));
  }
  if (adaptive || entropy_coef_ != 0) sums.metrics.push_back({"entropy_coef", entropy_coef_, 1});
  for (MetricSum& metric : pending_) sums.metrics.push_back(std::move(metric));
  pending_.clear();
}

bool Rollouts::write_samples(const RunDirectory& directory, int64_t step) {
  if (!run_.recipe.log.samples || run_.world.rank != 0 || groups_.empty()) return true;
  std::vector<std::string> names;
  for (const NamedReward& reward : rewards_) names.push_back(reward.name);
  write_completions(directory, step, static_cast<int32_t>(plan_.slice_of(step)), groups_, names,
                    run_.inputs.tokenizer);
  return true;
}

data::Json Rollouts::state() const {
  data::Json state = {{"batch", batch_}, {"entropy_coef", entropy_coef_}};
  if (std::isfinite(last_entropy_)) state["last_entropy"] = last_entropy_;
  return state;
}

NamedTensors Rollouts::tensors() const {
  // An aligned step begins with a new generation batch.
  if (plan_.aligned()) return {};
  const PackedGroups packed = pack(groups_);
  return {{"integers", packed.integers}, {"numbers", packed.numbers}};
}

void Rollouts::restore(const data::Json& state, const NamedTensors& tensors) {
  entropy_coef_ = state.at("entropy_coef");
  if (state.contains("last_entropy")) last_entropy_ = state.at("last_entropy");
  if (plan_.aligned()) return;
  PackedGroups packed;
  for (const auto& [name, tensor] : tensors) {
    if (name == "integers") packed.integers = tensor;
    if (name == "numbers") packed.numbers = tensor;
  }
  TEMPER_CHECK(packed.integers.defined() && packed.numbers.defined(),
               "a checkpoint with its generation batch");
  groups_ = unpack(packed);
  batch_ = state.at("batch");
}

MetricLine Rollouts::evaluate() {
  const auto start = Clock::now();
  const at::NoGradGuard no_grad;
  const data::TokenDataset& dataset = *run_.datasets.eval;
  std::vector<Prompt> prompts;
  for (int64_t row = run_.world.rank; row < dataset.size(); row += run_.world.size) {
    const std::string name = "evaluation/" + std::to_string(row);
    prompts.push_back({.place = static_cast<int32_t>(row),
                       .row = dataset.row(row),
                       .seed = parallel::seed_of(run_.recipe.run.seed, name)});
  }
  SampledGroups own = sample_and_score(prompts);
  add_log_probs(own, objective_.penalizes_kl());
  SampledGroups groups = gather(own, *run_.communicator);
  const Advantages advantages = score(groups);
  std::vector<MetricSum> metrics = metrics_of(groups, advantages);
  warn_of_errors();

  StepSums sums = zero_sums(objective_);
  for (const data::Batch& batch :
       micro_batches(groups, 0, run_.world.rank, run_.world.size, layout_)) {
    add_terms(sums, objective_.loss(*run_.model, batch));
    sums.input_tokens += static_cast<double>(batch.input_tokens);
  }
  exchange(sums, *run_.communicator);
  metrics.insert(metrics.end(), sums.metrics.begin(), sums.metrics.end());
  MetricLine line = {{"eval_loss", sums.loss / std::max(sums.count, 1.0)}};
  for (const MetricSum& metric : metrics) {
    if (metric.denominator > 0)
      line.emplace_back("eval_" + metric.name, metric.numerator / metric.denominator);
  }
  line.emplace_back("eval_num_tokens", sums.input_tokens);
  line.emplace_back("eval_runtime", seconds_since(start));
  return line;
}

}  // namespace temper::trainer
