#include "trainer/models/config.h"

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "recipes/diagnostic.h"
#include "tests/trainer/checkpoint/scratch.h"
#include "trainer/models/rope_frequencies.h"

namespace temper::trainer {
namespace {

const data::Json kLlama = data::Json::parse(R"({
  "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 100, "hidden_size": 32,
  "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
  "max_position_embeddings": 64})");

ModelConfig load(const data::Json& json) {
  const Scratch directory;
  std::ofstream(directory / "config.json") << json.dump();
  return load_config(directory.path());
}

data::Json with(data::Json json, const char* changes) {
  json.merge_patch(data::Json::parse(changes));
  return json;
}

TEST(Config, FillsInWhatTransformersFillsIn) {
  const ModelConfig config = load(kLlama);
  EXPECT_EQ(config.head_dim, 8);
  EXPECT_EQ(config.rms_norm_eps, 1e-6);
  EXPECT_EQ(config.rope.type, "default");
  EXPECT_EQ(config.rope.theta, 10000.0);
  EXPECT_EQ(config.sliding_window, (std::vector<int64_t>{0, 0, 0}));
  EXPECT_FALSE(config.attention_bias || config.output_bias || config.mlp_bias || config.qk_norm);
}

TEST(Config, OldAndNewSpellingsOfRopeAreTheSame) {
  const ModelConfig old = load(
      with(kLlama, R"({"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}})"));
  const ModelConfig now = load(with(
      kLlama, R"({"rope_parameters": {"rope_type": "linear", "rope_theta": 5e5, "factor": 2.0}})"));
  EXPECT_EQ(rope_frequencies(old, 1).inverse, rope_frequencies(now, 1).inverse);
  EXPECT_EQ(now.rope.theta, 5e5);
}

TEST(Config, ArchitecturesDifferAsTransformersSays) {
  data::Json json = kLlama;
  json["architectures"] = {"Qwen2ForCausalLM"};
  json["model_type"] = "qwen2";
  const ModelConfig qwen2 = load(
      with(json, R"({"use_sliding_window": true, "sliding_window": 16, "max_window_layers": 2})"));
  EXPECT_TRUE(qwen2.attention_bias);
  EXPECT_FALSE(qwen2.output_bias);
  EXPECT_EQ(qwen2.sliding_window, (std::vector<int64_t>{0, 0, 16}));
  EXPECT_EQ(load(with(json, R"({"sliding_window": 16})")).sliding_window,
            (std::vector<int64_t>{0, 0, 0}));

  json["architectures"] = {"Qwen3ForCausalLM"};
  const ModelConfig qwen3 = load(json);
  EXPECT_TRUE(qwen3.qk_norm);
  EXPECT_EQ(qwen3.head_dim, 128);

  json["architectures"] = {"MistralForCausalLM"};
  EXPECT_EQ(load(json).sliding_window, (std::vector<int64_t>{4096, 4096, 4096}));
  json["sliding_window"] = nullptr;
  EXPECT_EQ(load(json).sliding_window, (std::vector<int64_t>{0, 0, 0}));
}

struct Bad {
  std::string title, changes, expected;
};

class BadConfig : public testing::TestWithParam<Bad> {};

TEST_P(BadConfig, IsRefusedWithKeyAndRemedy) {
  try {
    load(with(kLlama, GetParam().changes.c_str()));
    FAIL() << "was accepted";
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find(GetParam().expected), std::string::npos)
        << error.what();
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cases, BadConfig,
    testing::Values(
        Bad{"Architecture", R"({"architectures": ["LlamaForCasualLM"]})",
            "did you mean LlamaForCausalLM?"},
        Bad{"MissingKey", R"({"vocab_size": null})", "vocab_size: is missing"},
        Bad{"NegativeSize", R"({"hidden_size": -4})",
            "hidden_size = -4: must be a positive integer"},
        Bad{"WrongType", R"({"num_hidden_layers": "two"})",
            "num_hidden_layers = \"two\": must be a positive integer"},
        Bad{"Heads", R"({"num_key_value_heads": 3})",
            "num_key_value_heads = 3: must divide num_attention_heads = 4"},
        Bad{"OddHead", R"({"head_dim": 7})", "head_dim = 7: must be even"},
        Bad{"Activation", R"({"hidden_act": "gelu"})", "hidden_act = \"gelu\": only silu"},
        Bad{"Quantised", R"({"quantization_config": {"bits": 4}})",
            "only bitsandbytes' 4 and 8 bits are supported"},
        Bad{"RopeType", R"({"rope_parameters": {"rope_type": "spiral"}})",
            "rope_type = \"spiral\": unknown; known: default, linear"},
        Bad{"RopeFactor", R"({"rope_parameters": {"rope_type": "linear"}})",
            "rope_parameters: factor: is missing"},
        Bad{"LongropeFactors",
            R"({"rope_parameters": {"rope_type": "longrope", "short_factor": [1, 2], "long_factor": [1, 2, 3, 4]}})",
            "short_factor = [1,2]: must be a list of head_dim / 2 = 4 numbers"},
        Bad{"PartialRotary", R"({"partial_rotary_factor": 0.5})", "partial_rotary_factor"},
        Bad{"LayerTypes",
            R"({"architectures": ["Qwen2ForCausalLM"], "layer_types": ["full_attention"]})",
            "must be a list of num_hidden_layers strings"},
        Bad{"SlidingWithoutWindow",
            R"({"architectures": ["Qwen3ForCausalLM"],
                "layer_types": ["full_attention", "full_attention", "sliding_attention"]})",
            "has sliding_attention, but"}),
    [](const auto& parameter) { return parameter.param.title; });

TEST(Config, AllFindingsComeAtOnce) {
  try {
    load(with(kLlama, R"({"vocab_size": 0, "hidden_act": "relu", "head_dim": 5})"));
    FAIL() << "was accepted";
  } catch (const UserError& error) {
    EXPECT_EQ(error.lines().size(), 3u);
  }
}

}  // namespace
}  // namespace temper::trainer
