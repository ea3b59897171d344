#include "trainer/rollouts/sampler.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "data/shards/token_dataset.h"
#include "parallel/log.h"
#include "parallel/trace.h"
#include "recipes/diagnostic.h"
#include "trainer/rollouts/prompts.h"
#include "trainer/run.h"
#include "trainer/teacher.h"

namespace temper::trainer {
namespace {

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

// Tokens of the longest sequence that is answered, and that a teacher judges.
int64_t room_of(const Run& run) {
  const int64_t room = run.inputs.config.max_position_embeddings;
  if (!run.recipe.objective.teacher) return room;
  return std::min(room, teacher_config(run.recipe, run.inputs).max_position_embeddings);
}

void check_room(const data::TokenDataset& rows, const std::string& set, int64_t completion,
                const Run& run) {
  const int64_t room = room_of(run);
  int64_t longest = 0;
  for (int64_t i = 0; i < rows.size(); ++i) {
    // A row may have a completion of its own: only those that are long with it need be read.
    if (rows.length(i) + completion <= room) continue;
    const auto prompt = prompt_of(rows.row(i).documents.front());
    longest = std::max(longest, static_cast<int64_t>(prompt.size()));
  }
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

Sampler::Sampler(const Run& run, int64_t group)
    : run_(run), group_(group), settings_(rollout_settings(run)) {
  for (const recipes::Reward& reward : run.recipe.objective.rewards) {
    rewards_.push_back({.name = name_of(reward),
                        .weight = reward.weight,
                        .reward = build_reward(reward, settings_.max_new_tokens, run.device)});
  }
}

SampledGroups Sampler::sample(Model& model, const std::vector<Prompt>& prompts) const {
  std::vector<SampleRequest> requests;
  SampledGroups groups;
  for (const Prompt& prompt : prompts) {
    requests.push_back({.prompt = prompt.ids, .samples = group_, .seed = prompt.seed});
    groups.push_back(
        {.slice = prompt.slice,
         .place = prompt.place,
         .prompt = prompt.ids,
         .completions = std::vector<SampledCompletion>(static_cast<size_t>(group_))});
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
    if (rewards_.empty()) return;
    const std::string& columns = prompts[static_cast<size_t>(request)].columns;
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
  {
    const parallel::TraceSpan span("sampling");
    trainer::sample(model, tokenizer, requests, settings_,
                    {.exact = run_.recipe.generation.exact}, ended);
  }
  const parallel::TraceSpan span("rewards");
  for (const NamedReward& reward : rewards_) {
    const std::vector<double> scores = reward.reward->collect();
    TEMPER_CHECK(scores.size() == submitted.size(), "a score for each completion");
    for (size_t i = 0; i < scores.size(); ++i)
      submitted[i]->scores.push_back(static_cast<float>(scores[i]));
  }
  return groups;
}

Scores Sampler::scores_of(const SampledGroups& groups) const {
  std::vector<float> values;
  for (const SampledGroup& group : groups) {
    for (const SampledCompletion& completion : group.completions) {
      values.insert(values.end(), completion.scores.begin(), completion.scores.end());
    }
  }
  Scores scores{
      .values = at::tensor(values, at::kFloat).view({-1, static_cast<int64_t>(rewards_.size())}),
      .group = group_,
      .weights = {}};
  for (const NamedReward& reward : rewards_) scores.weights.push_back(reward.weight);
  return scores;
}

std::vector<std::string> Sampler::reward_names() const {
  std::vector<std::string> names;
  for (const NamedReward& reward : rewards_) names.push_back(reward.name);
  return names;
}

void Sampler::warn_of_errors() {
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

}  // namespace temper::trainer
