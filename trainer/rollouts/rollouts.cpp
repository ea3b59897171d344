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

// A prompt of the data set.
Prompt prompt_of(const data::TokenizedRow& row, int32_t slice, int64_t place, uint64_t seed) {
  return {.slice = slice,
          .place = static_cast<int32_t>(place),
          .ids = row.documents.front().ids,
          .columns = row.columns,
          .seed = seed};
}

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

Rollouts::Rollouts(Run& run)
    : run_(run),
      objective_(dynamic_cast<RolloutObjective&>(*run.objective)),
      plan_(rollout_plan(run.recipe, run.world.size)),
      sampler_(run, plan_.group),
      entropy_coef_(run.recipe.objective.entropy_coef.value_or(0)),
      last_entropy_(std::numeric_limits<double>::infinity()) {
  layout_ = {.micro = run.recipe.batch.micro * plan_.row,
             .mask_truncated = run.recipe.objective.mask_truncated_completions.value_or(false),
             .temperature = objective_.temperature(sampler_.temperature()),
             .share_prompts = !depends_on_length(run.inputs.config.rope)};
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

std::vector<Prompt> Rollouts::prompts_of(int64_t batch) const {
  std::vector<Prompt> prompts;
  const int64_t own = plan_.prompts() / run_.world.size;
  for (int64_t slice = 0; slice < plan_.slices; ++slice) {
    int64_t place = run_.world.rank * own;
    const data::StepBatches rows = run_.loader->step(batch * plan_.slices + slice);
    for (const data::Batch& row : rows.micro_batches) {
      const std::string name = "rollout/" + std::to_string(slice) + "/" + std::to_string(place);
      prompts.push_back(prompt_of(row.tokenized.front(), static_cast<int32_t>(slice), place,
                                  parallel::seed_of(run_.recipe.run.seed, name, 0, batch)));
      ++place;
    }
  }
  return prompts;
}

void Rollouts::generate(int64_t step) {
  const at::NoGradGuard no_grad;
  const WholeBlocks whole(run_.blocks.get());
  const auto start = Clock::now();
  batch_ = plan_.batch_of(step);
  SampledGroups own = sampler_.sample(*run_.model, prompts_of(batch_));
  const std::string& zero_variance = run_.recipe.objective.zero_variance.value_or("keep");
  if (zero_variance == "resample") resample(own, batch_);
  if (zero_variance != "keep") leave_out(own);
  const double seconds = seconds_since(start);
  add_log_probs(own, !plan_.aligned() || objective_.needs_old_log_probs());
  groups_ = gather(own, *run_.communicator);
  pending_ = judge(groups_);
  pending_.push_back({"generation_time", seconds, 1});
  watch_variance();
}

// DAPO's dynamic sampling (Yu et al. 2025, arXiv:2503.14476): groups whose rewards are all equal
// give their place to other prompts, drawn at random, until rewards differ or the attempts are used
// up.
void Rollouts::resample(SampledGroups& groups, int64_t batch) {
  for (int64_t attempt = 1; attempt <= kAttempts; ++attempt) {
    if (groups.empty()) return;
    const at::Tensor equal = without_variance(sampler_.scores_of(groups));
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
      prompts.push_back(
          prompt_of(run_.datasets.train->row(row), groups[g].slice, groups[g].place, seed));
      replaced.push_back(g);
    }
    if (prompts.empty()) return;
    SampledGroups others = sampler_.sample(*run_.model, prompts);
    for (size_t i = 0; i < replaced.size(); ++i) groups[replaced[i]] = std::move(others[i]);
  }
}

void Rollouts::leave_out(SampledGroups& groups) const {
  if (groups.empty()) return;
  const at::Tensor equal = without_variance(sampler_.scores_of(groups));
  for (size_t g = 0; g < groups.size(); ++g) groups[g].left_out = equal.const_data_ptr<bool>()[g];
}

