// PPO's targets, loss, gradients and metrics against goldens of make_ppo.py, which are in float64;
// here are float32 tensors whose sums are in float64, so that single numbers differ by a few of
// float32's last digits, 1.2e-7 of numbers up to 3.
#include "trainer/objectives/ppo_losses.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "data/io/json.h"
#include "tests/parity/golden.h"
#include "tests/trainer/objectives/known_metrics.h"

namespace temper::trainer {
namespace {

constexpr double kTolerance = 2e-6;

at::Tensor floats(const data::Json& list) {
  return at::tensor(list.get<std::vector<float>>(), at::kFloat);
}

PpoOptions options_of(const data::Json& setting) {
  recipes::Objective objective;
  for (const auto& [key, value] : setting.items()) {
    if (key == "whiten_rewards") objective.whiten_rewards = value;
    else if (key == "gamma") objective.gamma = value;
    else if (key == "lam") objective.lam = value;
    else if (key == "cliprange") objective.cliprange = value;
    else if (key == "cliprange_value") objective.cliprange_value = value;
    else if (key == "vf_coef") objective.vf_coef = value;
    else if (key == "kl_coef") objective.kl_coef = value;
    else ADD_FAILURE() << "no such key: " << key;
  }
  return ppo_options(objective);
}

void expect_near(const at::Tensor& found, const at::Tensor& expected) {
  EXPECT_LE((found - expected).abs().max().item<double>(), kTolerance)
      << "found\n" << found << "\nexpected\n" << expected;
}

struct Inputs {
  explicit Inputs(const data::Json& from) : json(from) {
    std::vector<int64_t> all = {0};
    for (const int64_t length : json.at("lengths").get<std::vector<int64_t>>()) {
      all.push_back(all.back() + length);
    }
    ends = at::tensor(all, at::kLong);
  }
  at::Tensor operator[](const char* name) const { return floats(json.at(name)); }

  data::Json json;
  at::Tensor ends;
};

TEST(PpoParity, TargetsLossGradientsAndMetricsEqualTheFormulas) {
  const data::Json file = data::read_json(golden_files("ppo") / "ppo.json");
  const Inputs inputs(file.at("inputs"));
  ASSERT_GE(file.at("cases").size(), 7u);
  for (const data::Json& one : file.at("cases")) {
    SCOPED_TRACE(one.at("setting").dump());
    const PpoOptions options = options_of(one.at("setting"));
    const PpoTargets targets =
        ppo_targets({.log_probs = inputs["old_log_probs"],
                     .reference_log_probs = inputs["reference_log_probs"],
                     .values = inputs["old_values"],
                     .ends = inputs.ends,
                     .scores = inputs["scores"]},
                    options);
    expect_near(targets.advantages, floats(one.at("advantages")));
    expect_near(targets.returns, floats(one.at("returns")));

    const at::Tensor log_probs = inputs["log_probs"].requires_grad_();
    const at::Tensor values = inputs["values"].requires_grad_();
    const LossTerms terms = ppo_loss({.log_probs = log_probs,
                                      .values = values,
                                      .entropy = inputs["entropy"],
                                      .old_log_probs = inputs["old_log_probs"],
                                      .old_values = inputs["old_values"],
                                      .advantages = targets.advantages,
                                      .returns = targets.returns},
                                     options);
    EXPECT_NEAR(terms.sum.item<double>() / terms.count, one.at("loss").get<double>(), kTolerance);
    (terms.sum / terms.count).backward();
    expect_near(log_probs.grad(), floats(one.at("log_prob_gradient")));
    expect_near(values.grad(), floats(one.at("value_gradient")));
    std::vector<std::string> names;
    for (const MetricSum& metric : known_metrics(terms)) {
      names.push_back(metric.name);
      EXPECT_NEAR(metric.numerator / metric.denominator,
                  one.at("metrics").at(metric.name).get<double>(), kTolerance)
          << metric.name;
    }
    EXPECT_EQ(names, ppo_metric_names());
    EXPECT_EQ(names.size(), one.at("metrics").size());
  }
}

}  // namespace
}  // namespace temper::trainer
