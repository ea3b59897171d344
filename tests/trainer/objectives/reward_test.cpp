#include <gtest/gtest.h>

#include "recipes/peft_methods.h"
#include "tests/trainer/objectives/small_model.h"
#include "trainer/adapters/adapters.h"
#include "trainer/objectives/completions.h"
#include "trainer/objectives/registry.h"
#include "trainer/ops/head_scores.h"

namespace temper::trainer {
namespace {

ModelConfig scoring_config(std::optional<int32_t> pad_id) {
  return with_score_head(small_config(), 1, pad_id);
}

std::unique_ptr<Objective> reward_model(double center_coefficient = 0) {
  recipes::Objective objective = objective_of("reward");
  objective.center_rewards_coefficient = center_coefficient;
  return build_objective(objective);
}

double score_of(Model& model, const std::vector<int32_t>& ids) {
  const at::NoGradGuard off;
  const data::Batch batch = data::collate_rows(
      {{.documents = {document({}, ids)}, .columns = {}}}, data::RowLayout{});
  const at::Tensor scores =
      at::matmul(model.hidden(batch).squeeze(0), model.head().weight.t()).squeeze(1);
  return scores[-1].item<double>();
}

TEST(ScoreHead, ReplacesTheLanguageModelsOwn) {
  const ModelConfig config = scoring_config(0);
  EXPECT_EQ(config.architecture, "LlamaForSequenceClassification");
  EXPECT_EQ(config.json.dump(),
            R"({"architectures":["LlamaForSequenceClassification"],"id2label":{"0":"LABEL_0"},)"
            R"("label2id":{"LABEL_0":0},"pad_token_id":0})");
  const auto model = small_model(1, config);
  EXPECT_EQ(model->parameters().back().name, "score.weight");
  EXPECT_EQ(model->head().weight.sizes(), (at::IntArrayRef{1, 8}));
  for (const Parameter& parameter : model->parameters()) EXPECT_NE(parameter.name, "lm_head.weight");
}

TEST(ScoreHead, IsDrawnFromTheSeedAloneAndOnlyWhereTheFilesLackIt) {
  const auto head_after = [](bool new_head, int64_t seed) {
    ModelConfig config = scoring_config(0);
    config.new_head = new_head;
    const auto model = small_model(1, config);
    draw_head(*model, seed);
    return model->head().weight.detach().clone();
  };
  EXPECT_TRUE(head_after(true, 7).equal(head_after(true, 7)));
  EXPECT_FALSE(head_after(true, 7).equal(head_after(true, 8)));
  EXPECT_TRUE(head_after(false, 7).equal(head_after(false, 8)));
}

TEST(ScoreHead, IsTrainedAndSavedBesideAdaptersAsPeftDoes) {
  recipes::Recipe recipe;
  recipe.peft.method = "lora";
  recipe.peft.r = 2;
  recipes::fill_in_peft(recipe);
  const ModelOptions options{.frozen = true};
  const auto model = small_model(1, scoring_config(0), options);
  const Adapters adapters(recipe.peft, *model, options);
  EXPECT_TRUE(model->head().weight.requires_grad());
  bool saved = false;
  for (const auto& [key, tensor] : adapters.tensors()) {
    saved |= key == "base_model.model.score.weight";
  }
  EXPECT_TRUE(saved);
  const data::Json config = adapter_config(adapters, "base");
  EXPECT_EQ(config.at("task_type"), data::Json("SEQ_CLS"));
  EXPECT_EQ(config.at("modules_to_save").dump(), R"(["classifier","score"])");
}

TEST(HeadScores, ValuesAndGradientsAreThoseOfAProduct) {
  const at::Tensor hidden = at::randn({2, 5, 6}).requires_grad_(true);
  const at::Tensor weight = at::randn({3, 6}).requires_grad_(true);
  const at::Tensor positions = at::tensor({9, 0, 9}, at::kLong), weights = at::randn({3, 3});
  const at::Tensor scores = head_scores(hidden, {.weight = weight}, positions);
  (scores * weights).sum().backward();
  const at::Tensor ours = hidden.grad().clone(), ours_of_weight = weight.grad().clone();
  hidden.mutable_grad().reset();
  weight.mutable_grad().reset();
  const at::Tensor theirs =
      at::matmul(hidden.view({10, 6}).index_select(0, positions), weight.t());
  (theirs * weights).sum().backward();
  EXPECT_LT(apart(scores, theirs), 1e-5);
  EXPECT_LT(apart(ours, hidden.grad()), 1e-5);
  EXPECT_LT(apart(ours_of_weight, weight.grad()), 1e-5);
}

TEST(RewardModel, ReadsTheLastTokenThatIsNotPadding) {
  // 2 ends each text and is the padding token, as where a tokenizer has none of its own.
  const auto model = small_model(1, scoring_config(2));
  const Computed computed = compute(*reward_model(), *model, nullptr, {pairs()});
  double loss = 0, ahead = 0;
  for (const data::TokenizedRow& row : pairs()) {
    double scores[2];
    for (size_t d = 0; d < 2; ++d) {
      std::vector<int32_t> ids = row.documents[d].ids;
      ids.pop_back();
      scores[d] = score_of(*model, ids);
    }
    loss += std::log1p(std::exp(scores[1] - scores[0])) / 4;
    ahead += (scores[0] - scores[1]) / 4;
  }
  EXPECT_NEAR(computed.loss, loss, 1e-5);
  EXPECT_NEAR(metric(computed, "margin"), ahead, 1e-5);
}

TEST(RewardModel, MarginsAndSharedPrompts) {
  std::vector<data::TokenizedRow> rows = pairs();
  for (data::TokenizedRow& row : rows) row.columns = R"({"margin": 0.5})";
  const auto model = small_model(1, scoring_config(0));
  const auto objective = reward_model(0.1);
  const Computed computed = compute(*objective, *model, nullptr, {rows});
  double loss = 0, least = 1e9;
  for (const data::TokenizedRow& row : rows) {
    const double c = score_of(*model, row.documents[0].ids), r = score_of(*model, row.documents[1].ids);
    loss += (std::log1p(std::exp(r - c + 0.5)) + 0.1 * (c + r) * (c + r)) / 4;
    least = std::min({least, c, r});
  }
  EXPECT_NEAR(computed.loss, loss, 1e-5);
  EXPECT_NEAR(metric(computed, "min_reward"), least, 1e-5);
  const Computed whole = compute(*objective, *model, nullptr, {rows}, false);
  EXPECT_NEAR(computed.loss, whole.loss, 1e-6);
  EXPECT_LT(apart(computed.gradients, whole.gradients), 1e-6);
}

}  // namespace
}  // namespace temper::trainer
