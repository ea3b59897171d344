// Losses of pairs and rated completions against TRL 1.16.0: goldens of make_preference.py, values
// and gradients. Tolerance: 1e-5 of the larger of 1 and the expected number; both sides compute in
// float32.
#include <cmath>
#include <set>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "data/io/json.h"
#include "tests/parity/golden.h"
#include "trainer/objectives/completions.h"
#include "trainer/objectives/dpo_losses.h"
#include "trainer/objectives/kto_loss.h"
#include "trainer/objectives/pair_losses.h"

namespace temper::trainer {
namespace {

using data::Json;

const Json& goldens() {
  static const Json cases = data::read_json(golden_files("preference") / "cases.json");
  return cases;
}

at::Tensor tensor(const Json& numbers) { return at::tensor(numbers.get<std::vector<float>>()); }

at::Tensor leaf(const Json& numbers) { return tensor(numbers).requires_grad_(true); }

// Lists of one completion each, one after the other.
at::Tensor flat(const Json& lists) {
  std::vector<float> all;
  for (const Json& list : lists) {
    for (const Json& number : list) all.push_back(number.get<float>());
  }
  return at::tensor(all);
}

void expect_close(const at::Tensor& ours, const at::Tensor& theirs, const std::string& what) {
  ASSERT_EQ(ours.sizes(), theirs.sizes()) << what;
  const at::Tensor apart = (ours - theirs).abs() / theirs.abs().clamp_min(1);
  EXPECT_LT(apart.max().item<float>(), 1e-5) << what << "\n" << ours << "\n" << theirs;
}

void expect_close(double ours, const Json& theirs, const std::string& what) {
  const double expected = theirs.get<double>();
  EXPECT_LT(std::abs(ours - expected), 1e-5 * std::max(1.0, std::abs(expected))) << what;
}

DpoOptions dpo_options(const Json& json) {
  DpoOptions options{.loss_types = json.at("loss_type").get<std::vector<std::string>>(),
                     .beta = json.at("beta"),
                     .label_smoothing = json.at("label_smoothing"),
                     .f_divergence_type = json.at("f_divergence_type"),
                     .f_alpha_divergence_coef = json.at("f_alpha_divergence_coef"),
                     .discopop_tau = json.at("discopop_tau")};
  if (!json.at("loss_weights").is_null()) {
    options.loss_weights = json.at("loss_weights").get<std::vector<double>>();
  }
  return options;
}

TEST(DpoParity, EveryLossAndOptionEqualsTrl) {
  std::set<std::string> seen;
  for (const Json& expected : goldens().at("dpo")) {
    const Json& json = expected.at("options");
    const DpoOptions options = dpo_options(json);
    check(options);
    seen.insert(options.loss_types.begin(), options.loss_types.end());

    const at::Tensor log_probs = flat(expected.at("log_probs")).requires_grad_(true);
    std::vector<int64_t> bounds{0};
    std::vector<float> lengths;
    for (const Json& completion : expected.at("log_probs")) {
      lengths.push_back(static_cast<float>(completion.size()));
      bounds.push_back(bounds.back() + static_cast<int64_t>(completion.size()));
    }
    const at::Tensor ends = at::tensor(bounds, at::kLong), reference = tensor(expected["reference"]);
    at::Tensor counted = log_probs;
    if (!json.at("ld_alpha").is_null()) counted = log_probs * ld_weights(ends, json.at("ld_alpha"));
    const at::Tensor sums = sum_per_completion(counted, ends);
    const at::Tensor each = at::tensor(lengths);
    const at::Tensor nll =
        -chosen_of(sum_per_completion(log_probs, ends)).sum() / chosen_of(each).sum();
    DpoInputs inputs{.policy = {chosen_of(sums), rejected_of(sums)},
                     .reference = {chosen_of(reference), rejected_of(reference)},
                     .lengths = {chosen_of(each), rejected_of(each)},
                     .chosen_nll = nll};
    if (json.at("use_weighting").get<bool>()) {
      inputs.weights = wpo_weights(log_probs, flat(expected.at("log_sum_squares")), ends);
    }
    const at::Tensor loss = dpo_loss(inputs, options).mean();
    loss.backward();
    expect_close(loss.item<double>(), expected.at("loss"), json.dump());
    expect_close(log_probs.grad(), flat(expected.at("gradient")), json.dump());
  }
  for (const DpoLoss& row : dpo_losses()) EXPECT_TRUE(seen.contains(row.name)) << row.name;
}

TEST(KtoParity, LossAndGradientEqualTrl) {
  for (const Json& expected : goldens().at("kto")) {
    const KtoOptions options{
        .apo_zero_unpaired = expected.at("loss_type") == Json("apo_zero_unpaired"),
        .beta = expected.at("beta"),
        .desirable_weight = expected.at("weights")[0],
        .undesirable_weight = expected.at("weights")[1]};
    at::Tensor desirable = at::empty({static_cast<int64_t>(expected.at("label").size())}, at::kBool);
    for (size_t i = 0; i < expected.at("label").size(); ++i) {
      desirable[static_cast<int64_t>(i)] = expected.at("label")[i].get<bool>();
    }
    const at::Tensor ratios = leaf(expected.at("log_ratios"));
    const at::Tensor loss =
        kto_loss(ratios, desirable, expected.at("kl").get<double>(), options).mean();
    loss.backward();
    expect_close(loss.item<double>(), expected.at("loss"), expected.dump());
    expect_close(ratios.grad(), tensor(expected.at("gradient")), expected.dump());
  }
}

TEST(CpoParity, LossesRewardsAndGradientsEqualTrl) {
  for (const Json& expected : goldens().at("cpo")) {
    const Json& json = expected.at("options");
    const CpoOptions options{.loss_type = json.at("loss_type"),
                             .beta = json.at("beta"),
                             .label_smoothing = json.at("label_smoothing"),
                             .simpo_gamma = json.at("simpo_gamma"),
                             .alpha = json.at("alpha")};
    const at::Tensor chosen = leaf(expected.at("chosen")), rejected = leaf(expected.at("rejected"));
    const at::Tensor worth = cpo_reward(chosen, options), other = cpo_reward(rejected, options);
    const at::Tensor losses = cpo_loss(worth, other, options);
    losses.mean().backward();
    expect_close(losses, tensor(expected.at("losses")), json.dump());
    expect_close(options.beta * worth, tensor(expected.at("rewards")[0]), json.dump());
    expect_close(options.beta * other, tensor(expected.at("rewards")[1]), json.dump());
    expect_close(chosen.grad(), tensor(expected.at("gradient")[0]), json.dump());
    expect_close(rejected.grad(), tensor(expected.at("gradient")[1]), json.dump());
  }
}

TEST(OrpoParity, LogOddsAndGradientsEqualTrl) {
  const Json& expected = goldens().at("orpo");
  const at::Tensor chosen = leaf(expected.at("chosen")), rejected = leaf(expected.at("rejected"));
  const at::Tensor odds = log_odds(chosen, rejected), ratio = at::log_sigmoid(odds);
  const at::Tensor losses = expected.at("beta").get<double>() * ratio;
  losses.mean().backward();
  expect_close(losses, tensor(expected.at("losses")), "losses");
  expect_close(ratio.mean().item<double>(), expected.at("ratio"), "ratio");
  expect_close(odds.mean().item<double>(), expected.at("odds"), "odds");
  expect_close(chosen.grad(), tensor(expected.at("gradient")[0]), "chosen");
  expect_close(rejected.grad(), tensor(expected.at("gradient")[1]), "rejected");
}

TEST(RewardParity, LossAndGradientsEqualTrl) {
  for (const Json& expected : goldens().at("reward")) {
    const at::Tensor chosen = leaf(expected.at("chosen")), rejected = leaf(expected.at("rejected"));
    std::optional<at::Tensor> margin;
    if (!expected.at("margin").is_null()) margin = tensor(expected.at("margin"));
    const at::Tensor loss =
        reward_loss(chosen, rejected, margin, expected.at("coefficient").get<double>()).mean();
    loss.backward();
    expect_close(loss.item<double>(), expected.at("loss"), expected.dump());
    expect_close(chosen.grad(), tensor(expected.at("gradient")[0]), expected.dump());
    expect_close(rejected.grad(), tensor(expected.at("gradient")[1]), expected.dump());
  }
}

}  // namespace
}  // namespace temper::trainer
