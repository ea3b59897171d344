#include "trainer/objectives/reference.h"

#include <gtest/gtest.h>

#include "recipes/peft_methods.h"
#include "tests/trainer/objectives/small_model.h"
#include "trainer/adapters/adapters.h"

namespace temper::trainer {
namespace {

using Names = std::vector<std::string>;

data::Batch batch_of_pairs() { return data::collate_rows(pairs(), data::RowLayout{}); }

recipes::Peft lora(const Names& modules_to_save = {}) {
  recipes::Recipe recipe;
  recipe.peft.method = "lora";
  recipes::fill_in_peft(recipe);
  recipe.peft.r = 2;
  if (!modules_to_save.empty()) recipe.peft.modules_to_save = modules_to_save;
  return recipe.peft;
}

struct Adapted {
  explicit Adapted(const recipes::Peft& peft) : model(small_model(1, small_config(), options)) {
    adapters = std::make_unique<Adapters>(peft, *model, options);
    adapters->initialize(3);
  }
  void train() {
    const at::NoGradGuard off;
    for (Parameter& parameter : model->parameters()) {
      if (parameter.trainable()) parameter.master.add_(0.3);
    }
    refresh_values(*model);
  }
  at::Tensor log_probs() { return reference_by_policy(*model)->log_probs(batch_of_pairs(), 1.0); }

  ModelOptions options{.frozen = true};
  std::unique_ptr<Model> model;
  std::unique_ptr<Adapters> adapters;
};

TEST(ReferenceByStart, StaysWhereNewAdaptersAndWhatIsTrainedBesideThemBegan) {
  for (const Names& saved : {Names{}, Names{"embed_tokens", "lm_head"}}) {
    Adapted policy(lora(saved));
    const auto plain = small_model(1);
    const at::Tensor start = reference_by_policy(*plain)->log_probs(batch_of_pairs(), 1.0);
    const auto reference = reference_by_start(*policy.model, *policy.adapters, false);
    EXPECT_LT(apart(reference->log_probs(batch_of_pairs(), 1.0), start), 1e-6);
    policy.train();
    const at::Tensor trained = policy.log_probs();
    EXPECT_GT(apart(trained, start), 1e-2);
    EXPECT_LT(apart(reference->log_probs(batch_of_pairs(), 1.0), start), 1e-6);
    EXPECT_TRUE(policy.log_probs().equal(trained)) << "the policy is as it was";
  }
}

TEST(ReferenceByStart, KeepsTheEffectOfAnAdapterThatWasLoaded) {
  Adapted policy(lora());
  policy.train();  // as if it came from a directory
  const at::Tensor start = policy.log_probs();
  const auto reference = reference_by_start(*policy.model, *policy.adapters, true);
  policy.train();
  EXPECT_GT(apart(policy.log_probs(), start), 1e-2);
  EXPECT_TRUE(reference->log_probs(batch_of_pairs(), 1.0).equal(start));
}

TEST(ReferenceByStart, OfResidualStartsIsBaseAndAdapterTogether) {
  recipes::Peft pissa = lora();
  pissa.init_lora_weights = "pissa";
  Adapted policy(pissa);
  const auto plain = small_model(1);
  const at::Tensor start = reference_by_policy(*plain)->log_probs(batch_of_pairs(), 1.0);
  const auto reference = reference_by_start(*policy.model, *policy.adapters, false);
  policy.train();
  EXPECT_LT(apart(reference->log_probs(batch_of_pairs(), 1.0), start), 1e-5);
}

TEST(ReferenceByModel, FollowsThePolicyEverySoManySteps) {
  const auto policy = small_model(5);
  const auto reference =
      reference_by_model(small_model(1), FollowOptions{.alpha = 0.25, .every = 2});
  const auto expected = small_model(1);
  {
    const at::NoGradGuard off;
    for (size_t i = 0; i < expected->parameters().size(); ++i) {
      at::Tensor value = expected->parameters()[i].value;
      value.mul_(0.75).add_(policy->parameters()[i].value, 0.25);
    }
  }
  const at::Tensor before = reference->log_probs(batch_of_pairs(), 1.0);
  reference->follow(*policy, 1);
  EXPECT_TRUE(reference->log_probs(batch_of_pairs(), 1.0).equal(before));
  reference->follow(*policy, 2);
  EXPECT_TRUE(reference->log_probs(batch_of_pairs(), 1.0)
                  .equal(reference_by_policy(*expected)->log_probs(batch_of_pairs(), 1.0)));
  // What a checkpoint holds brings another one to the same place.
  const auto resumed = reference_by_model(small_model(1), FollowOptions{});
  const NamedTensors from = reference->state(), to = resumed->state();
  ASSERT_EQ(from.size(), to.size());
  {
    const at::NoGradGuard off;
    for (size_t i = 0; i < from.size(); ++i) at::Tensor(to[i].second).copy_(from[i].second);
  }
  resumed->restored();
  EXPECT_TRUE(resumed->log_probs(batch_of_pairs(), 1.0)
                  .equal(reference->log_probs(batch_of_pairs(), 1.0)));
}

}  // namespace
}  // namespace temper::trainer
