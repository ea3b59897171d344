#include "trainer/rollouts/generation_batch.h"

#include <algorithm>
#include <span>
#include <tuple>
#include <utility>

#include <ATen/ATen.h>

#include "data/loader/collate.h"
#include "recipes/diagnostic.h"
#include "trainer/rollouts/balance.h"

namespace temper::trainer {
namespace {

// Appends to, and reads from, the flat form.
struct Writer {
  std::vector<int32_t> integers;
  std::vector<float> numbers;

  void put(int64_t value) { integers.push_back(static_cast<int32_t>(value)); }
  void put(const std::vector<int32_t>& ids) {
    put(static_cast<int64_t>(ids.size()));
    integers.insert(integers.end(), ids.begin(), ids.end());
  }
  void put(const std::vector<float>& values) {
    put(static_cast<int64_t>(values.size()));
    numbers.insert(numbers.end(), values.begin(), values.end());
  }
};

struct Reader {
  const int32_t* integers;
  const int32_t* end;
  const float* numbers;

  int32_t take() {
    TEMPER_CHECK(integers < end, "groups that were packed");
    return *integers++;
  }
  std::vector<int32_t> ids() {
    const int32_t count = take();
    const int32_t* begin = std::exchange(integers, integers + count);
    return {begin, integers};
  }
  std::vector<float> values() {
    const int32_t count = take();
    const float* begin = std::exchange(numbers, numbers + count);
    return {begin, numbers};
  }
};

template <typename T>
at::Tensor flat(const std::vector<T>& values, at::ScalarType type) {
  at::Tensor tensor = at::empty({static_cast<int64_t>(values.size())}, type);
  std::copy(values.begin(), values.end(), tensor.mutable_data_ptr<T>());
  return tensor;
}

// What each rank has, one after the other; of any lengths.
std::vector<at::Tensor> gather_parts(const at::Tensor& own, parallel::Communicator& communicator) {
  const int64_t ranks = communicator.size();
  at::Tensor lengths = at::empty({ranks}, at::kLong);
  communicator.all_gather(lengths, at::full({1}, own.numel(), at::kLong))->wait();
  const int64_t longest = std::max<int64_t>(1, lengths.max().item<int64_t>());
  at::Tensor padded = at::zeros({longest}, own.options());
  padded.narrow(0, 0, own.numel()).copy_(own);
  at::Tensor all = at::empty({ranks * longest}, own.options());
  communicator.all_gather(all, padded)->wait();
  std::vector<at::Tensor> parts;
  for (int64_t r = 0; r < ranks; ++r) {
    parts.push_back(all.narrow(0, r * longest, lengths.const_data_ptr<int64_t>()[r]));
  }
  return parts;
}

struct Placed {
  const SampledGroup* group;
  const SampledCompletion* completion;
};

// Tokens of a micro-batch.
int64_t cost(std::span<const Placed> completions, bool share_prompts) {
  int64_t tokens = 0;
  const SampledGroup* last = nullptr;
  for (const auto& [group, completion] : completions) {
    if (group != last || !share_prompts) tokens += static_cast<int64_t>(group->prompt.size());
    last = group;
    tokens += static_cast<int64_t>(completion->ids.size());
  }
  return tokens;
}

data::Batch collate_completions(std::span<const Placed> completions,
                                const CompletionLayout& layout, double mean) {
  std::vector<data::TokenizedRow> rows;
  std::vector<float> rewards, advantages;
  std::vector<float> old, sampling, reference, values, token_advantages, returns;
  const SampledGroup* last = nullptr;
  for (const auto& [group, completion] : completions) {
    if (group != last) rows.emplace_back();
    last = group;
    const bool counts = !(layout.mask_truncated && completion->truncated);
    data::Example document{.ids = group->prompt, .supervised = {}};
    document.ids.insert(document.ids.end(), completion->ids.begin(), completion->ids.end());
    document.supervised.assign(group->prompt.size(), 0);
    document.supervised.resize(document.ids.size(), counts ? 1 : 0);
    rows.back().documents.push_back(std::move(document));
    rewards.push_back(completion->reward);
    advantages.push_back(completion->advantage);
    if (!counts) continue;
    const auto add = [](std::vector<float>& to, const std::vector<float>& from) {
      to.insert(to.end(), from.begin(), from.end());
    };
    add(old, completion->old_log_probs);
    add(sampling, completion->sampling_log_probs);
    add(reference, completion->reference_log_probs);
    add(values, completion->values);
    add(token_advantages, completion->token_advantages);
    add(returns, completion->returns);
  }
  data::Batch batch = data::collate_rows(std::move(rows), {.share_prefixes = layout.share_prompts});
  const int64_t targets = batch.targets.labels.numel();
  const auto per_target = [&](const std::vector<float>& numbers) {
    if (numbers.empty() && targets > 0) return at::Tensor();
    TEMPER_CHECK(static_cast<int64_t>(numbers.size()) == targets, "a number for each target");
    return flat(numbers, at::kFloat);
  };
  batch.rows = static_cast<int64_t>(completions.size());
  batch.reference_log_probs = per_target(reference);
  batch.rollout = {.rewards = flat(rewards, at::kFloat),
                   .advantages = flat(advantages, at::kFloat),
                   .old_log_probs = per_target(old),
                   .sampling_log_probs = per_target(sampling),
                   .old_values = per_target(values),
                   .token_advantages = per_target(token_advantages),
                   .returns = per_target(returns),
                   .mean_tokens = mean,
                   .temperature = layout.temperature};
  return batch;
}

}  // namespace

PackedGroups pack(const SampledGroups& groups) {
  Writer writer;
  for (const SampledGroup& group : groups) {
    writer.put(group.slice);
    writer.put(group.place);
    writer.put(group.left_out);
    writer.put(group.prompt);
    writer.put(static_cast<int64_t>(group.completions.size()));
    for (const SampledCompletion& completion : group.completions) {
      writer.put(completion.ids);
      writer.put(completion.truncated);
      writer.put(completion.sampling_log_probs);
      writer.put(completion.old_log_probs);
      writer.put(completion.reference_log_probs);
      writer.put(completion.values);
      writer.put(completion.scores);
      writer.put(std::vector<float>{completion.reward, completion.advantage});
      writer.put(completion.token_advantages);
      writer.put(completion.returns);
    }
  }
  return {.integers = flat(writer.integers, at::kInt), .numbers = flat(writer.numbers, at::kFloat)};
}

SampledGroups unpack(const PackedGroups& packed) {
  const auto* integers = packed.integers.const_data_ptr<int32_t>();
  Reader reader{.integers = integers,
                .end = integers + packed.integers.numel(),
                .numbers = packed.numbers.const_data_ptr<float>()};
  SampledGroups groups;
  while (reader.integers < reader.end) {
    SampledGroup& group = groups.emplace_back();
    group.slice = reader.take();
    group.place = reader.take();
    group.left_out = reader.take() != 0;
    group.prompt = reader.ids();
    group.completions.resize(static_cast<size_t>(reader.take()));
    for (SampledCompletion& completion : group.completions) {
      completion.ids = reader.ids();
      completion.truncated = reader.take() != 0;
      completion.sampling_log_probs = reader.values();
      completion.old_log_probs = reader.values();
      completion.reference_log_probs = reader.values();
      completion.values = reader.values();
      completion.scores = reader.values();
      const std::vector<float> both = reader.values();
      completion.reward = both.at(0);
      completion.advantage = both.at(1);
      completion.token_advantages = reader.values();
      completion.returns = reader.values();
    }
  }
  return groups;
}

SampledGroups gather(const SampledGroups& own, parallel::Communicator& communicator) {
  const PackedGroups packed = pack(own);
  const std::vector<at::Tensor> integers = gather_parts(packed.integers, communicator);
  const std::vector<at::Tensor> numbers = gather_parts(packed.numbers, communicator);
  SampledGroups all;
  for (size_t r = 0; r < integers.size(); ++r) {
    for (SampledGroup& group : unpack({.integers = integers[r], .numbers = numbers[r]})) {
      all.push_back(std::move(group));
    }
  }
  std::stable_sort(all.begin(), all.end(), [](const SampledGroup& a, const SampledGroup& b) {
    return std::tie(a.slice, a.place) < std::tie(b.slice, b.place);
  });
  return all;
}

std::vector<data::Batch> micro_batches(const SampledGroups& groups, int32_t slice, int rank,
                                       int ranks, const CompletionLayout& layout) {
  std::vector<Placed> completions;
  for (const SampledGroup& group : groups) {
    if (group.left_out || group.slice != slice) continue;
    for (const SampledCompletion& completion : group.completions) {
      completions.push_back({&group, &completion});
    }
  }
  std::vector<std::span<const Placed>> runs;
  std::vector<int64_t> costs;
  const auto micro = static_cast<size_t>(layout.micro);
  for (std::span<const Placed> rest = completions; !rest.empty();) {
    runs.push_back(rest.first(std::min(micro, rest.size())));
    rest = rest.subspan(runs.back().size());
    costs.push_back(cost(runs.back(), layout.share_prompts));
  }
  const double mean = mean_tokens(groups, layout.mask_truncated);
  std::vector<data::Batch> batches;
  const std::vector<std::vector<int64_t>> taken = balance(costs, ranks);
  for (const int64_t run : taken.at(static_cast<size_t>(rank))) {
    batches.push_back(collate_completions(runs[static_cast<size_t>(run)], layout, mean));
    batches.back().number = run;
  }
  return batches;
}

double mean_tokens(const SampledGroups& groups, bool mask_truncated) {
  double tokens = 0, completions = 0;
  for (const SampledGroup& group : groups) {
    if (group.left_out) continue;
    for (const SampledCompletion& completion : group.completions) {
      ++completions;
      if (!(mask_truncated && completion.truncated)) {
        tokens += static_cast<double>(completion.ids.size());
      }
    }
  }
  return std::max(tokens, 1.0) / std::max(completions, 1.0);
}

}  // namespace temper::trainer
