// Decoders against transformers 5.23.0 and TRL 1.16.0 (goldens of make_model.py): loss, hidden
// states and every gradient in float32 to 1e-5 of their size, with documents packed in rows there
// and one by one here and the other way round.
#include "trainer/models/model.h"

#include <cmath>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "data/io/json.h"
#include "data/loader/batch.h"
#include "tests/parity/golden.h"
#include "tests/trainer/objectives/known_metrics.h"
#include "trainer/generation/kv_cache.h"
#include "trainer/models/decoder_names.h"
#include "trainer/objectives/objective.h"
#include "trainer/ops/gradient.h"

namespace temper::trainer {
namespace {

namespace fs = std::filesystem;

constexpr double kTolerance = 1e-5;

std::vector<std::string> cases() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(golden_files("model")))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

// Rows of documents, padded at the end to the longest with a document of its own.
data::Batch batch_of(const std::vector<std::vector<int64_t>>& rows, const std::vector<int64_t>& ids,
                     const std::vector<int64_t>& labels) {
  int64_t length = 0;
  for (const auto& row : rows) {
    int64_t tokens = 0;
    for (const int64_t document : row) tokens += document;
    length = std::max(length, tokens);
  }
  const auto count = static_cast<int64_t>(rows.size());
  data::Batch batch;
  batch.rows = count;
  batch.token_ids = at::zeros({count, length}, at::kLong);
  batch.labels = at::full({count, length}, -100, at::kLong);
  batch.positions = at::zeros({count, length}, at::kLong);
  std::vector<int32_t> ends = {0};
  size_t next = 0;
  for (int64_t r = 0; r < count; ++r) {
    int64_t column = 0;
    for (const int64_t document : rows[r]) {
      for (int64_t t = 0; t < document; ++t, ++column, ++next) {
        batch.token_ids[r][column] = ids[next];
        batch.labels[r][column] = labels[next];
        batch.positions[r][column] = t;
        batch.supervised += labels[next] != -100;
      }
      ends.push_back(static_cast<int32_t>(r * length + column));
    }
    for (int64_t t = 0; column < length; ++t, ++column) batch.positions[r][column] = t;
    if (ends.back() != (r + 1) * length) ends.push_back(static_cast<int32_t>((r + 1) * length));
  }
  batch.document_ends = at::tensor(ends, at::kInt);
  return batch;
}

// The golden's documents, packed as it says or each as a batch.
std::vector<data::Batch> batches_of(const data::Json& expected, bool packed) {
  const auto rows = expected["rows"].get<std::vector<std::vector<int64_t>>>();
  const auto ids = expected["ids"].get<std::vector<int64_t>>();
  const auto labels = expected["labels"].get<std::vector<int64_t>>();
  if (packed) return {batch_of(rows, ids, labels)};
  std::vector<data::Batch> batches;
  auto id = ids.begin();
  auto label = labels.begin();
  for (const auto& row : rows) {
    for (const int64_t document : row) {
      batches.push_back(batch_of({{document}}, {id, id + document}, {label, label + document}));
      id += document;
      label += document;
    }
  }
  return batches;
}

struct Outcome {
  double loss = 0;
  std::map<std::string, double> metrics;
  std::map<std::string, at::Tensor> gradients;
};

Outcome run(const std::string& name, const ModelOptions& options, const data::Json& expected,
            bool packed, const std::string& loss_type = "nll", float loss_gradient = 1) {
  const auto model = build_model(load_config(golden_files("model") / name), options);
  load_weights(*model, options, golden_files("model") / name);
  recipes::Objective sft;
  sft.loss_type = loss_type;
  const auto objective = build_objective(sft);
  Outcome outcome;
  const LossGradient differentiated_with(loss_gradient);
  for (const data::Batch& batch : batches_of(expected, packed)) {
    const LossTerms terms = objective->loss(*model, batch);
    outcome.loss += terms.sum.item<double>();
    for (const MetricSum& metric : known_metrics(terms)) outcome.metrics[metric.name] += metric.numerator;
    terms.sum.backward(at::full_like(terms.sum, loss_gradient));
  }
  for (const Parameter& parameter : model->parameters()) {
    outcome.gradients[parameter.name] =
        in_stored_order(parameter.value.grad() / loss_gradient, parameter.name, model->config());
  }
  return outcome;
}

void expect_like(const at::Tensor& found, const data::Json& summary, const std::string& what,
                 double tolerance = kTolerance) {
  const double norm = summary["norm"].get<double>();
  EXPECT_NEAR(found.to(at::kDouble).norm().item<double>(), norm, tolerance * norm) << what;
  const at::Tensor flat = found.reshape({-1});
  const auto values = summary["values"].get<std::vector<double>>();
  for (size_t i = 0; i < values.size(); ++i) {
    const auto index = static_cast<int64_t>(i) * summary["step"].get<int64_t>();
    EXPECT_NEAR(flat[index].item<double>(), values[i], tolerance * norm) << what << " at " << index;
  }
}

class ModelParity : public testing::TestWithParam<std::string> {
 protected:
  data::Json expected = data::read_json(golden_files("model") / GetParam() / "expected.json");
};

TEST_P(ModelParity, LossMetricsAndGradientsEqualTransformersPackedAndUnpacked) {
  for (const bool packed : {true, false}) {
    const Outcome outcome = run(GetParam(), {}, expected, packed);
    const double nll = expected["nll"].get<double>();
    EXPECT_NEAR(outcome.loss, nll, kTolerance * nll);
    EXPECT_NEAR(outcome.metrics.at("entropy"), expected["entropy"].get<double>(),
                kTolerance * expected["entropy"].get<double>());
    EXPECT_EQ(outcome.metrics.at("mean_token_accuracy"), expected["correct"].get<double>());
    ASSERT_EQ(outcome.gradients.size(), expected["gradient"].size());
    for (const auto& [name, gradient] : outcome.gradients)
      expect_like(gradient, expected["gradient"][name], name);
  }
}

TEST_P(ModelParity, HiddenStatesEqualTransformers) {
  const auto model = build_model(load_config(golden_files("model") / GetParam()), {});
  load_weights(*model, {}, golden_files("model") / GetParam());
  std::vector<at::Tensor> documents;
  for (const data::Batch& batch : batches_of(expected, false))
    documents.push_back(model->hidden(batch)[0].detach());
  expect_like(at::cat(documents), expected["hidden"], "hidden");
}

// Prompts of several sequences, then their other tokens one by one.
TEST_P(ModelParity, CachedHiddenStatesEqualTransformers) {
  const auto model = build_model(load_config(golden_files("model") / GetParam()), {});
  // Keys that are kept were rotated by the angles of a shorter sequence, so there is nothing to equal
  // (exact generation refuses both, engine.h); whole sequences are compared above.
  if (model->config().rope.type == "dynamic" || model->config().rope.type == "longrope") {
    GTEST_SKIP() << "angles depend on the whole sequence's length";
  }
  load_weights(*model, {}, golden_files("model") / GetParam());
  const ModelConfig& config = model->config();
  KvCache cache({.layers = config.num_hidden_layers,
                 .kv_heads = config.num_key_value_heads,
                 .head_dim = config.head_dim,
                 .dtype = at::kFloat});
  const auto ids = expected["ids"].get<std::vector<int64_t>>();
  std::vector<std::vector<int64_t>> documents;
  auto id = ids.begin();
  for (const auto& row : expected["rows"].get<std::vector<std::vector<int64_t>>>()) {
    for (const int64_t length : row) {
      documents.emplace_back(id, id + length);
      id += length;
    }
  }
  std::vector<CachedRun> runs;
  std::vector<int64_t> tokens;
  std::vector<std::vector<at::Tensor>> found(documents.size());
  for (const auto& document : documents) {
    const auto begun = static_cast<int64_t>(document.size()) / 2;
    runs.push_back({cache.add(), begun});
    tokens.insert(tokens.end(), document.begin(), document.begin() + begun);
  }
  const auto step = [&] {
    const at::Tensor hidden = model->hidden_cached(at::tensor(tokens, at::kLong), runs, cache);
    int64_t first = 0;
    for (const CachedRun& run : runs) {
      found[static_cast<size_t>(run.sequence)].push_back(hidden.narrow(0, first, run.tokens));
      first += run.tokens;
    }
  };
  step();
  for (bool more = true; more;) {
    runs.clear();
    tokens.clear();
    for (size_t i = 0; i < documents.size(); ++i) {
      const int64_t length = cache.length(static_cast<int64_t>(i));
      if (length == static_cast<int64_t>(documents[i].size())) continue;
      runs.push_back({static_cast<int64_t>(i), 1});
      tokens.push_back(documents[i][static_cast<size_t>(length)]);
    }
    more = !runs.empty();
    if (more) step();
  }
  std::vector<at::Tensor> all;
  for (const auto& parts : found) all.insert(all.end(), parts.begin(), parts.end());
  expect_like(at::cat(all), expected["hidden"], "hidden");
}

TEST_P(ModelParity, DftEqualsTrl) {
  const Outcome outcome = run(GetParam(), {}, expected, true, "dft");
  const double dft = expected["dft"].get<double>();
  EXPECT_NEAR(outcome.loss, dft, kTolerance * dft);
  for (const auto& [name, gradient] : outcome.gradients) {
    const double norm = expected["dft_gradient_norm"][name].get<double>();
    EXPECT_NEAR(gradient.norm().item<double>(), norm, kTolerance * norm) << name;
  }
}

TEST_P(ModelParity, CheckpointingChangesNoBit) {
  const Outcome without = run(GetParam(), {}, expected, true);
  for (const int mode : {1, 2}) {
    const Outcome with = run(GetParam(), {.activation_checkpointing = mode}, expected, true);
    EXPECT_EQ(with.loss, without.loss);
    for (const auto& [name, gradient] : with.gradients) {
      EXPECT_TRUE(gradient.equal(without.gradients.at(name))) << name << ", mode " << mode;
    }
  }
}

// Both round after every operator, at other places: transformers' own results are up to 1.7e-4 from
// those in float32. The bound is one rounding to float16.
TEST_P(ModelParity, Float16EqualsTransformersToARounding) {
  constexpr double kRounding = 0x1p-11;
  const ModelOptions options{.compute = at::kHalf, .weights = at::kHalf};
  const Outcome outcome = run(GetParam(), options, expected, true);
  const double nll = expected["half_nll"].get<double>();
  EXPECT_NEAR(outcome.loss, nll, kRounding * nll);
  const auto model = build_model(load_config(golden_files("model") / GetParam()), options);
  load_weights(*model, options, golden_files("model") / GetParam());
  std::vector<at::Tensor> documents;
  for (const data::Batch& batch : batches_of(expected, false))
    documents.push_back(model->hidden(batch)[0].detach());
  EXPECT_EQ(documents.front().scalar_type(), at::kHalf);
  expect_like(at::cat(documents).to(at::kFloat), expected["half_hidden"], "hidden", kRounding);
}

// `rounding`: that of the type, in bfloat16's.
void expect_near(const Outcome& outcome, const data::Json& expected, double rounding) {
  const double nll = expected["nll"].get<double>();
  EXPECT_NEAR(outcome.loss, nll, 0.01 * rounding * nll);
  double all = 0;
  for (const auto& [name, gradient] : outcome.gradients) {
    all += std::pow(expected["gradient"][name]["norm"].get<double>(), 2);
  }
  for (const auto& [name, gradient] : outcome.gradients) {
    EXPECT_EQ(gradient.scalar_type(), at::kFloat) << name;
    const double norm = expected["gradient"][name]["norm"].get<double>();
    // The rounding of the whole network is a floor: queries and keys get differences of large terms (the softmax's Jacobian), whose
    // error is a share of those terms. By 5 % of a tensor's own norm alone a dozen of some 2,000 tensors fail over seeds 2 to 7 (up to 11 %).
    EXPECT_NEAR(gradient.norm().item<double>(), norm,
                rounding * (0.05 * norm + 0.01 * std::sqrt(all)))
        << name;
  }
}

TEST_P(ModelParity, Bfloat16StaysNear) {
  expect_near(run(GetParam(), {.compute = at::kBFloat16}, expected, true), expected, 1);
}

// Scaled, as it is trained: a power of two here, so that only what would be lost below changes.
TEST_P(ModelParity, Float16StaysNear) {
  expect_near(run(GetParam(), {.compute = at::kHalf}, expected, true, "nll", 64), expected, 0x1p-3);
}

INSTANTIATE_TEST_SUITE_P(Cases, ModelParity, testing::ValuesIn(cases()), [](const auto& parameter) {
  std::string name = parameter.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

}  // namespace
}  // namespace temper::trainer