// Of this rank's groups: the policy's own log-probabilities as training computes them, what its
// value head expects, and the reference's log-probabilities.
void Rollouts::add_log_probs(SampledGroups& groups, bool old) {
  if (!old && !objective_.needs_reference()) return;
  std::vector<SampledCompletion*> completions;
  std::vector<at::Tensor> own, values, reference;  // of the completions' tokens, in turn
  for (int32_t slice = 0; slice < static_cast<int32_t>(plan_.slices); ++slice) {
    for (SampledGroup& group : groups) {
      if (group.left_out || group.slice != slice) continue;
      for (SampledCompletion& completion : group.completions) {
        if (!(layout_.mask_truncated && completion.truncated)) completions.push_back(&completion);
      }
    }
    for (const data::Batch& batch : micro_batches(groups, slice, 0, 1, layout_)) {
      if (old) {
        const at::Tensor hidden = run_.model->hidden(batch);
        own.push_back(token_log_probs(hidden, run_.model->head(), batch.targets.positions,
                                      batch.targets.labels, {.temperature = layout_.temperature})
                          .log_probs);
        const at::Tensor expected = objective_.values(*run_.model, hidden, batch);
        if (expected.defined()) values.push_back(expected);
      }
      if (objective_.needs_reference()) {
        TEMPER_CHECK(run_.reference != nullptr, "an objective with a reference has one");
        reference.push_back(run_.reference->log_probs(batch, layout_.temperature));
      }
    }
  }
  // Waits for a device once, not once a micro-batch.
  const auto spread = [&](const std::vector<at::Tensor>& parts,
                          std::vector<float> SampledCompletion::* to) {
    if (parts.empty()) return;
    const at::Tensor all = at::cat(parts).cpu();
    const float* next = all.const_data_ptr<float>();
    for (SampledCompletion* completion : completions) {
      const float* end = next + completion->ids.size();
      (completion->*to).assign(next, end);
      next = end;
    }
    TEMPER_CHECK(next == all.const_data_ptr<float>() + all.numel(), "a number for each token");
  };
  spread(own, &SampledCompletion::old_log_probs);
  spread(values, &SampledCompletion::values);
  spread(reference, &SampledCompletion::reference_log_probs);
}

std::vector<MetricSum> Rollouts::judge(SampledGroups& groups) {
  const Scores scores = sampler_.scores_of(groups);
  const at::Tensor rewards = weighted_rewards(scores);
  const float* reward = rewards.const_data_ptr<float>();
  for (SampledGroup& group : groups) {
    for (SampledCompletion& completion : group.completions) completion.reward = *reward++;
  }
  std::vector<MetricSum> metrics = reward_metrics(scores, sampler_.reward_names());
  for (MetricSum& metric : objective_.judge(groups, scores)) metrics.push_back(std::move(metric));
  for (MetricSum& metric : length_metrics(groups)) metrics.push_back(std::move(metric));
  sampler_.warn_of_errors();
  return metrics;
}

void Rollouts::watch_variance() {
  const bool none =
      plan_.group > 1 && without_variance(sampler_.scores_of(groups_)).all().item<bool>();
  batches_without_variance_ = none ? batches_without_variance_ + 1 : 0;
  if (batches_without_variance_ != kBatchesWithoutVariance) return;
  parallel::say("the rewards of each prompt's completions have all been equal for " +
                std::to_string(kBatchesWithoutVariance) +
                " generation batches: there is nothing to learn from them (samples/ shows "
                "completions and scores; "
                "are the prompts too hard or too easy, or is generation.temperature too low?)");
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
  write_completions(directory, step, static_cast<int32_t>(plan_.slice_of(step)), groups_,
                    sampler_.reward_names(), run_.inputs.tokenizer);
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
  const WholeBlocks whole(run_.blocks.get());
  const data::TokenDataset& dataset = *run_.datasets.eval;
  std::vector<Prompt> prompts;
  for (int64_t row = run_.world.rank; row < dataset.size(); row += run_.world.size) {
    const std::string name = "evaluation/" + std::to_string(row);
    prompts.push_back(
        prompt_of(dataset.row(row), 0, row, parallel::seed_of(run_.recipe.run.seed, name)));
  }
  SampledGroups own = sampler_.sample(*run_.model, prompts);
  add_log_probs(own, objective_.needs_old_log_probs());
  SampledGroups groups = gather(own, *run_.communicator);
  std::vector<MetricSum> metrics = judge(groups);

  StepSums sums = zero_sums(objective_);
  std::vector<LossTerms> terms;
  for (const data::Batch& batch :
       micro_batches(groups, 0, run_.world.rank, run_.world.size, layout_)) {
    terms.push_back(objective_.loss(*run_.model, batch));
    sums.input_tokens += static_cast<double>(batch.input_tokens);
  }
  add_terms(sums, terms);
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
