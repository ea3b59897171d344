#include "trainer/rollouts/completion_samples.h"

#include <cmath>
#include <cstdio>

#include "data/io/atomic_file.h"
#include "data/io/json.h"
#include "trainer/run_directory.h"

namespace temper::trainer {
namespace {

data::Json number(float value) { return std::isnan(value) ? data::Json() : data::Json(value); }

}  // namespace

void write_completions(const RunDirectory& directory, int64_t step, int32_t slice,
                       const SampledGroups& groups, const std::vector<std::string>& rewards,
                       const data::Tokenizer& tokenizer) {
  std::string lines;
  for (const SampledGroup& group : groups) {
    if (group.slice != slice) continue;
    for (const SampledCompletion& completion : group.completions) {
      data::Json line = {{"step", step},
                         {"prompt", tokenizer.decode(group.prompt, false)},
                         {"completion", tokenizer.decode(completion.ids, true)}};
      for (size_t r = 0; r < rewards.size(); ++r) {
        line["rewards/" + rewards[r]] = number(completion.scores.at(r));
      }
      if (!rewards.empty()) line["reward"] = number(completion.reward);
      if (!rewards.empty()) line["advantage"] = completion.advantage;
      lines += line.dump(-1, ' ', false, data::Json::error_handler_t::replace) + "\n";
    }
  }
  char name[48];
  std::snprintf(name, sizeof name, "step-%06lld.jsonl", static_cast<long long>(step));
  std::filesystem::create_directories(directory.path / "samples");
  data::write_file_atomically(directory.path / "samples" / name, lines);
}

}  // namespace temper::trainer
