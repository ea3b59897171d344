#include <map>

#include <gtest/gtest.h>

#include "recipes/diagnostic.h"
#include "tests/trainer/objectives/small_model.h"
#include "trainer/objectives/completions.h"
#include "trainer/objectives/registry.h"
#include "trainer/ops/head_cross_entropy.h"

namespace temper::trainer {
namespace {

using Names = std::vector<std::string>;
using Rows = std::vector<data::TokenizedRow>;

std::unique_ptr<Reference> reference_model() { return reference_by_model(small_model(2), {}); }

// log p of each supervised token of a document by the whole logits, a document by itself.
at::Tensor plain_log_probs(Model& model, const data::Example& example) {
  const at::NoGradGuard off;
  const data::Batch batch =
      data::collate_rows({{.documents = {example}, .columns = {}}}, data::RowLayout{});
  const int64_t length = static_cast<int64_t>(example.ids.size());
  const at::Tensor logits = head_logits(model.hidden(batch).view({length, -1}), model.head());
  const at::Tensor all = at::log_softmax(logits, -1);
  std::vector<float> picked;
  for (int64_t t = 1; t < length; ++t) {
    if (example.supervised[static_cast<size_t>(t)] == 0) continue;
    picked.push_back(all[t - 1][example.ids[static_cast<size_t>(t)]].item<float>());
  }
  return at::tensor(picked);
}

double total(Model& model, const data::Example& example) {
  return plain_log_probs(model, example).sum().item<double>();
}

double log_sigmoid(double x) { return -std::log1p(std::exp(-x)); }

TEST(Completions, SumsAndTheirGradientsAreThoseOfEachCompletion) {
  const at::Tensor values = at::tensor({1.0f, 2.0f, 4.0f, 8.0f}).requires_grad_(true);
  const at::Tensor sums = sum_per_completion(values, at::tensor({0, 1, 1, 4}, at::kLong));
  EXPECT_TRUE(sums.equal(at::tensor({1.0f, 0.0f, 14.0f})));
  (sums * at::tensor({1.0f, 2.0f, 3.0f})).sum().backward();
  EXPECT_TRUE(values.grad().equal(at::tensor({1.0f, 3.0f, 3.0f, 3.0f})));
}

TEST(Dpo, LossIsLog2WhereThePolicyIsTheReference) {
  const auto model = small_model(1);
  const auto reference = reference_by_model(small_model(1), {});
  const Computed computed =
      compute(*build_objective(objective_of("dpo")), *model, reference.get(), {pairs()});
  EXPECT_EQ(computed.count, 4);
  EXPECT_NEAR(computed.loss, std::log(2.0), 1e-7);
  EXPECT_EQ(metric(computed, "rewards/margins"), 0);
  EXPECT_EQ(metric(computed, "rewards/accuracies"), 0);
}

TEST(Dpo, LossAndMetricsAreThoseOfTheFormula) {
  const auto model = small_model(1), other = small_model(2);
  const auto reference = reference_model();
  const Computed computed =
      compute(*build_objective(objective_of("dpo")), *model, reference.get(), {pairs()});
  double loss = 0, chosen = 0, rejected = 0, logps = 0, accurate = 0;
  for (const data::TokenizedRow& row : pairs()) {
    const data::Example &good = row.documents[0], &bad = row.documents[1];
    const double c = total(*model, good) - total(*other, good);
    const double r = total(*model, bad) - total(*other, bad);
    loss -= log_sigmoid(0.1 * (c - r)) / 4;
    chosen += 0.1 * c / 4;
    rejected += 0.1 * r / 4;
    accurate += c > r ? 0.25 : 0;
    logps += total(*model, good) / 4;
  }
  EXPECT_NEAR(computed.loss, loss, 1e-6);
  EXPECT_NEAR(metric(computed, "rewards/chosen"), chosen, 1e-6);
  EXPECT_NEAR(metric(computed, "rewards/rejected"), rejected, 1e-6);
  EXPECT_NEAR(metric(computed, "rewards/margins"), chosen - rejected, 1e-6);
  EXPECT_NEAR(metric(computed, "rewards/accuracies"), accurate, 1e-9);
  EXPECT_NEAR(metric(computed, "logps/chosen"), logps, 1e-5);
}

TEST(Preference, SharedPromptsChangeNothing) {
  const auto reference = reference_model();
  for (const char* kind : {"dpo", "orpo", "cpo"}) {
    const auto model = small_model(1);
    const auto objective = build_objective(objective_of(kind));
    const Computed shared = compute(*objective, *model, reference.get(), {pairs()});
    const Computed whole = compute(*objective, *model, reference.get(), {pairs()}, false);
    EXPECT_NEAR(shared.loss, whole.loss, 1e-6) << kind;
    EXPECT_LT(apart(shared.gradients, whole.gradients), 1e-6) << kind;
    for (size_t i = 0; i < shared.metrics.size(); ++i) {
      EXPECT_NEAR(shared.metrics[i].numerator, whole.metrics[i].numerator, 2e-5)
          << kind << " " << shared.metrics[i].name;
    }
  }
}

TEST(Preference, LossesOfSinglePairsDoNotDependOnTheCut) {
  const auto reference = reference_model();
  const Rows all = pairs();
  recipes::Objective cpo = objective_of("cpo");
  cpo.cpo_alpha = 0;  // the likelihood term is a mean of a micro-batch's tokens
  for (const recipes::Objective& recipe : {objective_of("dpo"), cpo}) {
    const auto model = small_model(1);
    const auto objective = build_objective(recipe);
    const Computed once = compute(*objective, *model, reference.get(), {all});
    const Computed cut = compute(*objective, *model, reference.get(),
                                 {{all[0]}, {all[1], all[2]}, {all[3]}});
    EXPECT_NEAR(once.loss, cut.loss, 1e-6) << recipe.kind;
    EXPECT_LT(apart(once.gradients, cut.gradients), 1e-6) << recipe.kind;
    for (const MetricSum& each : once.metrics) {
      EXPECT_NEAR(metric(once, each.name), metric(cut, each.name), 1e-5) << each.name;
    }
  }
}

TEST(Orpo, LikelihoodIsOfPromptAndCompletionAndOddsOfCompletionsAlone) {
  const auto model = small_model(1);
  const Computed computed =
      compute(*build_objective(objective_of("orpo")), *model, nullptr, {pairs()});
  double nll = 0, tokens = 0, ratio = 0;
  for (data::TokenizedRow row : pairs()) {
    const at::Tensor chosen = plain_log_probs(*model, row.documents[0]);
    const at::Tensor rejected = plain_log_probs(*model, row.documents[1]);
    const double c = chosen.mean().item<double>(), r = rejected.mean().item<double>();
    ratio += log_sigmoid((c - r) - (std::log1p(-std::exp(c)) - std::log1p(-std::exp(r)))) / 4;
    std::fill(row.documents[0].supervised.begin(), row.documents[0].supervised.end(), 1);
    nll -= total(*model, row.documents[0]);
    tokens += static_cast<double>(row.documents[0].ids.size() - 1);
  }
  EXPECT_NEAR(metric(computed, "nll_loss"), nll / tokens, 1e-5);
  EXPECT_NEAR(metric(computed, "log_odds_ratio"), ratio, 1e-5);
  EXPECT_NEAR(computed.loss, nll / tokens - 0.1 * ratio, 1e-5);
}

TEST(Kto, KlIsOfPromptsWithTheCompletionsOfTheRowsBefore) {
  const auto model = small_model(1), other = small_model(2);
  const auto reference = reference_model();
  const std::vector<data::Example> mismatched = {
      document({1, 5, 6}, {3, 2}), document({1, 3}, {7, 8, 2}), document({1}, {11, 2}),
      document({1, 17}, {13, 14, 15, 2})};
  double kl = 0;
  for (const data::Example& example : mismatched) {
    kl += (total(*model, example) - total(*other, example)) / 4;
  }
  kl = std::max(0.0, kl);
  const Computed computed =
      compute(*build_objective(objective_of("kto")), *model, reference.get(), {rated()});
  EXPECT_NEAR(metric(computed, "kl"), kl, 1e-5);
  double loss = 0, chosen = 0;
  const std::vector<bool> good = {true, false, false, true};
  const Rows rows = rated();
  for (size_t i = 0; i < rows.size(); ++i) {
    const data::Example& example = rows[i].documents[0];
    const double x = 0.1 * (total(*model, example) - total(*other, example) - kl);
    loss += (1 - 1 / (1 + std::exp(good[i] ? -x : x))) / 4;
    if (good[i]) chosen += 0.1 * (total(*model, example) - total(*other, example)) / 2;
  }
  EXPECT_NEAR(computed.loss, loss, 1e-6);
  EXPECT_NEAR(metric(computed, "rewards/chosen"), chosen, 1e-6);
}

TEST(Kto, AMicroBatchOfOneClassHasNoMarginAndNoMetricsOfTheOther) {
  const auto model = small_model(1);
  const auto reference = reference_model();
  const Rows rows = rated();
  const Computed computed = compute(*build_objective(objective_of("kto")), *model,
                                    reference.get(), {{rows[0], rows[3]}});
  EXPECT_TRUE(std::isnan(metric(computed, "rewards/margins")));
  EXPECT_TRUE(std::isnan(metric(computed, "logps/rejected")));
  EXPECT_FALSE(std::isnan(metric(computed, "rewards/chosen")));
}

std::string refusal(const recipes::Objective& objective) {
  try {
    build_objective(objective);
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

TEST(Preference, LossesThatAreNotThereAreRefusedWithThoseThatAre) {
  recipes::Objective dpo = objective_of("dpo");
  dpo.loss_type = Names{"sigmoid", "sigmod"};
  EXPECT_EQ(refusal(dpo),
            "objective.loss_type = \"sigmod\": not there; allowed for dpo: sigmoid, hinge, ipo, "
            "exo_pair, nca_pair, robust, bco_pair, sppo_hard, aot, aot_unpaired, apo_zero, "
            "apo_down, discopop, sft, sigmoid_norm");
  dpo.loss_type = Names{"sigmoid", "bco_pair"};
  dpo.f_divergence_type = "js_divergence";
  EXPECT_EQ(refusal(dpo),
            "objective.f_divergence_type = \"js_divergence\": has no meaning for loss_type "
            "\"bco_pair\", only for sigmoid, hinge, ipo, exo_pair, robust, discopop, sft, "
            "sigmoid_norm");
  recipes::Objective kto = objective_of("kto");
  kto.loss_type = "bco";
  EXPECT_EQ(refusal(kto),
            "objective.loss_type = \"bco\": allowed for kto: kto, apo_zero_unpaired");
}

}  // namespace
}  // namespace temper::trainer
