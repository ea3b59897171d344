#include "trainer/objectives/completions.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "data/loader/batch.h"
#include "recipes/diagnostic.h"

namespace temper::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct SumPerCompletion : torch::autograd::Function<SumPerCompletion> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& values,
                            const at::Tensor& ends) {
    const at::Tensor in = values.contiguous();
    const int64_t completions = ends.numel() - 1;
    at::Tensor sums = at::empty({completions}, in.options());
    const int64_t* end = ends.const_data_ptr<int64_t>();
    const float* value = in.const_data_ptr<float>();
    for (int64_t c = 0; c < completions; ++c) {
      double sum = 0;
      for (int64_t i = end[c]; i < end[c + 1]; ++i) sum += value[i];
      sums.mutable_data_ptr<float>()[c] = static_cast<float>(sum);
    }
    ctx->save_for_backward({ends});
    return sums;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const at::Tensor ends = ctx->get_saved_variables().front();
    return {grads.front().repeat_interleave(ends.diff()), at::Tensor()};
  }
};

}  // namespace

at::Tensor sum_per_completion(const at::Tensor& values, const at::Tensor& ends) {
  TEMPER_CHECK(values.scalar_type() == at::kFloat && values.dim() == 1, "float32 values of targets");
  return SumPerCompletion::apply(values, ends);
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

double total_of(const at::Tensor& values) {
  const at::Tensor in = values.detach().to(at::kFloat).contiguous();
  const float* value = in.const_data_ptr<float>();
  double total = 0;
  for (int64_t i = 0; i < in.numel(); ++i) total += value[i];
  return total;
}

MetricSum token_mean(const std::string& name, const at::Tensor& values, const at::Tensor& ends,
                     Which which) {
  const at::Tensor in = values.detach();
  const float* value = in.const_data_ptr<float>();
  const int64_t* end = ends.const_data_ptr<int64_t>();
  MetricSum mean{.name = name};
  const int64_t first = which == Which::kRejected ? 1 : 0, step = which == Which::kAll ? 1 : 2;
  for (int64_t c = first; c + 1 < ends.numel(); c += step) {
    for (int64_t i = end[c]; i < end[c + 1]; ++i) mean.numerator += value[i];
    mean.denominator += static_cast<double>(end[c + 1] - end[c]);
  }
  return mean;
}

std::vector<MetricSum> pair_metrics(const PairValues& values) {
  const double pairs = static_cast<double>(values.chosen_rewards.numel());
  const auto mean = [&](const char* name, const at::Tensor& each) {
    return MetricSum{name, total_of(each), pairs};
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
