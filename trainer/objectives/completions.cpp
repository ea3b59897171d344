#include "trainer/objectives/completions.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "data/loader/batch.h"
#include "recipes/diagnostic.h"
#include "trainer/ops/device.h"

namespace temper::trainer {

at::Tensor owners(const at::Tensor& ends) { return at::repeat_interleave(ends.diff()); }

at::Tensor sum_per_completion(const at::Tensor& values, const at::Tensor& ends) {
  TEMPER_CHECK(values.scalar_type() == at::kFloat && values.dim() == 1, "float32 values of targets");
  return at::zeros({ends.numel() - 1}, values.options().dtype(at::kDouble))
      .index_add(0, sent_to(values.device(), owners(ends)), values.to(at::kDouble))
      .to(at::kFloat);
}

at::Tensor completion_lengths(const data::Batch& batch) {
  std::vector<float> lengths;
  for (const data::TokenizedRow& row : batch.tokenized) {
    for (const data::Example& document : row.documents) {
      const auto counted = std::count(document.supervised.begin(), document.supervised.end(), 1);
      lengths.push_back(static_cast<float>(std::max<int64_t>(1, counted)));
    }
  }
  return at::tensor(lengths);
}

at::Tensor score_positions(const data::Batch& batch, const std::optional<int32_t>& pad_id) {
  if (!pad_id) return batch.targets.last_tokens;
  const int32_t* end = batch.document_ends.const_data_ptr<int32_t>();
  const int32_t* prefix =
      batch.prefixes.defined() ? batch.prefixes.const_data_ptr<int32_t>() : nullptr;
  std::vector<int64_t> positions;
  int64_t s = 0;  // the document of the batch
  for (const data::TokenizedRow& row : batch.tokenized) {
    // What the row's documents have in common is a document in front of them.
    const bool shares = prefix != nullptr && s + 2 < batch.document_ends.numel() && prefix[s + 1] == s;
    const int64_t common = end[s], shared = shares ? end[s + 1] - end[s] : 0;
    if (shares) ++s;
    for (const data::Example& document : row.documents) {
      int64_t t = static_cast<int64_t>(document.ids.size()) - 1;
      while (t > 0 && document.ids[static_cast<size_t>(t)] == *pad_id) --t;
      positions.push_back(t < shared ? common + t : end[s] + t - shared);
      ++s;
    }
  }
  return at::tensor(positions, at::kLong);
}

at::Tensor chosen_of(const at::Tensor& values) { return values.view({-1, 2}).select(1, 0); }
at::Tensor rejected_of(const at::Tensor& values) { return values.view({-1, 2}).select(1, 1); }

at::Tensor total_of(const at::Tensor& values) {
  const at::Tensor wide = values.to(at::kDouble);
  if (!wide.is_cpu()) return wide.sum();
  // sum() adds in an order of its own, which depends on the number of threads.
  const at::Tensor one_place = at::zeros({wide.numel()}, at::kLong);
  return at::zeros({1}, at::kDouble).index_add(0, one_place, wide).squeeze(0);
}

LateMetric token_mean(const std::string& name, const at::Tensor& values, const at::Tensor& ends,
                      Which which) {
  const at::Tensor all = values.detach();
  if (which == Which::kAll) return {name, total_of(all), static_cast<double>(all.numel())};
  const int64_t* end = ends.const_data_ptr<int64_t>();
  std::vector<int64_t> taken;
  for (int64_t c = which == Which::kRejected ? 1 : 0; c + 1 < ends.numel(); c += 2) {
    for (int64_t i = end[c]; i < end[c + 1]; ++i) taken.push_back(i);
  }
  const at::Tensor places = sent_to(all.device(), at::tensor(taken, at::kLong));
  return {name, total_of(all.index_select(0, places)), static_cast<double>(taken.size())};
}

std::vector<LateMetric> pair_metrics(const PairValues& values) {
  const double pairs = static_cast<double>(values.chosen_rewards.numel());
  const auto mean = [&](const char* name, const at::Tensor& each) {
    return LateMetric{name, total_of(each.detach()), pairs};
  };
  const at::Tensor &chosen = values.chosen_rewards, &rejected = values.rejected_rewards;
  return {mean("rewards/chosen", chosen),
          mean("rewards/rejected", rejected),
          mean("rewards/accuracies", chosen.gt(rejected)),
          mean("rewards/margins", chosen - rejected),
          mean("logps/chosen", values.chosen_logps),
          mean("logps/rejected", values.rejected_logps)};
}

}  // namespace temper::trainer
