#include "trainer/models/quantization.h"

#include <gtest/gtest.h>

namespace temper::trainer {
namespace {

// The answers of should_convert_module of transformers 5 (quantizers/quantizers_utils.py).
TEST(Quantization, AnEntryKeepsModulesFromTheStartUpToADotOrByTheirEnding) {
  const auto keeps = [](const std::string& entry, const std::string& module) {
    const data::Json config = {{"quantization_config", {{"llm_int8_skip_modules", {entry}}}}};
    return kept_in_full(config, module) == entry;
  };
  EXPECT_TRUE(keeps("lm_head", "lm_head"));
  EXPECT_TRUE(keeps("model.layers.1", "model.layers.1.mlp.up_proj"));
  EXPECT_FALSE(keeps("model.layers.1", "model.layers.11.mlp.up_proj"));
  EXPECT_TRUE(keeps("model.layers.*", "model.layers.11.mlp.up_proj"));
  EXPECT_TRUE(keeps("up_proj", "model.layers.1.mlp.up_proj"));
  EXPECT_TRUE(keeps("_proj", "model.layers.1.mlp.up_proj"));  // endings need no dot before them
  EXPECT_FALSE(keeps("mlp", "model.layers.1.mlp.up_proj"));
  EXPECT_TRUE(keeps(".*mlp", "model.layers.1.mlp.up_proj"));
  EXPECT_FALSE(keeps("model.layers.1.mlp.up", "model.layers.1.mlp.up_proj"));
}

TEST(Quantization, TheFirstEntryThatKeepsAModuleIsNamed) {
  const data::Json config = {
      {"quantization_config", {{"llm_int8_skip_modules", {"lm_head", "mlp.up_proj", "up_proj"}}}}};
  EXPECT_EQ(kept_in_full(config, "model.layers.0.mlp.up_proj"), "mlp.up_proj");
  EXPECT_EQ(kept_in_full(config, "model.layers.0.self_attn.q_proj"), "");
  EXPECT_EQ(kept_in_full(data::Json::object(), "lm_head"), "");
  EXPECT_EQ(kept_in_full({{"quantization_config", {{"llm_int8_skip_modules", nullptr}}}}, "lm_head"),
            "");
}

}  // namespace
}  // namespace temper::trainer
