#include "trainer/generation/sampling.h"

#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "data/io/json.h"
#include "tests/parity/golden.h"

namespace temper::trainer {
namespace {

// Made by make_sampling.py with transformers 5.23.0 (the file says it): probabilities after its
// logits processors.
std::vector<double> softmax(const std::vector<float>& logits) {
  double sum = 0, largest = -INFINITY;
  for (const float logit : logits) largest = std::max<double>(largest, logit);
  std::vector<double> probabilities;
  for (const float logit : logits) {
    probabilities.push_back(std::exp(logit - largest));
    sum += probabilities.back();
  }
  for (double& p : probabilities) p /= sum;
  return probabilities;
}

TEST(SamplingParity, ProbabilitiesEqualTransformers) {
  const data::Json file = data::read_json(golden_files("sampling") / "cases.json");
  ASSERT_FALSE(file.at("cases").empty());
  for (const data::Json& golden : file.at("cases")) {
    SCOPED_TRACE(golden.at("settings").dump());
    data::Json config = golden.at("settings");
    if (!config.contains("do_sample")) config["do_sample"] = true;
    auto logits = golden.at("logits").get<std::vector<float>>();
    process_logits(logits, golden.at("seen").get<std::vector<int32_t>>(), settings_from(config));
    const auto ours = softmax(logits);
    const auto theirs = golden.at("probabilities").get<std::vector<double>>();
    ASSERT_EQ(ours.size(), theirs.size());
    // Both are float32 computations; what is removed must agree exactly.
    for (size_t i = 0; i < ours.size(); ++i) {
      EXPECT_NEAR(ours[i], theirs[i], 1e-6) << "token " << i;
      EXPECT_EQ(ours[i] == 0, theirs[i] == 0) << "token " << i;
    }
  }
}

}  // namespace
}  // namespace temper::trainer
