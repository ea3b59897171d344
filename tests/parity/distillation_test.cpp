// gkd and distill against TRL 1.16.0's divergences of two small models (goldens of
// make_distillation.py): loss, entropy and every parameter's gradient, of rows packed in one batch
// and of rows of their own in two. Tolerance: 1e-5 of the expected number; both sides compute in
// float32, where the divergence's terms of both signs cost a few units in the last place.
#include <map>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "data/io/json.h"
#include "data/loader/collate.h"
#include "tests/parity/golden.h"
#include "tests/trainer/objectives/known_metrics.h"
#include "trainer/models/model.h"
#include "trainer/objectives/objective.h"
#include "trainer/objectives/reference.h"

namespace temper::trainer {
namespace {

constexpr double kTolerance = 1e-5;

std::unique_ptr<Model> model_of(const std::string& name) {
  const auto directory = golden_files("distillation") / name;
  auto model = build_model(load_config(directory), {});
  load_weights(*model, {}, directory);
  return model;
}

std::vector<data::Documents> rows_of(const data::Json& golden) {
  std::vector<data::Documents> rows;
  for (const data::Json& row : golden.at("rows")) {
    data::Example example{.ids = row.at("ids"), .supervised = {}};
    example.supervised.assign(example.ids.size(), 1);
    std::fill_n(example.supervised.begin(), row.at("prompt").get<size_t>(), 0);
    rows.push_back({example});
  }
  return rows;
}

// With lmbda = 0 rows are packed, else each stands alone.
std::vector<data::Batch> batches_of(const data::Json& golden, bool packed) {
  const std::vector<data::Documents> rows = rows_of(golden);
  if (packed) {
    const std::vector<data::Documents> together = {{rows[0][0], rows[1][0]}, rows[2]};
    return {data::collate(together)};
  }
  return {data::collate_rows({{rows[0], ""}, {rows[1], ""}}, {}),
          data::collate_rows({{rows[2], ""}}, {})};
}

TEST(DistillationParity, LossEntropyAndGradientsEqualTrl) {
  const data::Json golden = data::read_json(golden_files("distillation") / "expected.json");
  const auto communicator = parallel::make_solo_communicator();
  const auto teacher = reference_by_model(model_of("teacher"), {});
  for (const data::Json& expected : golden.at("cases")) {
    const double temperature = expected.at("temperature");
    for (const std::string kind : {"gkd", "distill"}) {
      if (kind == "gkd" && temperature != 1) continue;  // its loss has none
      for (const bool packed : {true, false}) {
        recipes::Objective settings;
        settings.kind = kind;
        settings.beta = expected.at("beta").get<double>();
        settings.lmbda = packed ? 0 : 1;
        const auto objective = build_objective(settings);
        EXPECT_EQ(objective->row_layout().has_value(), !packed);
        const auto student = model_of("student");
        data::StepBatches step{.micro_batches = batches_of(golden, packed)};
        objective->prepare(step, {.model = *student,
                                  .reference = teacher.get(),
                                  .communicator = *communicator,
                                  .step = 1,
                                  .temperature = temperature});
        double loss = 0, count = 0, entropy = 0;
        for (const data::Batch& batch : step.micro_batches) {
          const LossTerms terms = objective->loss(*student, batch);
          terms.sum.backward();
          loss += terms.sum.item<double>();
          count += terms.count;
          for (const MetricSum& metric : known_metrics(terms)) {
            if (metric.name == "entropy") entropy += metric.numerator;
          }
        }
        const std::string what = kind + expected.dump().substr(0, 40);
        const double theirs = expected.at(kind);
        EXPECT_NEAR(loss / count, theirs, kTolerance * theirs) << what;
        EXPECT_NEAR(entropy, expected.at("entropy").get<double>(), kTolerance * entropy) << what;
        const data::Json& norms = expected.at(kind + "_gradient_norm");
        ASSERT_EQ(norms.size(), student->parameters().size());
        for (const Parameter& parameter : student->parameters()) {
          const double norm = norms.at(parameter.name);
          EXPECT_NEAR(parameter.value.grad().norm().item<double>() / count, norm, kTolerance * norm)
              << what << ' ' << parameter.name;
        }
      }
    }
  }
}

}  // namespace
}  // namespace temper::trainer
