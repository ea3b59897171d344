#include <string>

#include <gtest/gtest.h>

#include "data/loader/pack.h"
#include "recipes/diagnostic.h"
#include "tests/trainer/objectives/small_model.h"
#include "trainer/objectives/registry.h"

namespace temper::trainer {
namespace {

std::string refusal(const recipes::Objective& objective) {
  try {
    build_objective(objective);
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

TEST(Objectives, AreFoundByKindAndRefusedWithWhatThereIs) {
  recipes::Objective objective;
  for (const ObjectiveRow& row : objectives()) {
    objective.kind = row.kind;
    EXPECT_EQ(refusal(objective), "");
  }
  objective.kind = "stf";
  EXPECT_TRUE(refusal(objective).starts_with("objective.kind = \"stf\": not there; allowed: sft, dpo"))
      << refusal(objective);
  objective = {};
  objective.loss_type = "mse";
  EXPECT_EQ(refusal(objective),
            "objective.loss_type: allowed for sft: nll, dft");
}

TEST(Sft, MetricsAreNamedAsTrlNamesThem) {
  EXPECT_EQ(build_objective({})->metric_names(),
            (std::vector<std::string>{"mean_token_accuracy", "entropy"}));
}

// The loss and its gradients of rows of documents, a token.
struct SftGradients {
  double loss;
  at::Tensor gradients;
};

SftGradients sft_gradients(Model& model, const std::vector<data::Documents>& rows) {
  const data::Batch batch = data::collate(rows);
  const LossTerms terms = build_objective({})->loss(model, batch);
  terms.sum.backward();
  return {terms.sum.item<double>() / terms.count, take_gradients(model) / terms.count};
}

TEST(Sft, PackedRowsHaveTheLossAndTheGradientsOfUnpackedOnes) {
  std::vector<data::Example> rows;
  std::vector<int32_t> lengths;
  for (int32_t i = 0; i < 40; ++i) {
    data::Example row;
    for (int32_t t = 0; t < 2 + i * 7 % 15; ++t) {
      row.ids.push_back(1 + (i * 5 + t * t) % 19);
      row.supervised.push_back((i + t) % 3 != 0);
    }
    lengths.push_back(static_cast<int32_t>(row.ids.size()));
    rows.push_back(std::move(row));
  }
  const auto packed_as = [&](recipes::Packing packing) {
    const data::PackedRows packed = data::pack(lengths, 16, packing, 1000);
    std::vector<data::Documents> result(static_cast<size_t>(packed.size()));
    for (int64_t i = 0; i < packed.size(); ++i) {
      for (const data::Segment& segment : packed[i]) {
        const data::Example& row = rows[static_cast<size_t>(segment.row)];
        result[static_cast<size_t>(i)].push_back(
            {{row.ids.begin() + segment.begin, row.ids.begin() + segment.end},
             {row.supervised.begin() + segment.begin, row.supervised.begin() + segment.end}});
      }
    }
    return result;
  };
  const auto model = small_model(1);
  const SftGradients unpacked = sft_gradients(*model, packed_as(recipes::Packing::kNone));
  for (const auto packing : {recipes::Packing::kBfd, recipes::Packing::kBfdSplit}) {
    const std::vector<data::Documents> bins = packed_as(packing);
    ASSERT_LT(bins.size(), rows.size());
    const SftGradients packed = sft_gradients(*model, bins);
    EXPECT_NEAR(packed.loss, unpacked.loss, 1e-5 * unpacked.loss);
    const double off = (packed.gradients - unpacked.gradients).norm().item<double>();
    EXPECT_LT(off, 1e-5 * unpacked.gradients.norm().item<double>());
  }
}

}  // namespace
}  // namespace temper::trainer
