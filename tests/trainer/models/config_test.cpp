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
  EXPECT_EQ(config.norm_eps, 1e-6);
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

const data::Json kGpt2 = data::Json::parse(R"({
  "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": 100, "n_embd": 32, "n_layer": 2,
  "n_head": 4, "n_positions": 64})");

TEST(Config, Gpt2HasKeysAndDefaultsOfItsOwn) {
  const ModelConfig config = load(kGpt2);
  EXPECT_EQ(config.intermediate_size, 128);
  EXPECT_EQ(config.max_position_embeddings, 64);
  EXPECT_EQ(config.num_key_value_heads, 4);
  EXPECT_EQ(config.norm_eps, 1e-5);
  EXPECT_EQ(config.gelu, Gelu::kTanh);
  EXPECT_TRUE(config.tie_word_embeddings && config.layer_norm && config.learned_positions);
  EXPECT_EQ(config.dropout, (std::vector<std::string>{"attn_pdrop", "embd_pdrop", "resid_pdrop"}));
  const ModelConfig other = load(with(kGpt2, R"({"n_inner": 48, "activation_function": "gelu",
      "attn_pdrop": 0, "embd_pdrop": 0.0, "resid_pdrop": 0.2, "reorder_and_upcast_attn": true})"));
  EXPECT_EQ(other.intermediate_size, 48);
  EXPECT_EQ(other.gelu, Gelu::kErf);
  EXPECT_EQ(other.dropout, (std::vector<std::string>{"resid_pdrop"}));
  EXPECT_EQ(load(with(kGpt2, R"({"n_embd": null, "hidden_size": 64})")).hidden_size, 64);
}

TEST(Config, Gpt2AsAClassifierKeepsItsName) {
  const data::Json scores = with(kGpt2, R"({"architectures": ["GPT2ForSequenceClassification"],
      "id2label": {"0": "a", "1": "b", "2": "c"}})");
  EXPECT_EQ(load(scores).num_labels, 3);
  EXPECT_FALSE(load(scores).tie_word_embeddings);
  const ModelConfig made = with_score_head(load(kGpt2), 1, 7);
  EXPECT_EQ(made.json["architectures"], data::Json({"GPT2ForSequenceClassification"}));
}

TEST(Config, Gpt2IsRefusedByTheKeyThatIsNotSupported) {
  const auto refusal = [](const char* changes) -> std::string {
    try {
      load(with(kGpt2, changes));
    } catch (const UserError& error) {
      const std::string line = error.what();
      return line.substr(line.find(".json: ") + 7);
    }
    return "";
  };
  EXPECT_EQ(refusal(R"({"activation_function": "relu"})"),
            "activation_function = \"relu\": supported are gelu_new, gelu_pytorch_tanh and gelu");
  EXPECT_EQ(refusal(R"({"scale_attn_weights": false})"),
            "scale_attn_weights = false: only true is supported");
  EXPECT_EQ(refusal(R"({"scale_attn_by_inverse_layer_idx": true})"),
            "scale_attn_by_inverse_layer_idx = true: only false is supported");
  EXPECT_EQ(refusal(R"({"add_cross_attention": true})"),
            "add_cross_attention = true: only false is supported");
  EXPECT_EQ(refusal(R"({"n_head": 5})"), "n_head = 5: must divide n_embd = 32");
  EXPECT_EQ(refusal(R"({"n_positions": 0})"), "n_positions = 0: must be a positive integer");
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
