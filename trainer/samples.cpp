#include "trainer/samples.h"

#include <algorithm>
#include <cstdio>

#include "data/formats/example.h"
#include "data/io/atomic_file.h"
#include "data/io/json.h"
#include "data/shards/token_dataset.h"
#include "trainer/generation/generate.h"
#include "trainer/run.h"
#include "trainer/run_directory.h"

namespace temper::trainer {

namespace {

constexpr int64_t kSamples = 2;
constexpr int64_t kTextPrompt = 16;   // tokens of a row that is supervised from its start
constexpr int64_t kLongestPrompt = 256;
constexpr int64_t kLongestSample = 48;

// What the row asks: everything before its first supervised token, or its first tokens where all are.
int64_t prompt_length(const data::Example& example) {
  const auto first = std::find(example.supervised.begin() + 1, example.supervised.end(), uint8_t{1});
  const int64_t before = first - example.supervised.begin();
  return before > 1 ? before : std::min<int64_t>(kTextPrompt, static_cast<int64_t>(example.ids.size()) - 1);
}

}  // namespace

void write_samples(Run& run, const RunDirectory& directory, int64_t step) {
  if (!run.recipe.log.samples || run.inputs.config.num_labels > 0) return;
  // Where ranks share weights all of them go through the model, and find the same.
  if (run.world.rank != 0 && !run.blocks) return;
  SamplingSettings settings;  // greedy: comparable from step to step
  if (const auto eos = run.inputs.tokenizer.eos_id()) settings.eos_ids = {*eos};
  settings.max_new_tokens = std::min(kLongestSample, run.recipe.generation.max_new_tokens);
  std::string lines;
  const int64_t rows = std::min(kSamples, run.datasets.eval->size());
  for (int64_t row = 0; row < rows; ++row) {
    const data::Example example = run.datasets.eval->row(row).documents.front();
    const int64_t length = prompt_length(example);
    if (length < 1 || length > kLongestPrompt) continue;
    const std::vector<int32_t> prompt(example.ids.begin(), example.ids.begin() + length);
    const std::vector<int32_t> rest(example.ids.begin() + length,
                                    example.ids.begin() + std::min<int64_t>(length + settings.max_new_tokens,
                                                                            static_cast<int64_t>(example.ids.size())));
    const Completion completion = generate(*run.model, run.inputs.tokenizer, prompt, settings);
    lines += data::Json({{"step", step},
                         {"prompt", run.inputs.tokenizer.decode(prompt, false)},
                         {"completion", completion.text},
                         {"expected", run.inputs.tokenizer.decode(rest, true)}})
                 .dump(-1, ' ', false, data::Json::error_handler_t::replace) +
             "\n";
  }
  end_passes(*run.model);
  if (run.world.rank != 0) return;
  char name[48];
  std::snprintf(name, sizeof name, "step-%06lld.jsonl", static_cast<long long>(step));
  std::filesystem::create_directories(directory.path / "samples");
  data::write_file_atomically(directory.path / "samples" / name, lines);
}

}  // namespace temper::trainer
