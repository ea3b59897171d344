#include "trainer/rollouts/answered_rows.h"

#include <string>
#include <utility>

#include "parallel/seed.h"
#include "recipes/diagnostic.h"
#include "trainer/rollouts/completion_samples.h"
#include "trainer/rollouts/metrics.h"
#include "trainer/rollouts/prompts.h"
#include "trainer/run.h"

namespace temper::trainer {
namespace {

// Uniform in [0, 1).
double fraction(uint64_t bits) { return static_cast<double>(bits >> 11) * 0x1p-53; }

data::Example answered(const SampledGroup& group) {
  const std::vector<int32_t>& completion = group.completions.front().ids;
  data::Example document{.ids = group.prompt, .supervised = {}};
  document.ids.insert(document.ids.end(), completion.begin(), completion.end());
  document.supervised.assign(group.prompt.size(), 0);
  document.supervised.resize(document.ids.size(), 1);
  return document;
}

Model& teacher_of(const Run& run) {
  TEMPER_CHECK(run.reference != nullptr && run.reference->model() != nullptr, "a run with a teacher");
  return *run.reference->model();
}

}  // namespace

RowAnswers::RowAnswers(Run& run) : run_(run), sampler_(run, 1) {}

SampledGroups RowAnswers::answer(data::StepBatches& batches, const AskWhom& whom) const {
  struct Question {
    Asked asked;
    data::Example* document;
  };
  std::vector<Question> questions;
  int64_t index = 0;
  for (data::Batch& batch : batches.micro_batches) {
    for (size_t row = 0; row < batch.tokenized.size(); ++row) {
      const Asked asked = whom(batch, row, index++);
      if (asked.model) questions.push_back({asked, &batch.tokenized[row].documents.front()});
    }
  }
  SampledGroups all;
  for (Model* model : {run_.model.get(), &teacher_of(run_)}) {
    std::vector<Prompt> prompts;
    std::vector<data::Example*> documents;
    for (const auto& [asked, document] : questions) {
      if (asked.model != model) continue;
      prompts.push_back({.place = asked.place, .ids = prompt_of(*document), .columns = {}, .seed = asked.seed});
      documents.push_back(document);
    }
    SampledGroups groups = sampler_.sample(*model, prompts);
    for (size_t i = 0; i < groups.size(); ++i) {
      *documents[i] = answered(groups[i]);
      all.push_back(std::move(groups[i]));
    }
  }
  for (data::Batch& batch : batches.micro_batches) {
    data::Batch made = data::collate_rows(std::move(batch.tokenized), *run_.loader_options.row_layout);
    made.row_numbers = std::move(batch.row_numbers);
    batch = std::move(made);
  }
  return all;
}

data::StepBatches AnsweredRows::next(int64_t step) {
  const recipes::Recipe& recipe = run_.recipe;
  const double of_student = recipe.objective.lmbda.value_or(0);
  Model* other = recipe.objective.seq_kd.value_or(false) ? &teacher_of(run_) : nullptr;
  const int64_t first = run_.world.rank * (recipe.batch.global / run_.world.size);
  data::StepBatches batches = run_.loader->step(step - 1);
  const WholeBlocks whole(run_.blocks.get());
  const SampledGroups own =
      answers_.answer(batches, [&](const data::Batch&, size_t, int64_t index) -> Asked {
        const std::string place = std::to_string(first + index);
        const auto seed = [&](const char* purpose) {
          return parallel::seed_of(recipe.run.seed, purpose + place, 0, step);
        };
        const bool student = fraction(seed("who answers/")) < of_student;
        return {.model = student ? run_.model.get() : other,
                .place = static_cast<int32_t>(first + index),
                .seed = seed("answer/")};
      });
  groups_ = gather(own, *run_.communicator);
  prepare(run_, batches, step);
  return batches;
}

void AnsweredRows::finished(StepSums& sums) {
  if (groups_.empty()) return;
  for (MetricSum& metric : length_metrics(groups_)) sums.metrics.push_back(std::move(metric));
}

bool AnsweredRows::write_samples(const RunDirectory& directory, int64_t step) {
  if (groups_.empty()) return false;
  if (run_.recipe.log.samples && run_.world.rank == 0) {
    write_completions(directory, step, 0, groups_, {}, run_.inputs.tokenizer);
  }
  return true;
}

void PromptAnswers::fill(data::StepBatches& batches) {
  SampledGroups sampled =
      answers_.answer(batches, [&](const data::Batch& batch, size_t row, int64_t) -> Asked {
        const int64_t number = batch.row_numbers.at(row);
        const std::string name = "evaluation/" + std::to_string(number);
        return {.model = has_completion(batch.tokenized[row].documents.front()) ? nullptr : run_.model.get(),
                .place = static_cast<int32_t>(number),
                .seed = parallel::seed_of(run_.recipe.run.seed, name)};
      });
  for (SampledGroup& group : sampled) groups_.push_back(std::move(group));
}

std::vector<MetricSum> PromptAnswers::metrics() const {
  const SampledGroups all = gather(groups_, *run_.communicator);
  return all.empty() ? std::vector<MetricSum>{} : length_metrics(all);
}

}  // namespace temper::trainer
